"""Pretraining by restricted Boltzmann machines, unrolled into the autoencoder."""

import numbers
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.layers import ActivityPenalty, TiedDense, get_sparsity
from keras_sae.models import Autoencoder, validation
from keras_sae.models._fingerprint import nameless
from keras_sae.pretraining import _levels, _sources
from keras_sae.pretraining._levels import Stage
from keras_sae.pretraining._momentum import RisingMomentum
from keras_sae.pretraining._parts import Parts, parts_of
from keras_sae.pretraining._rbm import RBM
from keras_sae.utils import validation as checks

# Published with the method: a Gaussian layer diverges at the rate of a binary one.
RATE, GAUSSIAN_RATE = 0.1, 0.001


def boltzmann(
    model: Autoencoder,
    x: Any,
    epochs: Any,
    batch_size: int = 256,
    cd_steps: int = 1,
    *,
    learning_rate: Any = None,
    initial_momentum: float = 0.5,
    momentum: float = 0.9,
    momentum_epochs: int = 5,
    weight_decay: float = 2e-4,
    sparsity: Any = None,
    kernel_initializer: Any = None,
    validation_data: Any = None,
    callbacks: Any = None,
    directory: str | Path | None = None,
    verbose: Any = "auto",
) -> list[keras.callbacks.History]:
    """Trains each level as a restricted Boltzmann machine, in place.

    `dW = rate (<v h>_0 - <v h>_k - weight_decay W)`,
    `da = rate (<v>_0 - <v>_k)`, `db = rate (<h>_0 - <h>_k)`

    with momentum, by contrastive divergence of `cd_steps` steps: hidden units are
    sampled, the visible ones they give are probabilities. The hidden means of a
    level are the data of the next. Then the stack is unrolled: `W` and `b` into
    the encoder, the transpose of `W` and `a` into the decoder, which is the
    symmetrical deep belief network; `fit` fine-tunes it.

    A sigmoid level becomes binary units, a linear one Gaussian units of variance
    1. The output activation says what the data is: `"sigmoid"` for data in
    [0, 1], taken as probabilities, `"linear"` for data of about zero mean and unit
    variance. No other activation is that of a Boltzmann machine, and Gaussian
    units on Gaussian units have no density that can be trained.

    A machine starts from random weights of its own; those of the model are
    replaced. Corruption layers and the sparsity of a level's layer act in
    `greedy` and in `fit`, not here: `sparsity` is what a machine is given. A
    `Centering` layer gets the data's mean and the bias that makes up for it.
    Where the data is kept, how a call is resumed and how many steps a call of the
    backend takes is as in `greedy`.

    Args:
        model: A `keras_sae.models.Autoencoder` with levels, all sigmoid but for
            the output and the code, which may be linear.
        x: As in `greedy`; targets of a stream are left out.
        epochs: Passes through the data, a positive integer or one a level.
        batch_size: Samples a step; a stream keeps its own at the first level.
        cd_steps: Steps of Gibbs sampling, 1 as a rule.
        learning_rate: None for 0.1, and 0.001 where units are Gaussian; or a
            number or schedule, or a list of one a level.
        initial_momentum: Momentum of the first `momentum_epochs`.
        momentum: Momentum from then on.
        momentum_epochs: Epochs of a level at the initial momentum.
        weight_decay: Weight cost of `W`.
        sparsity: ActivityPenalty of the hidden means of binary levels, in nats: None, a
            regularizer, such as `keras_sae.regularizers.KLDivergence(0.05, 0.1)`
            for a target, or its name as in the models, `"kl"` or `"l1"`.
        kernel_initializer: Of `W`; None is a normal distribution of deviation 0.1.
        validation_data: Held-out `x` or a stream: `val_free_energy` beside
            `free_energy` shows overfitting.
        callbacks: As in `greedy`.
        directory: As in `greedy`.
        verbose: As in `greedy`.

    Returns:
        One `keras.callbacks.History` a level, outermost first, with `loss` (the
        contrastive divergence and the penalties), `free_energy`, a mean over
        samples in nats, and `reconstruction_error`, the squared error of the
        first step summed over inputs, a mean over samples.

    Raises:
        ValueError: As in `greedy`; and the model has an activation, layer or
            constraint that a Boltzmann machine cannot have, or data for binary
            units leaves [0, 1].

    Reference:
        Hinton & Salakhutdinov, "Reducing the dimensionality of data with neural
        networks", Science 2006; Hinton, "A practical guide to training
        restricted Boltzmann machines", 2010.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, pretraining
    >>> model = models.deep(
    ...     (6,), (5, 3), activation="sigmoid", code_activation="linear",
    ...     output_activation="sigmoid",
    ... )
    >>> x = np.random.default_rng(0).random((32, 6), dtype="float32")
    >>> histories = pretraining.boltzmann(model, x, 2, batch_size=16, verbose=0)
    >>> sorted(histories[0].history)
    ['free_energy', 'loss', 'reconstruction_error']
    """
    levels = _levels.levels_of(model)
    parts = [parts_of(levels, index) for index in range(len(levels))]
    rates = _levels.each("learning_rate", learning_rate, len(levels))
    rates = [
        checks.positive_number("learning_rate", rate)
        if isinstance(rate, numbers.Real)
        else rate
        for rate in rates
    ]
    checks.positive_integer("momentum_epochs", momentum_epochs)
    machine = {
        "cd_steps": checks.positive_integer("cd_steps", cd_steps),
        "weight_decay": checks.finite_factor("weight_decay", weight_decay),
        "kernel_initializer": kernel_initializer,
    }
    descent = {
        "initial_momentum": _momentum("initial_momentum", initial_momentum),
        "momentum": _momentum("momentum", momentum),
    }
    penalty = _penalty(sparsity)
    settings = {
        "method": "boltzmann",
        "learning_rate": [_rate_config(rate) for rate in rates],
        "momentum_epochs": momentum_epochs,
        "sparsity": nameless(keras.regularizers.serialize(penalty)),
        **descent,
        **machine,
        "kernel_initializer": nameless(
            keras.initializers.serialize(keras.initializers.get(kernel_initializer))
        ),
    }
    plan = _levels.plan(
        model, epochs, batch_size, callbacks, directory, verbose, settings
    )

    def make(level: int, data: Any, held_out: Any, shape: tuple[int, ...]) -> Stage:
        part = parts[level]
        summary = _sources.summarize(data, batch_size)
        _check_values(summary, part, level, "x")
        if level == 0 and held_out is not None:  # above it units of this model answer
            held = _sources.summarize(held_out, batch_size)
            _check_values(held, part, level, "validation_data")
        rbm = RBM(
            part.code.units,
            part.visible,
            part.hidden,
            sparsity=penalty if part.hidden == "sigmoid" else None,
            name=f"level_{level}",
            dtype="float32",
            **machine,
        )
        rbm.build((None, *shape))
        rate = rates[level]
        if rate is None:
            rate = GAUSSIAN_RATE if part.gaussian else RATE
        steps = momentum_epochs * summary.steps
        rbm.compile(RisingMomentum(rate, steps=steps, **descent), loss=None)
        encoder, _ = _levels.chains(levels[level], shape)
        return Stage(rbm, encoder, lambda: unroll(rbm, part, summary))

    if isinstance(validation_data, tuple):  # as in `fit`; a machine has no target
        validation_data = validation_data[0]
    x, validation_data = (
        validation.without_target(x),
        validation.without_target(validation_data),
    )
    return _levels.train(plan, x, validation_data, make)


