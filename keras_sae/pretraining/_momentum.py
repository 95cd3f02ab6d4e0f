"""Gradient descent with the momentum that Boltzmann machines are trained with."""

from typing import Any

import keras
from keras import ops

from keras_sae.utils.serialization import register


@register
class RisingMomentum(keras.optimizers.Optimizer):
    """Gradient descent whose momentum rises once: `m <- mu m - rate g`, `w <- w + m`.

    `mu = initial_momentum` in the first `steps` steps, `momentum` from then on.

    Args:
        learning_rate: As in Keras.
        initial_momentum: At the start, when the gradients are large.
        momentum: Later.
        steps: Number of steps until then.
        **kwargs: Those of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        initial_momentum: float = 0.5,
        momentum: float = 0.9,
        steps: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.initial_momentum = initial_momentum
        self.momentum = momentum
        self.steps = steps

    def build(self, variables: list[Any]) -> None:
        """Makes the velocity of every variable."""
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Moves one variable."""
        rate = ops.cast(learning_rate, variable.dtype)
        early = ops.less(self.iterations, self.steps)
        mu = ops.cast(
            ops.where(early, self.initial_momentum, self.momentum), variable.dtype
        )
        velocity = self.velocities[self._get_variable_index(variable)]
        self.assign(velocity, mu * velocity - rate * ops.cast(gradient, variable.dtype))
        self.assign_add(variable, velocity)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "initial_momentum": self.initial_momentum,
            "momentum": self.momentum,
            "steps": self.steps,
        }
