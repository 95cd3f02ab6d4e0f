"""Greedy layer-wise pretraining: each level reconstructs the previous level's code."""

from collections.abc import Sequence

import keras

from keras_sae.models import Autoencoder, validation
from keras_sae.pretraining.layerwise import Callbacks, LevelTrainer, per_level
from keras_sae.types import Data, LossLike, OptimizerLike, PathLike


def greedy(
    model: Autoencoder,
    x: Data,
    epochs: int | Sequence[int],
    batch_size: int = 256,
    optimizer: OptimizerLike | Sequence[OptimizerLike] = "adam",
    *,
    loss: LossLike | Sequence[LossLike] = "mse",
    validation_data: Data | None = None,
    callbacks: Callbacks = None,
    directory: PathLike | None = None,
    verbose: str | int = "auto",
) -> list[keras.callbacks.History]:
    """Pretrain a deep autoencoder layer by layer, in place.

    Level `l` learns to reconstruct the code `h_{l-1}` of the level below (`h_0 = x`):

    `min loss(h_{l-1}, decode_l(encode_l(h_{l-1}))) + penalty_l`

    Deep stacks of sigmoid layers train poorly from random weights. Training the levels
    one by one gives `fit` a better starting point. Each level is an `Autoencoder` made
    of the model's own layers. `penalty_l` is the sum of their sparsity penalties and
    weight decay. The model's contractive penalty is not used.

    The codes for the next level are computed without corruption. If `x` is a dataset or
    a `numpy.memmap`, the codes are stored in a temporary file, so the data may be
    larger than memory. The model's compile settings do not change. If the model has
    `steps_per_execution > 1`, the levels use the same value.

    Args:
        model: An autoencoder made by `keras_sae.models.deep`, `stacked` or `shallow`.
        x: Array of shape `(samples, *input_shape)`, or a dataset of batches that can be
            read repeatedly: a `tf.data.Dataset`, `keras.utils.PyDataset` or PyTorch
            `DataLoader`. In batches of `(x, target)`, `target` is the first level's
            target.
        epochs: Number of epochs, or a list with one number per level.
        batch_size: Samples per step. With a dataset, the first level uses its batches
            instead.
        optimizer: An optimizer, or a list with one per level. Each level uses a new
            copy.
        loss: Loss between a code and its reconstruction, or a list with one per level.
        validation_data: Array, pair `(x, target)` or dataset. If given, each level also
            logs `val_` metrics.
        callbacks: Keras callbacks for every level, or a list of lists, one per level.
        directory: None, or a folder for the weights of each finished level, so that an
            interrupted call can be resumed. An interrupted level restarts from its
            initial weights. Whether a dataset has changed is not checked.
        verbose: As in `keras.Model.fit`. Unless it is 0, the start of each level is
            printed.

    Returns:
        One `keras.callbacks.History` per level, outermost first.

    Raises:
        ValueError: The model has no levels to train, the range of a level's output does
            not include the code that it reconstructs, a list has the wrong length, `x`
            is invalid, `directory` belongs to another run, or a level diverges.

    Reference:
        Bengio et al., [Greedy layer-wise training of deep networks](
        https://papers.nips.cc/paper/3048-greedy-layer-wise-training-of-deep-networks),
        2007.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, pretraining
    >>> model = models.stacked((6,), units=(5, 3), sparsity="l1")
    >>> x = np.random.default_rng(0).random((32, 6), dtype="float32")
    >>> histories = pretraining.greedy(model, x, [3, 2], batch_size=16, verbose=0)
    >>> [len(history.epoch) for history in histories]
    [3, 2]
    >>> model.compile("adam")  # then fine-tune all levels with `model.fit(x)`
    """
    trainer = LevelTrainer(
        model, x, validation_data, epochs, batch_size, callbacks, verbose
    )
    # The range of an output must cover the range of the code that it reconstructs.
    for index in range(1, len(trainer.levels)):
        code, output = trainer.levels[index - 1].encode, trainer.levels[index].decode
        low, high = validation.output_bounds(code)
        reach = validation.output_bounds(output)
        if low < reach[0] or high > reach[1]:
            raise ValueError(
                f"Level {index} must be able to reconstruct the code of level "
                f"{index - 1}. Received: codes in [{low:g}, {high:g}] from "
                f"{code[-1].name!r}, outputs in [{reach[0]:g}, {reach[1]:g}] from "
                f"{output[-1].name!r}. Use the same activation in the encoder and the "
                "decoder, or a linear activation in the decoder."
            )
    count = len(trainer.levels)
    optimizers = []
    for entry in per_level("optimizer", optimizer, count):
        if entry is None:
            raise ValueError("`optimizer` must be a Keras optimizer. Received: None.")
        entry = keras.optimizers.get(entry)
        optimizers.append(type(entry).from_config(entry.get_config()))
    losses = per_level("loss", loss, count)
    settings = {
        "method": "greedy",
        "optimizer": [keras.optimizers.serialize(entry) for entry in optimizers],
        "loss": [keras.losses.serialize(keras.losses.get(entry)) for entry in losses],
    }
    trainer.resume_from(directory, settings)
    for level, (encoder, decoder) in enumerate(trainer.chains):
        autoencoder = Autoencoder(encoder, decoder, name=f"level_{level}")
        autoencoder.compile(optimizers[level], losses[level])
        trainer.fit(autoencoder)
        trainer.encode_data()
    return trainer.histories
