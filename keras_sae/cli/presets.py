"""Functions that build and compile the models of the command line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras

from keras_sae import layers, models, pretraining, regularizers

# Steps per TensorFlow call. Each return to Python takes one or two milliseconds.
_STEPS_PER_EXECUTION = 32


@dataclass(frozen=True)
class Preset:
    """Functions that build and prepare models, by the name of the model."""

    # Functions that return a new compiled model.
    builders: Mapping[str, Callable[[], models.Autoencoder]]
    # Functions that take a model and its training data, called before `fit`.
    prepare: Mapping[str, Callable] = field(default_factory=dict)
    # Functions that take a penalty factor and return a new compiled model.
    sweeps: Mapping[str, Callable] = field(default_factory=dict)


def families(
    shape: tuple[int, ...],
    units: int,
    epochs: int,
    l1: float,
    kl: float,
    target: float,
    learning_rate: float,
    batch_size: int = 64,
) -> Preset:
    """Return functions that build one model per family, with codes of `units` units.

    `l1` and `kl` are penalty factors, and `target` is the KL penalty's target. The
    variational code has at most 10 units, so that codes drawn from the prior resemble
    codes of the data. With the defaults of `keras-sae compare`, at most two of 64 units
    are dead on the test sets of `fashion_mini` and `digits` (nine runs with different
    seeds or splits).
    """
    make = partial(builder, learning_rate)
    shallow = partial(make, models.shallow, shape, units)
    l1_penalty, kl_penalty = regularizers.L1(l1), regularizers.KLDivergence(target, kl)
    deep, latent_dim = (2 * units, units), min(10, units)
    builders = {
        "no penalty": shallow(),
        "L1": shallow(l1_penalty),
        "KL": shallow(kl_penalty),
        "TopK": shallow(layers.TopK(max(1, units // 8))),
        "denoising": shallow(corruption=layers.MaskingNoise(0.3)),
        "contractive": shallow(activation="sigmoid", contractive=0.01),
        "deep, L1": make(models.deep, shape, deep, l1_penalty),
        "deep, tied": make(models.deep, shape, deep, l1_penalty, tied=True),
        "stacked, greedy": make(models.stacked, shape, deep, kl_penalty),
        # With beta=1, the KL divergence collapses to 0 on small images.
        f"variational, {latent_dim}": make(
            models.variational, shape, deep[0], latent_dim, beta=0.1
        ),
    }
    if len(shape) == 3:
        builders["convolutional"] = make(models.convolutional, shape, (16, 32, units))
    greedy = partial(
        pretraining.greedy,
        epochs=max(1, epochs // 2),
        batch_size=batch_size,
        optimizer=keras.optimizers.Adam(learning_rate),
        verbose=0,
    )
    sweeps = {
        "L1": lambda factor: shallow(regularizers.L1(factor))(),
        "KL": lambda factor: shallow(regularizers.KLDivergence(target, factor))(),
    }
    return Preset(builders, {"stacked, greedy": greedy}, sweeps)


def builder(
    learning_rate: float, factory: Callable, *args: Any, **kwargs: Any
) -> Callable[[], models.Autoencoder]:
    """Return a function that calls `factory` and compiles the model with Adam."""

    def build() -> models.Autoencoder:
        model = factory(*args, **kwargs)
        model.compile(keras.optimizers.Adam(learning_rate))
        if keras.config.backend() == "tensorflow":
            # `compile` would save this setting with the model. PyTorch cannot run
            # several steps per call, so it would fail to load the model.
            model.steps_per_execution = _STEPS_PER_EXECUTION
        return model

    return build
