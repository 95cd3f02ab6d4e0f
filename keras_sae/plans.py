"""What the command line trains: one model of each family, all of one code width."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_sae import layers, models, pretraining, regularizers
from keras_sae.models import _steps


@dataclass(frozen=True)
class Plan:
    """What a run trains: models, what comes before their fit, and sweeps.

    Args:
        builders: Names, and functions that make the models.
        prepare: As for `keras_sae.evaluation.compare`.
        sweeps: Names of penalties, and functions from a factor to a model.
    """

    builders: Mapping[str, Callable[[], Any]]
    prepare: Mapping[str, Callable[[Any, Any], Any]] = field(default_factory=dict)
    sweeps: Mapping[str, Callable[[float], Any]] = field(default_factory=dict)


def families(
    shape: tuple[int, ...],
    units: int,
    epochs: int,
    l1: float,
    kl: float,
    target: float,
    learning_rate: float,
    batch_size: int = 64,
) -> Plan:
    """Plans one model of each family, all with a code of the same width.

    Args:
        shape: Shape of one sample.
        units: Width of the code; hidden layers are twice as wide, and an eighth of
            the code is on where a TopK says how much.
        epochs: Of the run; greedy pretraining takes half as many a level.
        l1: Weight of the L1 penalty.
        kl: Weight of the KL penalty.
        target: Mean activation that the KL penalty aims at.
        learning_rate: Of Adam.
        batch_size: Samples a step of the greedy pretraining.

    Returns:
        A `Plan`.

    Example:

    >>> from keras_sae import plans
    >>> plan = plans.families((8, 8, 1), 4, 2, 1e-3, 1e-2, 0.05, 1e-3)
    >>> list(plan.builders)[:3]
    ['no penalty', 'L1', 'KL']
    """
    make = functools.partial(compiled, learning_rate)
    sparse, near = regularizers.L1(l1), regularizers.KLDivergence(target, kl)
    deep = (2 * units, units)
    builders = {
        "no penalty": make(models.shallow, shape, units),
        "L1": make(models.shallow, shape, units, sparse),
        "KL": make(models.shallow, shape, units, near),
        "TopK": make(models.shallow, shape, units, layers.TopK(max(1, units // 8))),
        "denoising": make(
            models.shallow, shape, units, corruption=layers.MaskingNoise(0.3)
        ),
        "contractive": make(
            models.shallow, shape, units, activation="sigmoid", contractive=0.01
        ),
        "deep, L1": make(models.deep, shape, deep, sparse),
        "deep, tied": make(models.deep, shape, deep, sparse, tied=True),
        "stacked, greedy": make(models.stacked, shape, deep, near),
        # At beta = 1 the code of so small an image says nothing (its KL goes to 0).
        "variational": make(models.variational, shape, deep[0], units, beta=0.01),
    }
    if len(shape) == 3:
        builders["convolutional"] = make(models.convolutional, shape, (16, 32, units))
    return Plan(
        builders,
        {
            "stacked, greedy": functools.partial(
                _greedy, epochs, learning_rate, batch_size
            )
        },
        {
            "L1": lambda f: make(models.shallow, shape, units, regularizers.L1(f))(),
            "KL": lambda f: make(
                models.shallow, shape, units, regularizers.KLDivergence(target, f)
            )(),
        },
    )


def compiled(rate: float, factory: Callable, *args: Any, **kwargs: Any) -> Callable:
    """Returns a function that makes a model and compiles it with its own Adam.

    Args:
        rate: Learning rate.
        factory: Function that makes the model.
        *args: Its arguments.
        **kwargs: Its arguments.

    Returns:
        A function without arguments.

    Example:

    >>> from keras_sae import models, plans
    >>> plans.compiled(1e-3, models.shallow, (6,), 4)().compiled
    True
    """

    def build() -> Any:
        model = factory(*args, **kwargs)
        model.compile(keras.optimizers.Adam(rate))
        # Not given to `compile`, which would save it: PyTorch refuses such a model.
        model.steps_per_execution = _steps.steps_at_once(model)
        return model

    return build


def _greedy(epochs: int, rate: float, batch_size: int, model: Any, x: Any) -> None:
    optimizer = keras.optimizers.Adam(rate)
    each = max(1, epochs // 2)
    pretraining.greedy(model, x, each, batch_size, optimizer=optimizer, verbose=0)
