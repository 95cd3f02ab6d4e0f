"""One layer in, one layer out: the sparse autoencoder of the textbooks."""

from typing import Any

import keras

from keras_sae.layers import Centering, SparseDense, TiedDense, get_sparsity
from keras_sae.models import _assembly
from keras_sae.models.autoencoder import Autoencoder


def shallow(
    input_shape: Any,
    units: int,
    sparsity: Any = None,
    *,
    activation: Any = "auto",
    output_activation: Any = "linear",
    tied: bool = False,
    unit_norm: bool | None = None,
    centering: bool = True,
    name: str = "shallow",
    **kwargs: Any,
) -> Autoencoder:
    """Makes an autoencoder with one sparse layer.

    `h = sparsity(activation((x - mean) W + b))`, `r = output_activation(h W' + c)`

    Args:
        input_shape: Shape of one sample without the batch, e.g. `(28, 28, 1)`;
            anything but a vector is flattened and restored.
        units: Width of the code.
        sparsity: A regularizer (`keras_sae.regularizers.L1(1e-4)`), a sparsity
            layer, a name (`"l1"`, `"kl"`), a config, or None.
        activation: Of the code; `"auto"` is what the sparsity needs.
        output_activation: Of the reconstruction. `"linear"` reaches any data;
            `"sigmoid"` goes with data in [0, 1] and `loss="binary_crossentropy"`.
        tied: Whether the decoder uses the transpose of the encoder's kernel.
        unit_norm: Whether the atoms, the rows of `W'`, are kept at norm 1.
            Without it, scaling the encoder down and the decoder up lowers an L1
            penalty for nothing. None is True where the penalty depends on the
            scale of the code; published settings want False.
        centering: Whether the encoder subtracts the data's mean
            (`keras_sae.layers.Centering`), which keeps ReLU units alive;
            published settings want False.
        name: Name of the model.
        **kwargs: Further arguments of `keras_sae.layers.SparseDense`, such as
            `kernel_initializer` and `kernel_regularizer`.

    Returns:
        A `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: An argument is out of its range; see `SparseDense`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, regularizers
    >>> model = models.shallow((8, 8, 1), units=16, sparsity=regularizers.L1(1e-4))
    >>> model.compile("adam")
    >>> x = np.random.default_rng(0).random((32, 8, 8, 1), dtype="float32")
    >>> sorted(model.fit(x, verbose=0).history)[:3]
    ['explained_variance', 'l0', 'loss']
    """
    shape = _assembly.known_shape(input_shape)
    sparsity = get_sparsity(sparsity)
    if unit_norm is None:
        unit_norm = getattr(sparsity, "scale_dependent", sparsity is not None)
    # An atom is a row of a decoder's kernel, and a column of an encoder's.
    norm = keras.constraints.UnitNorm(axis=0 if tied else 1) if unit_norm else None
    code = SparseDense(
        units,
        activation,
        sparsity,
        kernel_constraint=norm if tied else None,
        name="code",
        **kwargs,
    )
    center = [Centering(name="center")] if centering else []
    encoder = _assembly.chain(shape, [keras.layers.Flatten(), *center, code], "encoder")
    if tied:
        output = TiedDense(code, activation=output_activation, name="output")
    else:
        output = keras.layers.Dense(
            _assembly.size(shape),
            activation=output_activation,
            kernel_constraint=norm,
            name="output",
        )
    decoder = _assembly.chain(
        (code.units,), [output, keras.layers.Reshape(shape)], "decoder"
    )
    if norm is not None:  # Keras applies a constraint only after an update
        output.kernel.assign(norm(output.kernel))
    return Autoencoder(encoder, decoder, name=name)
