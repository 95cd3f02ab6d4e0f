"""A stochastic code: the Gaussian posterior of a variational autoencoder."""

from typing import Any

import keras
from keras import ops

from keras_sae.layers import forward_pass
from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register

# exp(-20) and exp(10): a variance beyond them is a number gone astray.
_LOG_VARIANCE = (-20.0, 10.0)


@register
class Sampling(keras.layers.Layer):
    """Draws a code from a Gaussian, and adds its divergence from the prior.

    `z = mean + exp(log_variance / 2) * epsilon`, `epsilon ~ Normal(0, 1)`;
    `loss += coefficient * factor * mean_i(KL_i)`, with
    `KL_i = 1/2 sum_j(mean_ij^2 + variance_ij - 1 - log(variance_ij))`,

    the divergence of the posterior from a standard normal prior, in nats. At
    inference the code is the mean. `log_variance` is clipped to [-20, 10], its
    gradient is not; the noise and the divergence are computed in float32 under
    any policy. `coefficient` is a variable, 1 at first, that callbacks set.

    Args:
        factor: Weight of the divergence, in units of the reconstruction loss for
            one nat in one sample: `beta / D` beside Keras's `"mse"`, which is a
            mean over the `D` values of a sample.
        free_bits: Nats a latent unit that cost nothing more:
            `sum_j max(free_bits, mean_i(KL_ij))` stands in for the divergence.
        seed: None, or an integer that makes the draws repeatable.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., 2 * latent_dim)`: the means, then the logarithms of the
        variances.

    Output shape:
        `(batch, ..., latent_dim)`.

    Raises:
        ValueError: `factor` or `free_bits` is negative or not finite, or the
            inputs have an odd width.

    Reference:
        Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014; for the
        free bits Kingma et al., "Improved Variational Inference with Inverse
        Autoregressive Flow", NeurIPS 2016.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> sampling = layers.Sampling()
    >>> code = sampling(np.array([[3.0, 4.0, 0.0, 0.0]], "float32"))
    >>> np.asarray(code).tolist(), float(sampling.losses[0])  # (9 + 16) / 2 nats
    ([[3.0, 4.0]], 12.5)
    """

    def __init__(
        self,
        factor: float = 1.0,
        free_bits: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.factor = checks.finite_factor("factor", factor)
        self.free_bits = checks.finite_factor("free_bits", free_bits)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the scale, and checks the width of the inputs."""
        if input_shape[-1] is None or input_shape[-1] % 2:
            raise ValueError(
                "`Sampling` takes means and logarithms of variances side by side, so "
                "the last axis of its inputs must be even. Received: "
                f"input_shape={tuple(input_shape)}. For a code of m units make it 2 m."
            )
        self.coefficient = self.add_weight(
            shape=(),
            initializer="ones",
            name="coefficient",
            trainable=False,
            dtype="float32",
            autocast=False,
        )

    def set_progress(self, fraction: float) -> None:
        """Set the coefficient of the divergence during a warm-up.

        Args:
            fraction: Share of the full weight; 1 at the end of the warm-up.
        """
        self.coefficient.assign(fraction)

    def split(self, inputs: Any) -> tuple[Any, Any]:
        """Returns `(mean, log_variance)`, both float32.

        Args:
            inputs: Tensor of shape `(batch, ..., 2 * latent_dim)`.

        Returns:
            Two tensors of shape `(batch, ..., latent_dim)`.
        """
        mean, raw = ops.split(ops.cast(inputs, "float32"), 2, axis=-1)
        # A clip alone has no gradient outside, and what went astray stays there.
        return mean, raw + ops.stop_gradient(ops.clip(raw, *_LOG_VARIANCE) - raw)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the code; adds the divergence to the loss."""
        mean, log_variance = self.split(inputs)
        divergence = self.factor * self._divergence(mean, log_variance)
        forward_pass.add_loss(
            self, "kl_loss", self.coefficient * divergence, ops.shape(inputs)[0]
        )
        if training:
            noise = keras.random.normal(
                ops.shape(mean), dtype="float32", seed=self.seed_generator
            )
            mean = mean + ops.exp(log_variance / 2) * noise
        return ops.cast(mean, self.compute_dtype)

    def _divergence(self, mean: Any, log_variance: Any) -> Any:
        excess = ops.expm1(log_variance) - log_variance
        units = (ops.square(mean) + excess) / 2
        return ops.sum(ops.maximum(ops.mean(units, axis=0), self.free_bits))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape` with half its last entry."""
        return (*input_shape[:-1], input_shape[-1] // 2)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "factor": self.factor,
            "free_bits": self.free_bits,
            "seed": self.seed,
        }
