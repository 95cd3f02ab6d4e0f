"""Figures, pictures and plots of models become one HTML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_sae.report import _charts, _contents, _figures
from keras_sae.utils import io as files


def write_report(
    model: Any,
    data: Any,
    path: str | Path,
    *,
    history: Any = None,
    table: Any = None,
    title: str = "Sparse autoencoder",
    samples: int = 100,
) -> Path:
    """Writes one self-contained HTML page of what a model has learned.

    It shows the figures of `keras_sae.evaluation.evaluate`; every unit with its
    filter, the histogram of its activations, the inputs that drive it most and the
    classes it prefers; reconstructions, best and worst; the code of a chosen
    sample; learning curves; and a table of models with its Pareto front. The page
    needs no network, and is used by keyboard as by mouse.

    Args:
        model: A `keras_sae.models.Autoencoder`, or a dict from names to models of
            the same input, of which the page shows one at a time.
        data: Held-out data: an array of shape `(samples, *input_shape)`, or
            `(x, y)` with labels of shape `(samples,)`, or `(x, None)`.
        path: The HTML file. One that is there already is replaced.
        history: What `fit` returned, its `.history`, or a dict of these by the
            models' names. If None, what each model remembers of its last `fit`.
        table: None, or what `keras_sae.evaluation.compare` or `summarize` returned.
        title: Heading of the page.
        samples: Samples whose codes can be looked at unit by unit.

    Returns:
        The file's path.

    Raises:
        ValueError: `data` does not fit the model, `samples` is not positive, or
            `table` is not a table of models.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, report
    >>> x = np.random.default_rng(0).random((20, 4, 4, 1), dtype="float32")
    >>> path = report.write_report(models.shallow((4, 4, 1), 8, "l1"), x, "report.html")
    >>> "</html>" in path.read_text(encoding="utf-8")
    True
    """
    models = model if isinstance(model, Mapping) else {model.name: model}
    contents = _contents.gather(models, data, history, samples)
    charts = {"histogram": _charts.histogram(), "activations": _charts.activations()}
    curves = _charts.curves(contents.panels)
    legend: list = []
    comparison = None if table is None else _figures.comparison(table)
    if comparison is not None and comparison.points is not None:
        axes = _figures.ACTIVE, _figures.ERROR
        charts["pareto"] = _charts.pareto(comparison.points, *axes)
        legend = _charts.legend(comparison.points["model"].astype(str))
    page = _render(
        title=title,
        contents=contents,
        comparison=comparison,
        charts=charts,
        curves=curves,
        legend=legend,
        bokeh=_charts.script(),
    )
    path = Path(path)
    with files.atomic_write(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return path


def _render(**context: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_sae.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The plots' JSON defines a part where it first stands, so its order counts.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment.get_template("report.html").render(**context)