def unroll(rbm: RBM, part: Parts, summary: _sources.Summary) -> None:
    """Writes a machine into the encoder's and the decoder's layer of its level."""
    kernel = ops.convert_to_numpy(rbm.kernel)
    bias = ops.convert_to_numpy(rbm.hidden_bias)
    if part.center is not None:
        # The machine saw x; the layer sees x less its mean.
        part.center.mean.assign(summary.mean)
        part.center.count.assign(summary.samples)
        bias = bias + summary.mean.astype("float32") @ kernel
    part.code.kernel.assign(kernel.T if part.code.transposed_kernel else kernel)
    part.code.bias.assign(bias)
    if not isinstance(part.output, TiedDense):
        part.output.kernel.assign(kernel.T)
    part.output.bias.assign(ops.convert_to_numpy(rbm.visible_bias))


def _penalty(sparsity: Any) -> Any:
    """The regularizer that `sparsity` stands for; a machine can have no other."""
    layer = get_sparsity(sparsity)
    found = layer.regularizer if isinstance(layer, ActivityPenalty) else layer
    if found is not None and not isinstance(found, keras.regularizers.Regularizer):
        raise ValueError(
            "`sparsity` of a Boltzmann machine must be a penalty of its hidden means: "
            f"a regularizer, its name, or None. Received: sparsity={sparsity!r}. A "
            "layer that chooses units belongs to the model, and acts in `fit`."
        )
    momentum = getattr(found, "momentum", None)
    if momentum is not None:
        raise ValueError(
            "`sparsity` of a Boltzmann machine is of the means of a batch. Received: "
            f"momentum={momentum}, which needs a running mean. Use momentum=None."
        )
    return found


def _rate_config(rate: Any) -> Any:
    """A learning rate as JSON: None, a number, or a schedule's config."""
    if rate is None:
        return None
    return nameless(RisingMomentum(rate).get_config()["learning_rate"])


def _momentum(name: str, value: Any) -> float:
    if not isinstance(value, numbers.Real) or not 0 <= float(value) < 1:
        raise ValueError(
            f"`{name}` must be at least 0 and below 1. Received: {name}={value!r}."
        )
    return float(value)


def _check_values(
    summary: _sources.Summary, part: Parts, level: int, name: str
) -> None:
    """Raises for values that the visible units of a level cannot take."""
    if not np.isfinite([summary.low, summary.high]).all():
        raise ValueError(
            f"The data of level {level} must be finite. Received: values with NaN or "
            f"infinity. Look for them in `{name}`, or lower the learning rate below."
        )
    if part.visible == "sigmoid" and (summary.low < 0 or summary.high > 1):
        raise ValueError(
            "Binary units take data in [0, 1] as probabilities. Received: values from "
            f"{summary.low:g} to {summary.high:g} at level {level}. Rescale `{name}`, "
            "or build the model with output_activation='linear' for Gaussian units, "
            "and give it data of zero mean and unit variance."
        )
