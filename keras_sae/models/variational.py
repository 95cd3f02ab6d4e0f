"""Variational autoencoders."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.export.signatures import Outputs, Signature, standard_normal
from keras_sae.layers import Sampling, SparseDense, UnitNormDense, get_sparsity
from keras_sae.layers.serialization import activation_bounds
from keras_sae.models import building_blocks, data_adapter, loops
from keras_sae.models.autoencoder import Autoencoder
from keras_sae.models.likelihoods import Likelihood, get_likelihood
from keras_sae.types import (
    ActivationLike,
    Config,
    Data,
    LayerLike,
    LossLike,
    OptimizerLike,
    SparsityLike,
    Tensor,
)
from keras_sae.utils.serialization import register
from keras_sae.utils.validation import non_negative, positive_integer


@register
class VariationalAutoencoder(Autoencoder):
    """Autoencoder whose encoder ends with a `keras_sae.layers.Sampling` layer.

    `loss = reconstruction_loss + kl_loss`

    The model can generate new samples and compute a lower bound on the log-likelihood
    of data. `encode` returns the posterior mean. Create the model with
    `keras_sae.models.variational`.

    Args:
        encoder: Model from `(batch, *input_shape)` to `(batch, latent_dim)` with a
            `Sampling` layer.
        decoder: Model from `(batch, latent_dim)` to `(batch, *input_shape)`.
        likelihood: `GaussianLikelihood(variance)`, `BernoulliLikelihood()`,
            `"gaussian"` or `"bernoulli"`.
        **kwargs: Arguments of `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: `encoder` does not have exactly one `Sampling` layer, or
            `likelihood` is unknown.

    Example:

    >>> from keras_sae import models
    >>> model = models.variational((6,), units=8, latent_dim=2)
    >>> model.sample(3, seed=0).shape
    (3, 6)
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        likelihood: str | Config | Likelihood = "gaussian",
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, decoder, **kwargs)
        self.likelihood = get_likelihood(likelihood)
        self._sampling()

    def compile(
        self, optimizer: OptimizerLike = "adam", loss: LossLike = "auto", **kwargs: Any
    ) -> None:
        """Configure training as `keras.Model.compile` does.

        `loss` is the data term of the total loss. `"auto"` is `"mse"` for a Gaussian
        likelihood and `"binary_crossentropy"` for a Bernoulli likelihood.
        """
        if isinstance(loss, str) and loss == "auto":
            loss = self.likelihood.loss
        super().compile(optimizer, loss, **kwargs)

    def _sampling(self) -> Sampling:
        layers = [x for x in self.encoder.layers if isinstance(x, Sampling)]
        if len(layers) != 1:
            raise ValueError(
                "`encoder` must have one `keras_sae.layers.Sampling` layer. Received: "
                f"layers {[layer.name for layer in self.encoder.layers]}. Create the "
                "model with `keras_sae.models.variational`."
            )
        return layers[0]

    def posterior(
        self, x: Data, batch_size: int = 256
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the posterior means and log variances, each `(samples, latent_dim)`.

        Args:
            x: Array of shape `(samples, *input_shape)`, or a dataset of batches.
            batch_size: Number of samples per batch.
        """
        layer = self._sampling()
        parameters = keras.Model(self.encoder.input, layer.input)
        both = loops.predict(self, parameters, x, batch_size)
        mean, log_variance = (ops.convert_to_numpy(v) for v in layer.split(both))
        return mean, log_variance

    def elbo(
        self, x: Data, samples: int = 1, batch_size: int = 256, seed: int = 0
    ) -> float:
        """Return the evidence lower bound of `x` in nats per sample.

        `mean_i(E_q[log p(x_i | z)] - KL(q(z | x_i) | p(z)))`

        The divergence is exact. The expectation is estimated by a mean over random
        codes.

        Args:
            x: Array of shape `(samples, *input_shape)`.
            samples: Number of random codes per sample.
            batch_size: Number of codes per batch.
            seed: Random seed of the codes.

        Raises:
            ValueError: `x` has the wrong shape, or contains values outside the range of
                the output activation.
        """
        positive_integer("samples", samples)
        x, _ = data_adapter.as_arrays(x)
        target = self.reconstruction_target(x)
        self.check_data(x, target)
        mean, log_variance = np.asarray(self.posterior(x, batch_size), "float64")
        divergence = (mean**2 + np.expm1(log_variance) - log_variance).sum(axis=1) / 2
        rows = np.repeat(np.arange(len(mean)), samples)
        noise = np.random.default_rng(seed).standard_normal((len(rows), mean.shape[1]))
        codes = mean[rows] + np.exp(log_variance[rows] / 2) * noise
        total = 0.0
        for begin in range(0, len(rows), batch_size):
            part = slice(begin, begin + batch_size)
            outputs = ops.convert_to_numpy(self.decoder(codes[part], training=False))
            total += self.likelihood.log_likelihood(target[rows[part]], outputs).sum()
        return float(total / len(rows) - divergence.mean())

    def sample(self, n: int, seed: int | None = None) -> np.ndarray:
        """Draw `n` codes from the prior, and decode them to `(n, *input_shape)`."""
        shape = (positive_integer("n", n), self.decoder.input_shape[-1])
        return self.decode(np.random.default_rng(seed).normal(size=shape))

    def serving_signatures(self, top_k: int) -> dict[str, Signature]:
        """Return the signatures of an `Autoencoder`, and an additional one, `sample`.

        `sample` decodes one random code from the prior for each int32 `seed`. `encode`
        returns the `mean` and `log_variance` of the posterior instead of a code.
        """
        layer, latent_dim = self._sampling(), self.decoder.input_shape[-1]
        posterior = keras.Model(self.encoder.input, layer.input)

        def encode(x: Tensor) -> Outputs:
            mean, log_variance = layer.split(posterior(x, training=False))
            return {"mean": mean, "log_variance": log_variance}

        def sample(seeds: Tensor) -> Outputs:
            codes = standard_normal(seeds, latent_dim)
            return {"sample": self.decoder(codes, training=False)}

        signatures = super().serving_signatures(top_k)
        top_features = replace(signatures["top_features"], ranked="encode/mean")
        return signatures | {
            "encode": Signature(encode, self.sample_shape),
            "top_features": top_features,
            "sample": Signature(sample, (), "seed", "int32", samples=False),
        }

    def get_config(self) -> Config:
        """Return the configs of the encoder, the decoder and the likelihood."""
        likelihood = keras.saving.serialize_keras_object(self.likelihood)
        return {**super().get_config(), "likelihood": likelihood}


def variational(
    input_shape: Sequence[int],
    units: int | Sequence[int],
    latent_dim: int,
    beta: float = 1.0,
    *,
    sparsity: SparsityLike = None,
    likelihood: str | Config | Likelihood = "gaussian",
    free_bits: float = 0.0,
    activation: ActivationLike = "relu",
    code_activation: ActivationLike = "auto",
    output_activation: ActivationLike = "auto",
    corruption: LayerLike | None = None,
    contractive: float = 0.0,
    unit_norm: bool = False,
    tied_initialization: bool = False,
    centering: bool = False,
    scaling: bool = False,
    batch_normalization: bool = False,
    name: str = "variational",
    **kwargs: Any,
) -> VariationalAutoencoder:
    """Create a dense variational autoencoder whose decoder mirrors its encoder.

    `loss = mse + beta * KL / D`, with
    `KL = mean_i(1/2 sum_j(mean_ij^2 + variance_ij - 1 - log(variance_ij)))`

    The KL term is divided by `D`, the number of values per sample, because Keras's
    `"mse"` is a mean over these values. At `beta=1`, the loss is the negative evidence
    lower bound divided by `D`, up to a factor and a constant. With a Gaussian
    likelihood, the KL term is multiplied by `2 * variance`. With a Bernoulli
    likelihood, the cross-entropy replaces `mse`.

    Args:
        input_shape: As in `keras_sae.models.shallow`.
        units: Width of each hidden encoder layer, outermost first.
        latent_dim: Number of code units.
        beta: Weight of the divergence from the prior.
        sparsity: Sparsity of the mean, as in `keras_sae.models.shallow`. In the logs,
            `sparsity_loss` and `l0` refer to the mean.
        likelihood: `GaussianLikelihood(variance)`, `BernoulliLikelihood()`,
            `"gaussian"` with a variance of 1/2, or `"bernoulli"`.
        free_bits: Nats per latent unit that are not penalized.
        activation: Activation of all hidden layers.
        code_activation: Activation of the mean. `"auto"` selects the activation that
            the sparsity recommends, or linear without a sparsity.
        output_activation: Activation of the reconstruction. `"auto"` selects the
            activation that the likelihood recommends.
        corruption: As in `keras_sae.models.shallow`.
        contractive: As in `keras_sae.models.shallow`, with the Jacobian of the mean.
        unit_norm: Whether the rows of the decoder's kernels have unit norm.
        tied_initialization: As in `keras_sae.models.shallow`, but for every layer.
        centering: As in `keras_sae.models.shallow`.
        scaling: As in `keras_sae.models.shallow`.
        batch_normalization: Whether to normalize the outputs of the hidden layers.
        name: Name of the model.
        **kwargs: Arguments of every dense layer, such as `kernel_initializer` and
            `kernel_regularizer`.

    Returns:
        A `keras_sae.models.VariationalAutoencoder`.

    Raises:
        ValueError: An argument is out of range, the output activation has values
            outside the likelihood's bounds, `scaling` is combined with a bounded output
            activation, or `contractive` is combined with `batch_normalization` or with
            a sparsity that is not a regularizer.

    Reference:
        - [Kingma & Welling, 2014](https://arxiv.org/abs/1312.6114)
        - [Higgins et al., 2017](https://openreview.net/forum?id=Sy2fzU9gl)

    Example:

    >>> import numpy as np
    >>> from keras_sae import models
    >>> model = models.variational((8, 8, 1), units=16, latent_dim=2)
    >>> model.compile("adam")
    >>> x = np.random.default_rng(0).random((32, 8, 8, 1), dtype="float32")
    >>> "kl_loss" in model.fit(x, verbose=0).history, model.elbo(x) < 0
    (True, True)
    """
    shape = building_blocks.known_shape(input_shape)
    units, size = building_blocks.layer_units(units), math.prod(shape)
    latent_dim = positive_integer("latent_dim", latent_dim)
    likelihood = get_likelihood(likelihood)
    if output_activation == "auto":
        output_activation = likelihood.output_activation
    low, high = activation_bounds(keras.activations.get(output_activation))
    if low < likelihood.bounds[0] or high > likelihood.bounds[1]:
        raise ValueError(
            f"`output_activation` must have values in {likelihood.bounds} for a "
            f"`{type(likelihood).__name__}`. Received: output_activation="
            f"{output_activation!r}, with values from {low:g} to {high:g}. Use "
            f"{likelihood.output_activation!r} or 'auto'."
        )
    hidden = [
        keras.layers.Dense(width, activation, name=f"encode_{n}", **kwargs)
        for n, width in enumerate(units, start=1)
    ]
    layers = building_blocks.preprocessing(corruption, centering, scaling)
    layers += building_blocks.batch_normalized(hidden, batch_normalization)
    below = building_blocks.chain(shape, layers, "encoder")
    sparsity = get_sparsity(sparsity)
    mean: keras.layers.Layer
    if sparsity is None and code_activation == "auto":
        mean = keras.layers.Dense(2 * latent_dim, name="posterior", **kwargs)
        parameters = mean(below.output)
    else:
        mean = SparseDense(latent_dim, code_activation, sparsity, name="mean", **kwargs)
        log_variance = keras.layers.Dense(latent_dim, name="log_variance", **kwargs)
        both = [mean(below.output), log_variance(below.output)]
        parameters = keras.layers.Concatenate(name="posterior")(both)
    factor = non_negative("beta", beta) * likelihood.scale / size
    code = Sampling(factor, free_bits, name="code")(parameters)
    encoder = keras.Model(below.input, code, name="encoder")
    outputs = [(size, output_activation), *((width, activation) for width in units)]
    decoder, mirrors = building_blocks.mirrored_decoder(
        shape,
        latent_dim,
        outputs,
        batch_normalization=batch_normalization,
        layer_class=UnitNormDense if unit_norm else keras.layers.Dense,
        scaling=scaling,
        **kwargs,
    )
    building_blocks.initialize_kernels([*hidden, mean], mirrors, tied_initialization)
    return VariationalAutoencoder(
        encoder, decoder, likelihood, contractive=contractive, name=name
    )
