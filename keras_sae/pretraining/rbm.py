"""Restricted Boltzmann machines, trained by contrastive divergence."""

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_sae.types import Config, InitializerLike, RegularizerLike, Shape, Tensor
from keras_sae.utils import validation
from keras_sae.utils.serialization import register


@dataclass(frozen=True)
class Units:
    """Units whose state `s` depends on their input `z`.

    `p(s | z)` is proportional to `exp(s z - log_partition(z) - base(s))`.
    """

    mean: Callable[[Tensor], Tensor]  # the derivative of `log_partition`
    sample: Callable[[Tensor, keras.random.SeedGenerator], Tensor]
    log_partition: Callable[[Tensor], Tensor]
    base: Callable[[Tensor], Tensor]  # takes the state `s`; the others take `z`


# Kinds of units, by the name of the activation that computes their means.
UNITS = {
    "sigmoid": Units(
        mean=ops.sigmoid,
        sample=lambda z, seed: ops.cast(
            keras.random.uniform(ops.shape(z), dtype=z.dtype, seed=seed)
            < ops.sigmoid(z),
            z.dtype,
        ),
        log_partition=ops.softplus,
        base=ops.zeros_like,
    ),
    "linear": Units(
        mean=lambda z: z,
        sample=lambda z, seed: (
            z + keras.random.normal(ops.shape(z), dtype=z.dtype, seed=seed)
        ),
        log_partition=lambda z: 0.5 * ops.square(z),
        base=lambda s: 0.5 * ops.square(s),
    ),
}


