"""The stochastic code of a variational autoencoder."""

from typing import Any

import keras
from keras import ops

from keras_sae.layers import forward_pass
from keras_sae.layers.base import layer_state
from keras_sae.ops.statistics import weighted_mean
from keras_sae.types import Config, Shape, Tensor
from keras_sae.utils.serialization import register
from keras_sae.utils.validation import non_negative

# No useful posterior has log variances beyond these bounds.
_LOG_VARIANCE = (-20.0, 10.0)


@register
class Sampling(keras.layers.Layer):
    """Sample a code from a Gaussian posterior, and add a KL divergence to the loss.

    `z = mean + exp(log_variance / 2) * epsilon`, `epsilon ~ Normal(0, 1)`;
    `loss += coefficient * factor * sum_j mean_i(KL_ij)`, with
    `KL_ij = 1/2 (mean_ij^2 + variance_ij - 1 - log(variance_ij))`

    `KL_ij` is the divergence of the posterior from a standard normal prior, in nats.
    The divergence term keeps posteriors close to the prior, so that the decoder can
    also decode codes drawn from the prior. At inference, the code is the mean.
    `log_variance` is clipped to [-20, 10], but its gradient is not clipped. The layer
    computes the noise and the divergence in float32.

    Args:
        factor: Weight of the divergence, in units of the reconstruction loss per nat.
            For a beta-VAE, use `beta / D`, because Keras's `"mse"` is a mean over the
            `D` values of a sample.
        free_bits: Nats per latent unit below which the divergence has no gradient. The
            divergence becomes `sum_j max(free_bits, mean_i(KL_ij))`.
        seed: Random seed of the noise, or None.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        coefficient: float32 variable that multiplies the divergence, initially 1.

    Input shape:
        `(batch, ..., 2 * latent_dim)`: the means, then the log variances.

    Output shape:
        `(batch, ..., latent_dim)`.

    Raises:
        ValueError: `factor` or `free_bits` is negative or not finite, or the inputs
            have an odd width.

    References:
        [Kingma & Welling, "Auto-encoding variational Bayes", 2014](
        https://arxiv.org/abs/1312.6114); [Kingma et al., "Improving variational
        inference with inverse autoregressive flow", 2016](
        https://arxiv.org/abs/1606.04934), for the free bits.

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
        self.factor = non_negative("factor", factor)
        self.free_bits = non_negative("free_bits", free_bits)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Shape) -> None:
        """Create the coefficient, and check the width of the inputs."""
        if input_shape[-1] is None or input_shape[-1] % 2:
            raise ValueError(
                "The last dimension of `Sampling` inputs must be even. Received:"
                f" input_shape={tuple(input_shape)}. A code of m units needs m means "
                "and m log variances."
            )
        self.coefficient = layer_state("coefficient", initial=1.0)

    def set_progress(self, fraction: float) -> None:
        """Set the coefficient to `fraction`, which is 1 at the end of a warm-up."""
        self.coefficient.assign(fraction)

    @property
    def mean_input(self) -> Tensor:
        """Symbolic tensor whose first `latent_dim` values are the means.

        The tensor is the input of this layer, or the first input of a preceding
        `Concatenate` layer that joins the means and the log variances.
        """
        source = self.input._keras_history.operation
        if isinstance(source, keras.layers.Concatenate):
            first = source.input[0]
            if 2 * first.shape[-1] == self.input.shape[-1]:
                return first
        return self.input

    def split(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means and the clipped log variances in `inputs`, in float32."""
        mean, raw = ops.split(ops.cast(inputs, "float32"), 2, axis=-1)
        # Clipping alone has no gradient outside the bounds, so values would stay there.
        return mean, raw + ops.stop_gradient(ops.clip(raw, *_LOG_VARIANCE) - raw)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return the code, and add the divergence to the loss."""
        mean, log_variance = self.split(inputs)
        excess = ops.expm1(log_variance) - log_variance
        weight = forward_pass.sample_weight()
        per_unit = weighted_mean((ops.square(mean) + excess) / 2, weight)
        divergence = ops.sum(ops.maximum(per_unit, self.free_bits))
        if weight is not None:
            divergence = divergence * ops.mean(weight)
        loss = self.coefficient * (self.factor * divergence)
        forward_pass.add_loss(self, "kl_loss", loss, ops.shape(inputs)[0])
        if training:
            noise = keras.random.normal(
                ops.shape(mean), dtype="float32", seed=self.seed_generator
            )
            mean = mean + ops.exp(log_variance / 2) * noise
        return ops.cast(mean, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return `(batch, ..., latent_dim)`."""
        return (*input_shape[:-1], input_shape[-1] // 2)

    def get_config(self) -> Config:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "factor": self.factor,
            "free_bits": self.free_bits,
            "seed": self.seed,
        }
