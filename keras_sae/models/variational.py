"""A code that is a Gaussian, and the model that trains it."""

import math
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.export.signatures import Outputs, Signature, standard_normal
from keras_sae.layers import (
    Sampling,
    SparseDense,
    UnitNormDense,
    get_sparsity,
)
from keras_sae.layers.forward_pass import Activations, ForwardPass
from keras_sae.models import _graph, building_blocks, likelihoods, validation
from keras_sae.models.autoencoder import Autoencoder
from keras_sae.types import Tensor
from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register


@register
class VariationalAutoencoder(Autoencoder):
    """Autoencoder whose encoder ends in `keras_sae.layers.Sampling`.

    `loss = reconstruction_loss + kl_loss`; `encode` gives the posterior's mean

    `keras_sae.models.variational` makes it.

    Args:
        encoder: Model from `(batch, *input_shape)` to `(batch, latent_dim)`, with a
            `Sampling` layer.
        decoder: Model from `(batch, latent_dim)` to `(batch, *input_shape)`.
        likelihood: `GaussianLikelihood(variance)`, `BernoulliLikelihood()`, or the
            name of one.
        **kwargs: Those of `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: The encoder has no `Sampling` layer, or the likelihood is unknown.

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
        likelihood: Any = "gaussian",
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, decoder, **kwargs)
        self.likelihood = likelihoods.get(likelihood)
        if not any(isinstance(layer, Sampling) for layer in encoder.layers):
            raise ValueError(
                "`encoder` must have a `keras_sae.layers.Sampling` layer. Received: "
                f"layers {[layer.name for layer in encoder.layers]}. "
                "`keras_sae.models.variational` makes such an encoder."
            )

    def compile(
        self, optimizer: Any = "adam", loss: Any = "auto", **kwargs: Any
    ) -> None:
        """Configures training as in Keras; the loss is the likelihood's by default.

        Args:
            optimizer: As in Keras.
            loss: Data term; `"auto"` is `"mse"` for a Gaussian likelihood, and
                `"binary_crossentropy"` for a Bernoulli.
            **kwargs: As in Keras.
        """
        if isinstance(loss, str) and loss == "auto":
            loss = self.likelihood.loss
        super().compile(optimizer, loss, **kwargs)

    def _code_activations(self, step: ForwardPass) -> Activations | None:
        """Return the activations of a sparse mean, which is the code without its noise.

        The decoder gets the code with its noise, so not the entries of the mean.
        """
        mean = self._mean_layer()
        found = [x for x in step.activations if x.layer is mean]
        return replace(found[0], sparse_code=None) if found else None

    def _mean_layer(self) -> Any:
        """The layer whose output is the mean, where that is a layer's alone."""
        mean = _graph.mean(self._sampling().input)
        return None if mean is None else _graph.made_by(mean)[0]

    def posterior(self, x: Any, batch_size: int = 256) -> tuple[np.ndarray, np.ndarray]:
        """Returns the parameters of the code's distribution.

        Args:
            x: Array of shape `(samples, *input_shape)`.
            batch_size: Samples at a time.

        Returns:
            `(mean, log_variance)`, each of shape `(samples, latent_dim)`.
        """
        x = validation.without_target(x)
        validation.check_data(x, self.sample_shape)
        parameters, layer = self.posterior_layers()
        both = parameters.predict(x, batch_size=batch_size, verbose=0)
        mean, log_variance = (ops.convert_to_numpy(v) for v in layer.split(both))
        return mean, log_variance

    def posterior_layers(self) -> tuple[keras.Model, Sampling]:
        """Returns the model up to the parameters, and the layer that splits them."""
        layer = self._sampling()
        return keras.Model(self.encoder.input, layer.input), layer

    def _sampling(self) -> Sampling:
        [layer] = [x for x in self.encoder.layers if isinstance(x, Sampling)]
        return layer

    def elbo(
        self, x: Any, samples: int = 1, batch_size: int = 256, seed: int = 0
    ) -> float:
        """Returns the evidence lower bound of `x` in nats a sample.

        `E_q[log p(x | z)] - KL(q(z | x) | p(z))`, mean over `x`

        The divergence is the closed form, the expectation a mean over draws of `z`.
        Neither `beta` nor free bits enter: it is the bound itself.

        Args:
            x: Array of shape `(samples, *input_shape)`.
            samples: Draws of the code for each sample.
            batch_size: Samples at a time.
            seed: Makes the draws.

        Returns:
            A float: a lower bound of `mean(log p(x))`.

        Raises:
            ValueError: `x` is no array of that shape, or leaves the range of the
                output.
        """
        checks.positive_integer("samples", samples)
        x = validation.as_samples(x, self.sample_shape)
        self.check_data(x)
        mean, log_variance = (
            v.astype("float64") for v in self.posterior(x, batch_size)
        )
        divergence = (mean**2 + np.expm1(log_variance) - log_variance).sum(axis=1) / 2
        rows = np.repeat(np.arange(len(mean)), samples)
        noise = np.random.default_rng(seed).standard_normal((len(rows), mean.shape[1]))
        codes = mean[rows] + np.exp(log_variance[rows] / 2) * noise
        fit = 0.0
        for begin in range(0, len(rows), batch_size):
            part = slice(begin, begin + batch_size)
            rebuilt = ops.convert_to_numpy(self.decoder(codes[part], training=False))
            fit += self.likelihood.log_likelihood(x[rows[part]], rebuilt).sum()
        return float(fit / len(rows) - divergence.mean())

    def sample(self, n: int, seed: int | None = None) -> np.ndarray:
        """Returns reconstructions of codes drawn from the prior.

        Args:
            n: Number of samples.
            seed: Makes the draws; None is another one each time.

        Returns:
            NumPy array of shape `(n, *input_shape)`.
        """
        shape = (checks.positive_integer("n", n), self.decoder.input_shape[-1])
        return self.decode(np.random.default_rng(seed).normal(size=shape))

    def serving_signatures(self, top_k: int) -> dict[str, Signature]:
        """Return the signatures of an `Autoencoder`, another `encode`, and `sample`.

        `encode` returns `mean` and `log_variance` of the posterior. `sample` decodes
        one code from the prior per int32 `seed`.

        Args:
            top_k: Number of units that `top_features` returns.
        """
        posterior, layer = self.posterior_layers()

        def encode(x: Tensor) -> Outputs:
            mean, log_variance = layer.split(posterior(x, training=False))
            return {"mean": mean, "log_variance": log_variance}

        def sample(seed: Tensor) -> Outputs:
            codes = standard_normal(seed, self.decoder.input_shape[-1])
            return {"sample": self.decoder(codes, training=False)}

        return {
            **super().serving_signatures(top_k),
            "encode": Signature(encode, self.sample_shape),
            "sample": Signature(sample, (), "seed", "int32", samples=False),
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the configs of encoder, decoder and likelihood."""
        likelihood = keras.saving.serialize_keras_object(self.likelihood)
        return {**super().get_config(), "likelihood": likelihood}


def variational(
    input_shape: Any,
    units: Any,
    latent_dim: int,
    beta: float = 1.0,
    *,
    sparsity: Any = None,
    likelihood: Any = "gaussian",
    free_bits: float = 0.0,
    activation: Any = "relu",
    code_activation: Any = "auto",
    output_activation: Any = "auto",
    corruption: Any = None,
    contractive: float = 0.0,
    unit_norm: bool = False,
    tied_initialization: bool = False,
    centering: bool = False,
    scaling: bool = False,
    batch_normalization: bool = False,
    kernel_initializer: Any = "glorot_uniform",
    kernel_regularizer: Any = None,
    name: str = "variational",
) -> VariationalAutoencoder:
    """Makes a variational autoencoder, its decoder the mirror of its encoder.

    `loss = mse + beta * KL / D`, with
    `KL = mean_i(1/2 sum_j(mean_ij^2 + variance_ij - 1 - log(variance_ij)))`

    and `D` the values of a sample, because Keras's `"mse"` is a mean over them too;
    the second term is logged as `kl_loss`. A Gaussian likelihood of another
    variance than 1/2 weighs it by `2 * variance`; a Bernoulli has its cross-entropy
    in place of `mse`. At `beta=1` the loss is the negative ELBO divided by `D`, but
    for a factor and a constant.

    A `sparsity` is that of the posterior's mean, which is the code at inference; while
    training the reconstruction is made of it with its noise. `sparsity_loss` and `l0`
    are of the mean then, and so is what a sparsity decodes beside it: the prefixes of a
    `Matryoshka`, the gates of a `Gated`, the dead units of an `AuxK`.

    Args:
        input_shape: Shape of one sample without the batch, e.g. `(28, 28, 1)`.
        units: Width of each hidden layer of the encoder, outermost first.
        latent_dim: Width of the code.
        beta: Weight of the divergence from the prior.
        sparsity: As in `keras_sae.models.shallow`, of the posterior's mean.
        likelihood: `GaussianLikelihood(variance)`, `BernoulliLikelihood()`, or
            `"gaussian"` (variance 1/2), `"bernoulli"`.
        free_bits: Nats a latent unit that cost nothing more.
        activation: Of every hidden layer, on both sides.
        code_activation: Of the posterior's mean; `"auto"` is what its sparsity needs,
            and linear without one.
        output_activation: Of the reconstruction; `"auto"` is the likelihood's.
        corruption: None, or a layer that damages the input while training.
        contractive: Weight of the penalty `mean_i(|dm_i / dx_i|_F^2)` on the Jacobian
            of the posterior's mean, exact through all layers and logged in
            `auxiliary_loss`.
        unit_norm: Whether the atoms of every layer are kept at norm 1, as in
            `keras_sae.models.deep`.
        tied_initialization: Whether each layer of the encoder, the means' included,
            starts as the transpose of the decoder's at its side.
        centering: Whether the encoder subtracts the data's mean.
        scaling: Whether the model works on data of unit mean square, as in
            `keras_sae.models.shallow`; call the model's `adapt` before `fit`.
        batch_normalization: Whether to normalise the output of the hidden layers.
        kernel_initializer: Of every kernel.
        kernel_regularizer: Of every kernel (weight decay).
        name: Name of the model.

    Returns:
        A `keras_sae.models.VariationalAutoencoder`: an `Autoencoder` with
        `posterior`, `elbo` and `sample`.

    Raises:
        ValueError: An argument is out of its range, the output activation gives
            values that the likelihood does not have, `scaling` meets an output
            activation with bounds, or the Jacobian that `contractive` asks for is
            unknown.

    Reference:
        Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014; Higgins et
        al., "beta-VAE", ICLR 2017.

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
    units = building_blocks.layer_units(units)
    size = math.prod(shape)
    latent_dim = checks.positive_integer("latent_dim", latent_dim)
    likelihood = likelihoods.get(likelihood)
    if output_activation == "auto":
        output_activation = likelihood.output_activation
    likelihoods.check_range(likelihood, output_activation)
    options = {
        "kernel_initializer": kernel_initializer,
        "kernel_regularizer": kernel_regularizer,
    }
    factor = checks.finite_factor("beta", beta) * likelihood.scale / size
    hidden = [
        keras.layers.Dense(width, activation, name=f"encode_{n}", **options)
        for n, width in enumerate(units, start=1)
    ]
    layers = building_blocks.preprocessing(corruption, centering, scaling)
    layers += building_blocks.batch_normalized(hidden, batch_normalization)
    below = building_blocks.chain(shape, layers, "encoder")
    sparsity = get_sparsity(sparsity)
    plain = sparsity is None and code_activation == "auto"
    if plain:
        innermost = keras.layers.Dense(2 * latent_dim, name="posterior", **options)
        parameters = innermost(below.output)
    else:
        innermost = SparseDense(
            latent_dim, code_activation, sparsity, name="mean", **options
        )
        log_variance = keras.layers.Dense(latent_dim, name="log_variance", **options)
        both = [innermost(below.output), log_variance(below.output)]
        parameters = keras.layers.Concatenate(name="posterior")(both)
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
        **options,
    )
    encoding = [*hidden, innermost]
    building_blocks.initialize_kernels(encoding, mirrors, tied_initialization)
    return VariationalAutoencoder(
        encoder, decoder, likelihood, contractive=contractive, name=name
    )
