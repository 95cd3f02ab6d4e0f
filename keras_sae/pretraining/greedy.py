"""Greedy layer-wise pretraining: every level an autoencoder of the code below."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae.models import Autoencoder, validation
from keras_sae.models._fingerprint import nameless
from keras_sae.pretraining import _levels
from keras_sae.pretraining._adam import fused
from keras_sae.pretraining._levels import Stage


def greedy(
    model: Autoencoder,
    x: Any,
    epochs: Any,
    batch_size: int = 256,
    optimizer: Any = "adam",
    *,
    loss: Any = "mse",
    validation_data: Any = None,
    callbacks: Any = None,
    directory: str | Path | None = None,
    verbose: Any = "auto",
) -> list[keras.callbacks.History]:
    """Trains a deep autoencoder layer by layer, in place; `fit` it afterwards.

    Level `l` is trained to rebuild the code of the level below:
    `min loss(h_{l-1}, decode_l(encode_l(h_{l-1}))) + penalty_l`, `h_0 = x`,

    by a plain Keras `fit` of the level's own layers, its sparsity and weight decay
    included; a contractive penalty is of the whole model and waits for `fit`. The
    code below is computed once a level, without corruption. Codes of an array
    are kept in memory, those of a stream (or of a `numpy.memmap`) in a
    temporary file that is read batch by batch, so the data may be larger than
    memory. The model's compilation and optimizer are left as they are; of its
    compilation the levels take `steps_per_execution`, and where that is 1 and no
    callback looks at single steps, TensorFlow runs 32 of them a call.

    The output of a level must reach the values of the code below: a ReLU code
    needs a ReLU or linear output, a sigmoid code a sigmoid or linear one. That
    output belongs to the model, and a mismatch is an error.

    Args:
        model: A `keras_sae.models.Autoencoder` with levels, as `deep`,
            `stacked` and `shallow` make it.
        x: Array of shape `(samples, *input_shape)`, or a stream of batches that
            can be read again: `tf.data.Dataset`, `keras.utils.PyDataset`, data
            loader. A stream of `(x, target)` gives the first level a target.
        epochs: Passes through the data, a positive integer or one a level.
        batch_size: Samples a step; a stream keeps its own at the first level.
        optimizer: As in `compile`, or a list of one a level. Each level starts
            with a fresh one; an object is copied by its config.
        loss: Between a code and its reconstruction, or a list of one a level.
        validation_data: Held-out `x`, `(x, target)` or a stream; every level
            logs `val_` figures of its code.
        callbacks: A list for every level, or a list of one list a level.
        directory: A folder that makes the call resumable: finished levels are
            kept in it whole, the level under way after each epoch. The same
            call goes on where the last was cut off. A stream cannot be
            recognised, so the folder stands for it.
        verbose: As in `keras.Model.fit`; each level is announced unless 0.

    Returns:
        One `keras.callbacks.History` a level, outermost first.

    Raises:
        ValueError: The model has nothing to pretrain or is compiled for
            classes; an output cannot reach its code; a list has not one entry a
            level; `x` is empty, of another shape, not finite, or cannot be read
            again; `directory` holds something else; a level diverged.

    Reference:
        Bengio et al., "Greedy layer-wise training of deep networks", 2007.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, pretraining
    >>> model = models.stacked((6,), units=(5, 3), sparsity="l1")
    >>> x = np.random.default_rng(0).random((32, 6), dtype="float32")
    >>> histories = pretraining.greedy(model, x, [3, 2], batch_size=16, verbose=0)
    >>> [len(history.epoch) for history in histories]
    [3, 2]
    >>> model.compile("adam")  # and fine-tune all levels by `model.fit(x)`
    """
    levels = _levels.levels_of(model)
    check_ranges(levels)
    optimizers = _levels.each("optimizer", optimizer, len(levels))
    losses = _levels.each("loss", loss, len(levels))
    for entry in losses:
        if _levels.of_classes(entry):
            raise ValueError(
                "`loss` compares a code with its reconstruction, not with a class. "
                f"Received: loss={loss!r}. Use 'mse', or 'binary_crossentropy' for "
                "codes in [0, 1]."
            )
    settings = {
        "method": "greedy",
        "optimizer": [
            nameless(keras.optimizers.serialize(_fresh(o))) for o in optimizers
        ],
        "loss": [
            nameless(keras.losses.serialize(keras.losses.get(entry)))
            for entry in losses
        ],
    }
    plan = _levels.plan(
        model, epochs, batch_size, callbacks, directory, verbose, settings
    )

    def make(level: int, data: Any, _held_out: Any, shape: tuple[int, ...]) -> Stage:
        if level == 0:  # before it is trained: the last may be the one that refuses
            _check_batches(levels, data, plan.batch_size)
        encoder, decoder = _levels.chains(levels[level], shape)
        stage = Autoencoder(encoder, decoder, name=f"level_{level}")
        stage.compile(fused(_fresh(optimizers[level])), losses[level])
        return Stage(stage, encoder)

    return _levels.train(plan, x, validation_data, make)


def _check_batches(levels: list[Any], x: Any, batch_size: int) -> None:
    """Raises for batches too small for the sparsity of any level."""
    for index, level in enumerate(levels):
        layers = [part for layer in level.encode for part in layer._flatten_layers()]
        # Codes of a stream come in batches of their own.
        known = index == 0 or isinstance(x, np.ndarray)
        validation.check_batch_size(layers, batch_size, x if known else None)


def _fresh(optimizer: Any) -> keras.optimizers.Optimizer:
    """A new optimizer; an object passed by the user is not touched."""
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return type(optimizer).from_config(optimizer.get_config())
    if optimizer is None:
        raise ValueError(
            "`optimizer` must be the name of a Keras optimizer, or one. Received: None."
        )
    return keras.optimizers.get(optimizer)


def check_ranges(levels: list[Any]) -> None:
    """Raises if the output of a level cannot reach the code below it."""
    for index in range(1, len(levels)):
        below, behind = levels[index - 1].encode, levels[index].decode
        (low, high), reach = (
            validation.output_bounds(below),
            validation.output_bounds(behind),
        )
        if low < reach[0] or high > reach[1]:
            raise ValueError(
                f"Level {index} must rebuild the code of level {index - 1}, whose "
                f"activation {_name(below)!r} takes values in [{low:g}, {high:g}], and "
                f"its output activation {_name(behind)!r} reaches [{reach[0]:g}, "
                f"{reach[1]:g}] only. Build the model with the same activation in "
                "encoder and decoder, or a linear one in the decoder."
            )


def _name(layers: tuple[keras.layers.Layer, ...]) -> str:
    layer = validation.output_layer(layers)
    activation = getattr(layer, "activation", type(layer))
    return getattr(activation, "__name__", repr(activation))
