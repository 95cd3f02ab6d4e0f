"""The restricted Boltzmann machine: a Keras model whose loss has CD-k's gradient."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_sae.models import data_adapter
from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register


@dataclass(frozen=True)
class Units:
    """Units of one kind: a distribution of the exponential family.

    `p(s | z) = exp(s z - log_partition(z) - base(s))`, with input `z`

    Attributes:
        mean: From the input to the mean of the units.
        sample: From the input and a seed to a sample of the units.
        log_partition: Its derivative is `mean`.
        base: The part of the energy of a value that has no parameters.
    """

    mean: Callable[[Any], Any]
    sample: Callable[[Any, Any], Any]
    log_partition: Callable[[Any], Any]
    base: Callable[[Any], Any]


def _bernoulli(z: Any, seed: Any) -> Any:
    uniform = keras.random.uniform(ops.shape(z), dtype=z.dtype, seed=seed)
    return ops.cast(uniform < ops.sigmoid(z), z.dtype)


def _normal(z: Any, seed: Any) -> Any:
    return z + keras.random.normal(ops.shape(z), dtype=z.dtype, seed=seed)


# By the name that the activation has whose values the units' means are.
UNITS = {
    "sigmoid": Units(ops.sigmoid, _bernoulli, ops.softplus, ops.zeros_like),
    "linear": Units(
        lambda z: z,
        _normal,
        lambda z: 0.5 * ops.square(z),
        lambda s: 0.5 * ops.square(s),
    ),
}


@register
class RBM(keras.Model):
    """Restricted Boltzmann machine, trained by contrastive divergence.

    `E(v, h) = -v W h - a v - b h + base(v) + base(h)`, `p(v, h) ~ exp(-E)`

    Its free energy `F(v) = base(v) - a v - sum_j log_partition(b_j + (v W)_j)` has
    the derivative `-v_i <h_j>` by `W_ij`, `-v` by `a` and `-<h>` by `b`. With the
    chain's end `v_k` held fixed, the gradient of

    `loss = mean(F(v_0) - F(v_k)) + weight_decay / 2 * sum(W^2) + sparsity`

    is therefore the update of CD-k, `<v h>_0 - <v h>_k`, and any optimizer of
    Keras follows it. Hidden units are sampled; visible ones are probabilities.

    Args:
        units: Number of hidden units.
        visible: Activation of the visible units: `"sigmoid"` for binary ones,
            `"linear"` for Gaussian ones of variance 1.
        hidden: The same of the hidden units.
        cd_steps: Steps `k` of Gibbs sampling.
        weight_decay: Of `W`, in the units of the update.
        sparsity: A `keras.regularizers.Regularizer` of `<h>`, or None.
        kernel_initializer: Of `W`; biases start at zero.
        **kwargs: Those of `keras.Model`.

    Input shape:
        `(batch, ...)`; a sample is flattened to `inputs` values.

    Attributes:
        kernel: `W`, of shape `(inputs, units)`.
        visible_bias: `a`, of shape `(inputs,)`.
        hidden_bias: `b`, of shape `(units,)`.

    Reference:
        Hinton, "Training products of experts by minimizing contrastive
        divergence", Neural Computation 2002.
    """

    def __init__(
        self,
        units: int,
        visible: str = "sigmoid",
        hidden: str = "sigmoid",
        cd_steps: int = 1,
        weight_decay: float = 2e-4,
        sparsity: Any = None,
        kernel_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = checks.positive_integer("units", units)
        self.visible = checks.known_name("kind of units", visible, UNITS)
        self.hidden = checks.known_name("kind of units", hidden, UNITS)
        self.cd_steps = checks.positive_integer("cd_steps", cd_steps)
        self.weight_decay = checks.finite_factor("weight_decay", weight_decay)
        self.sparsity = keras.regularizers.get(sparsity)
        self.kernel_initializer = keras.initializers.get(
            kernel_initializer or keras.initializers.RandomNormal(stddev=0.1)
        )
        self.seed = keras.random.SeedGenerator()
        self.figures = [
            keras.metrics.Mean(name=name)
            for name in ("free_energy", "reconstruction_error")
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the kernel and the two biases."""
        self.inputs = math.prod(size or 0 for size in input_shape[1:])
        self.kernel = self.add_weight(
            shape=(self.inputs, self.units),
            initializer=self.kernel_initializer,
            # The derivative of weight_decay / 2 * W^2 is the textbook's term.
            regularizer=keras.regularizers.L2(self.weight_decay / 2),
            name="kernel",
        )
        self.visible_bias = self.add_weight(
            shape=(self.inputs,), initializer="zeros", name="visible_bias"
        )
        self.hidden_bias = self.add_weight(
            shape=(self.units,), initializer="zeros", name="hidden_bias"
        )
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        """Adds the loss; returns free energy and reconstruction error a sample."""
        del training  # a held-out sample is measured by the same chain
        v0 = ops.reshape(ops.cast(inputs, self.compute_dtype), (-1, self.inputs))
        z0 = self.to_hidden(v0)
        v1, vk = self.chain(ops.stop_gradient(z0))
        energy = self.free_energy(v0, z0)
        self.add_loss(ops.mean(energy) - ops.mean(self.free_energy(vk)))
        if self.sparsity is not None:
            means = UNITS[self.hidden].mean(z0)
            batch = ops.cast(ops.shape(v0)[0], self.compute_dtype)
            self.add_loss(self.sparsity(means) / batch)
        error = ops.sum(ops.square(v0 - v1), axis=-1)
        return {"free_energy": energy, "reconstruction_error": error}

    def to_hidden(self, v: Any) -> Any:
        """Returns the inputs of the hidden units, `b + v W`."""
        return ops.matmul(v, self.kernel) + self.hidden_bias

    def free_energy(self, v: Any, z: Any = None) -> Any:
        """Returns `F(v)` a sample; `z` is `to_hidden(v)`, if it is known already."""
        z = self.to_hidden(v) if z is None else z
        visible, hidden = UNITS[self.visible], UNITS[self.hidden]
        linear = ops.matmul(v, self.visible_bias)
        return (
            ops.sum(visible.base(v), axis=-1)
            - linear
            - ops.sum(hidden.log_partition(z), axis=-1)
        )

    def chain(self, z: Any) -> tuple[Any, Any]:
        """Returns the means of `v_1` and of `v_k`, without a gradient."""
        visible, hidden = UNITS[self.visible], UNITS[self.hidden]
        weights = ops.transpose(ops.stop_gradient(ops.convert_to_tensor(self.kernel)))
        first = None
        for step in range(self.cd_steps):
            h = hidden.sample(z, self.seed)
            inputs = ops.matmul(h, weights) + self.visible_bias
            mean = visible.mean(inputs)
            first = mean if first is None else first
            if step + 1 < self.cd_steps:
                z = self.to_hidden(mean)
        return ops.stop_gradient(first), ops.stop_gradient(mean)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does, without a target."""
        data_adapter.build_optimizer(self)
        signature = inspect.signature(super().fit)
        arguments = signature.bind(x, y, batch_size, *args, **kwargs).arguments
        return super().fit(**data_adapter.fit_arguments(arguments))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the losses added in `call`; takes the figures of the step."""
        if y_pred is not None:
            for figure in self.figures:
                figure.update_state(y_pred[figure.name])
        return super().compute_loss(x, y, y_pred, sample_weight, training=training)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "visible": self.visible,
            "hidden": self.hidden,
            "cd_steps": self.cd_steps,
            "weight_decay": self.weight_decay,
            "sparsity": keras.regularizers.serialize(self.sparsity),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
