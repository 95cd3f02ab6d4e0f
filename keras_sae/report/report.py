"""Write the report: metrics, images and charts of models in one HTML file."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jinja2
import numpy as np
import pandas as pd
from bokeh.resources import Resources
from PIL import Image

from keras_sae.models import Autoencoder
from keras_sae.models.data_adapter import labeled_arrays
from keras_sae.plots.logs import History, logged_metrics, read_logs
from keras_sae.report import charts
from keras_sae.report.sections import ModelSection, comparison_table, to_json
from keras_sae.types import ArrayLike, Data, PathLike
from keras_sae.utils import validation
from keras_sae.utils.images import (
    BLUE,
    ORANGE,
    as_images,
    is_image,
    rescale,
    scale_filters,
    tile_sheet,
)
from keras_sae.utils.io import atomic_write

Histories: TypeAlias = History | Mapping[str, History] | None

# Maximum side of an image in pixels. Larger images are downsampled by averaging.
_SIDE = 48
# Percentiles of the data that are drawn as black and white.
_BLACK, _WHITE = 0.5, 99.5


def write_report(
    model: Autoencoder | Mapping[str, Autoencoder],
    data: Data | tuple[Data, ArrayLike | None],
    path: PathLike,
    *,
    history: Histories = None,
    table: pd.DataFrame | None = None,
    title: str = "Sparse autoencoder",
    samples: int = 100,
) -> Path:
    """Write an HTML page that shows what a model has learned.

    The page has these sections:

    - metrics: the results of `keras_sae.evaluation.evaluate`;
    - units: the filter of each unit, the histogram of its activations, the inputs that
      activate it most, and its mean activation per class (if there are more than 1,000
      units, only the 1,000 with the largest mean magnitude are shown);
    - reconstructions: the best and the worst;
    - samples: the codes of individual samples, unit by unit;
    - learning curves;
    - comparison: a table of models with their Pareto front.

    The page works offline and supports both keyboard and mouse.

    Args:
        model: A `keras_sae.models.Autoencoder`, or a dict that maps names to models
            with the same input shape. The page shows one model at a time.
        data: Data that the model was not trained on: an array `x` of shape
            `(samples, *input_shape)`, or `(x, y)`, where `y` is None or an array of
            labels of shape `(samples,)`. A finite dataset of batches of `x` or `(x, y)`
            is also accepted.
        path: Path of the HTML file. An existing file is replaced.
        history: The return value of `fit`, its `history` attribute, or a dict that maps
            model names to either. If None, each model's own `history` is shown.
        table: The result of `keras_sae.evaluation.compare` or `summarize`. If None, the
            page has no comparison.
        title: Heading of the page.
        samples: Number of samples whose codes are shown, in addition to those of the
            best and the worst reconstructions.

    Returns:
        The path of the file.

    Raises:
        ValueError: `data` does not fit the model, `samples` is not positive, or `table`
            has no `model` column.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, report
    >>> x = np.random.default_rng(0).random((20, 4, 4, 1), dtype="float32")
    >>> path = report.write_report(models.shallow((4, 4, 1), 8, "l1"), x, "report.html")
    >>> "</html>" in path.read_text(encoding="utf-8")
    True
    """
    named = model if isinstance(model, Mapping) else {model.name: model}
    if not named:
        raise ValueError(
            "`model` must contain at least one model. Received: an empty dict."
        )
    validation.positive_integer("samples", samples)
    x, y = _read_data(data)
    classes, class_ids = np.unique([] if y is None else y, return_inverse=True)
    sections = [ModelSection(each, x, y, samples) for each in named.values()]
    shown = np.unique(np.concatenate([s.samples_with_image for s in sections]))
    histories = _read_histories(named, history)
    curves = logged_metrics(histories.values())
    low, high = np.percentile(x, (_BLACK, _WHITE))
    sheets = {"inputs": _input_sheet(x[shown], low, high)}
    for i, section in enumerate(sections):
        # Filters of color images keep three channels, with zero drawn as gray.
        dictionary = section.model.dictionary()[section.shown]
        filters = as_images(scale_filters(dictionary), _SIDE)
        signed = filters.shape[-1] == 1
        filters = filters if signed else 0.5 + 0.5 * filters
        sheets[f"filters-{i}"] = _sheet(filters, signed)
        rows = section.reconstructions
        sheets[f"reconstructions-{i}"] = _input_sheet(rows, low, high)
    comparison = None if table is None else comparison_table(table)
    pareto, legend = (None, []) if table is None else charts.pareto(table)
    shape = "\N{MULTIPLICATION SIGN}".join(map(str, x.shape[1:]))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_sae.report", "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Bokeh's JSON defines an object where it first occurs, so do not sort the keys.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    page = environment.get_template("report.html").render(
        title=title,
        summary=f"{len(x):,} samples of shape {shape}"
        + (f" in {len(classes)} classes" if len(classes) else ""),
        page={
            "inputs": shown.tolist(),
            "labels": None if y is None else class_ids[shown].tolist(),
            "classes": [str(name) for name in classes],
            "models": [
                {"name": str(name), "history": histories[name], **section.to_json()}
                for name, section in zip(named, sections, strict=True)
            ],
        },
        sheets=sheets,
        strips=not is_image(x.shape[1:]),
        comparison=comparison,
        charts=charts.activations() | ({} if pareto is None else {"pareto": pareto}),
        curves={
            metric: charts.learning_curve(metric, histories.values())
            for metric in curves
        },
        legend=legend,
        bokeh="\n".join(Resources(mode="inline", components=["bokeh"]).js_raw),
    )
    path = Path(path)
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _read_data(data: Any) -> tuple[np.ndarray, np.ndarray | None]:
    x, y = data if isinstance(data, (tuple, list)) and len(data) == 2 else (data, None)
    if isinstance(x, (tuple, list)):
        raise ValueError(
            "`data` must be an array `x` of samples, or (x, y) with labels `y`. "
            f"Received: a {type(x).__name__} instead of x. `load_data` returns two "
            "pairs. Pass one pair: report.write_report(model, (x_test, y_test), path)."
        )
    x, y = labeled_arrays(x, y)
    if y is not None and y.shape != x.shape[:1]:
        raise ValueError(
            "`y` must have one label per sample. Received: x of shape "
            f"{x.shape}, y of shape {y.shape}."
        )
    return x, y


def _read_histories(
    models: Mapping[str, Autoencoder], history: Histories
) -> dict[str, dict[str, list]]:
    """Return each model's logs, or an empty dict for a model without logs."""
    if history is None:  # before the first `fit`, models have no `history` attribute
        fitted = {name: getattr(each, "history", None) for name, each in models.items()}
        history = {name: logs for name, logs in fitted.items() if logs is not None}
    given = read_logs(history)
    found = {}
    for name in models:
        logs = given.get(name, given.get("", {}))
        found[name] = {str(key): to_json(values) for key, values in logs.items()}
    return found


def _input_sheet(x: np.ndarray, low: float, high: float) -> dict[str, Any]:
    """Return a sheet of samples: images, or two-color strips for vectors and series."""
    images = as_images(x, _SIDE)
    if not is_image(x.shape[1:]):
        return _sheet(images / (max(abs(low), abs(high)) or 1.0), signed=True)
    return _sheet(rescale(images, low, high))


def _sheet(images: np.ndarray, signed: bool = False) -> dict[str, Any]:
    """Return images as one PNG, which the page cuts into tiles.

    With `signed`, positive values are orange and negative values are blue. Zero is
    transparent, so it takes the page's color in light and dark mode.
    """
    pixels = np.round(255 * np.clip(np.abs(images), 0.0, 1.0))
    if signed:
        pixels = np.concatenate([np.where(images > 0, ORANGE, BLUE), pixels], axis=-1)
    height, width, channels = pixels.shape[1:]
    sheet = tile_sheet(pixels.astype("uint8"))
    file = io.BytesIO()
    image = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    image.save(file, "PNG", optimize=True)
    return {
        "url": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}",
        "columns": sheet.shape[1] // width,
        "rows": sheet.shape[0] // height,
        "aspect": min(max(width / height, 0.25), 4.0),
    }
