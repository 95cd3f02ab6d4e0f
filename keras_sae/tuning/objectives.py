"""Search objectives, by name or as keras-tuner objects."""

import contextlib
import math
from collections.abc import Mapping

import keras
import keras_tuner

from keras_sae.models import Autoencoder
from keras_sae.utils import validation

DEFAULT = "reconstruction_under_l0"
_L0_METRICS = ("l0", "effective_l0")
PROBE = "probe_accuracy"
# Metric and direction of each named objective except `DEFAULT`.
NAMED = {
    PROBE: (PROBE, "max"),
    "reconstruction": ("val_reconstruction_loss", "min"),
}
# Suffixes of metrics for which larger is better.
_LARGER_IS_BETTER = ("accuracy", "explained_variance", "hoyer", "copying_gap")


class ReconstructionUnderL0(keras_tuner.Objective):
    """Objective for the best reconstruction under a limit on active units per sample.

    `score = 1 - EV` if `l0 <= max_l0` and `EV >= 0`; `2 - 1 / (1 - EV)` if
    `l0 <= max_l0` and `EV < 0`; `1 + l0 / max_l0` if `l0 > max_l0`

    `EV` is the explained variance, and `l0` is the mean number of active units per
    sample, both on the validation data. If the search space has a model whose code is
    never exactly zero, `effective_l0` replaces `l0` in all trials. Smaller scores are
    better. Models within the limit score below 2, and all others score above 2.

    Args:
        max_l0: The limit, in active units per sample.
        metric: `"l0"` or `"effective_l0"`. If None, `keras_sae.tuning.search` chooses.

    Raises:
        ValueError: `max_l0` is not a finite number above 0, or `metric` is unknown.

    Example:

    >>> from keras_sae import tuning
    >>> objective = tuning.ReconstructionUnderL0(8)
    >>> objective.get_value({"val_explained_variance": 0.75, "val_l0": 8.0})
    0.25
    >>> objective.get_value({"val_explained_variance": 1.0, "val_effective_l0": 12.0})
    2.5
    """

    def __init__(self, max_l0: float, metric: str | None = None) -> None:
        super().__init__(DEFAULT, "min")
        self.max_l0 = validation.positive_number("max_l0", max_l0)
        if metric is not None:
            validation.known_name("metric", metric, _L0_METRICS)
        self.metric = metric

    def __str__(self) -> str:
        """Return the name, the limit and the metric, which identify the search."""
        metric = "" if self.metric is None else f", metric={self.metric!r}"
        return f"{self.name}(max_l0={self.max_l0:g}{metric})"

    def has_value(self, logs: Mapping[str, float]) -> bool:
        """Return whether the logs contain the explained variance and an L0."""
        return "val_explained_variance" in logs and self.l0(logs) is not None

    def get_value(self, logs: Mapping[str, float]) -> float:
        """Return the score for the logs of one epoch."""
        l0, unexplained = self.l0(logs), 1 - logs["val_explained_variance"]
        if l0 is None or math.isnan(l0):
            return math.nan
        if l0 > self.max_l0:
            return 1 + l0 / self.max_l0
        # Both expressions have the same value and slope at 1. The second is below 2.
        return unexplained if unexplained <= 1 else 2 - 1 / unexplained

    def l0(self, logs: Mapping[str, float]) -> float | None:
        """Return the L0 in the logs, or None if it is missing."""
        if self.metric is not None:
            return logs.get(f"val_{self.metric}")
        return logs.get("val_effective_l0", logs.get("val_l0"))


def l0_metric(hypermodel: keras_tuner.HyperModel) -> str:
    """Return `"effective_l0"` if a model's code is never exactly zero, else `"l0"`.

    To find out, build a model for every value of every `Choice` in the search space.
    """
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    models = [hypermodel.build(hp)]
    for parameter in list(hp.space):
        if isinstance(parameter, keras_tuner.engine.hyperparameters.Choice):
            for value in parameter.values[1:]:
                chosen = keras_tuner.HyperParameters()
                chosen.values[parameter.name] = value
                # Ignore errors here, because a trial with this value reports them.
                with contextlib.suppress(Exception):
                    models.append(hypermodel.build(chosen))
    never_zero = (
        isinstance(model, Autoencoder) and model.effective_l0 is not None
        for model in models
    )
    return "effective_l0" if any(never_zero) else "l0"


def get(
    identifier: str | keras_tuner.Objective,
    model: keras.Model,
    size: int,
    max_l0: float | None = None,
) -> keras_tuner.Objective:
    """Return the objective for a name, a metric of `model`, or a keras-tuner object.

    By default, `max_l0` is the square root of `size`, the number of values per sample.
    """
    name = identifier if isinstance(identifier, str) else None
    if name == DEFAULT:
        return ReconstructionUnderL0(math.sqrt(size) if max_l0 is None else max_l0)
    if max_l0 is not None:
        raise ValueError(
            f"`max_l0` needs the objective {DEFAULT!r}. Received: max_l0={max_l0!r} "
            f"with objective={str(identifier)!r}. Remove one of them."
        )
    if isinstance(identifier, keras_tuner.Objective):
        return identifier
    if name is None:
        raise ValueError(
            "`objective` must be one name or one `keras_tuner.Objective`. Received: "
            f"objective={identifier!r}. keras-tuner would optimize the sum of a list "
            "of metrics. To compare error and L0, use `keras_sae.tuning.pareto_front`."
        )
    if name in NAMED:
        return keras_tuner.Objective(*NAMED[name])
    logged = {"loss", *(metric.name for metric in model.metrics)}
    logged |= {f"val_{metric}" for metric in (*logged, *_L0_METRICS)}
    validation.known_name("objective", name, {DEFAULT, *NAMED, *logged})
    direction = "max" if name.endswith(_LARGER_IS_BETTER) else "min"
    return keras_tuner.Objective(name, direction)