@register
class RBM(keras.Model):
    """Restricted Boltzmann machine, trained by contrastive divergence (CD-k).

    Visible units `v` and hidden units `h` have a probability proportional to `exp(-E)`,
    where `E = -v W h - a v - b h + base(v) + base(h)`. The free energy is
    `F(v) = base(v) - a v - sum_j log_partition(b_j + (v W)_j)`. Its derivatives with
    respect to `W_ij`, `a` and `b` are `-v_i <h_j>`, `-v` and `-<h>`, where `<h>` is the
    mean of `h` given `v`. The update `<v h>_0 - <v h>_k` of CD-k is therefore the
    negative gradient of the first term of

    `loss = mean(F(v_0) - F(v_k)) + weight_decay / 2 * sum(W^2) + sparsity`

    where the end `v_k` of the Gibbs chain is treated as a constant. Hidden units are
    sampled, whereas visible units are set to their means.

    Args:
        units: Number of hidden units.
        visible: `"sigmoid"` for binary visible units, `"linear"` for Gaussian ones.
        hidden: `"sigmoid"` for binary hidden units, `"linear"` for Gaussian ones.
        **kwargs: Arguments of `keras.Model`. The remaining arguments are described in
            `keras_sae.pretraining.boltzmann`.

    Reference:
        Hinton, [Training products of experts by minimizing contrastive divergence](
        https://doi.org/10.1162/089976602760128018), Neural Computation 2002.
    """

    def __init__(
        self,
        units: int,
        visible: str = "sigmoid",
        hidden: str = "sigmoid",
        cd_steps: int = 1,
        weight_decay: float = 2e-4,
        sparsity: RegularizerLike = None,
        kernel_initializer: InitializerLike | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units, self.visible, self.hidden = units, visible, hidden
        self.cd_steps = validation.positive_integer("cd_steps", cd_steps)
        self.weight_decay = validation.non_negative("weight_decay", weight_decay)
        self.sparsity = keras.regularizers.get(sparsity)
        self.kernel_initializer = keras.initializers.get(
            kernel_initializer or keras.initializers.RandomNormal(stddev=0.1)
        )
        self.seed = keras.random.SeedGenerator()
        self.sample_means = [
            keras.metrics.Mean(name=name)
            for name in ("free_energy", "reconstruction_error")
        ]

    def build(self, input_shape: Shape) -> None:
        """Create the kernel and both biases."""
        self.inputs = math.prod(size or 0 for size in input_shape[1:])
        self.kernel = self.add_weight(
            shape=(self.inputs, self.units),
            initializer=self.kernel_initializer,
            # The derivative of weight_decay / 2 * W^2 is weight_decay * W.
            regularizer=keras.regularizers.L2(self.weight_decay / 2),
            name="kernel",
        )
        self.visible_bias = self.add_weight(
            (self.inputs,), "zeros", name="visible_bias"
        )
        self.hidden_bias = self.add_weight((self.units,), "zeros", name="hidden_bias")
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> dict[str, Tensor]:
        """Add the loss, and return free energies and reconstruction errors."""
        del training  # the Gibbs chain also runs in validation
        v0 = ops.reshape(ops.cast(inputs, self.compute_dtype), (-1, self.inputs))
        z0 = self.hidden_inputs(v0)
        visible, hidden = UNITS[self.visible], UNITS[self.hidden]
        chain: list[Tensor] = []  # means of v_1 to v_k
        for _ in range(self.cd_steps):
            h = hidden.sample(self.hidden_inputs(chain[-1]) if chain else z0, self.seed)
            z = ops.matmul(h, ops.transpose(self.kernel)) + self.visible_bias
            chain.append(ops.stop_gradient(visible.mean(z)))
        energy = self.free_energy(v0, z0)
        self.add_loss(ops.mean(energy) - ops.mean(self.free_energy(chain[-1])))
        if self.sparsity is not None:
            batch = ops.cast(ops.shape(v0)[0], self.compute_dtype)
            self.add_loss(self.sparsity(hidden.mean(z0)) / batch)
        error = ops.sum(ops.square(v0 - chain[0]), axis=-1)
        return {"free_energy": energy, "reconstruction_error": error}

    def hidden_inputs(self, v: Tensor) -> Tensor:
        """Return `b + v W`."""
        return ops.matmul(v, self.kernel) + self.hidden_bias

    def free_energy(self, v: Tensor, z: Tensor | None = None) -> Tensor:
        """Return `F(v)` per sample. `z` is `hidden_inputs(v)`, if already computed."""
        z = self.hidden_inputs(v) if z is None else z
        visible, hidden = UNITS[self.visible], UNITS[self.hidden]
        return (
            ops.sum(visible.base(v), axis=-1)
            - ops.matmul(v, self.visible_bias)
            - ops.sum(hidden.log_partition(z), axis=-1)
        )

    def compute_loss(self, x: Tensor, y: Tensor, y_pred: Tensor, *args: Any) -> Tensor:
        """Update the metrics, and return the sum of all losses of the model."""
        for mean in self.sample_means:
            mean.update_state(y_pred[mean.name])
        return super().compute_loss(x, y, y_pred, *args)

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
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


@register
class ScheduledMomentum(keras.optimizers.Optimizer):
    """Gradient descent with a momentum that changes after `steps` steps.

    A weight `w` with gradient `g` moves by `m <- mu m - learning_rate g`. `mu` is
    `initial_momentum` in the first `steps` steps and `momentum` afterwards. RBMs start
    with large gradients, which a high momentum would amplify.

    Reference:
        Hinton, [A practical guide to training restricted Boltzmann machines](
        https://www.cs.toronto.edu/~hinton/absps/guideTR.pdf), 2010, section 9.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.1,
        initial_momentum: float = 0.5,
        momentum: float = 0.9,
        steps: int = 0,
        **kwargs: Any,
    ) -> None:
        if isinstance(learning_rate, numbers.Real):
            validation.positive_number("learning_rate", learning_rate)
        if not (0 <= initial_momentum < 1 and 0 <= momentum < 1):
            raise ValueError(
                "`momentum` and `initial_momentum` must be at least 0 and below 1. "
                f"Received: {momentum=}, {initial_momentum=}."
            )
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.initial_momentum, self.momentum = initial_momentum, momentum
        self.steps = steps

    def build(self, variables: list[keras.Variable]) -> None:
        """Create one velocity per variable."""
        if not self.built:
            super().build(variables)
            self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(
        self, gradient: Tensor, variable: Any, learning_rate: Tensor
    ) -> None:
        """Update one variable."""
        rate, gradient = (
            ops.cast(x, variable.dtype) for x in (learning_rate, gradient)
        )
        early = ops.less(self.iterations, self.steps)
        mu = ops.where(early, self.initial_momentum, self.momentum)
        velocity = self.velocities[self._get_variable_index(variable)]
        mu = ops.cast(mu, variable.dtype)
        self.assign(velocity, mu * velocity - rate * gradient)
        self.assign_add(variable, velocity)

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "initial_momentum": self.initial_momentum,
            "momentum": self.momentum,
            "steps": self.steps,
        }
