"""Pretraining with restricted Boltzmann machines (RBMs)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import keras
import numpy as np
from keras import ops

from keras_sae import layers
from keras_sae.models import Autoencoder
from keras_sae.models.levels import Level
from keras_sae.models.validation import is_identity
from keras_sae.pretraining.layerwise import (
    Callbacks,
    LevelTrainer,
    per_level,
    summarize,
)
from keras_sae.pretraining.rbm import RBM, UNITS, ScheduledMomentum
from keras_sae.regularizers import KLDivergence
from keras_sae.types import Data, InitializerLike, PathLike, SparsityLike
from keras_sae.utils import validation

LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule | None

DENSE = (layers.SparseDense, layers.TiedDense, keras.layers.Dense)


def boltzmann(
    model: Autoencoder,
    x: Data,
    epochs: int | Sequence[int],
    batch_size: int = 256,
    cd_steps: int = 1,
    *,
    learning_rate: LearningRate | Sequence[LearningRate] = None,
    initial_momentum: float = 0.5,
    momentum: float = 0.9,
    momentum_epochs: int = 5,
    weight_decay: float = 2e-4,
    sparsity: SparsityLike = None,
    kernel_initializer: InitializerLike | None = None,
    validation_data: Data | None = None,
    callbacks: Callbacks = None,
    directory: PathLike | None = None,
    verbose: str | int = "auto",
) -> list[keras.callbacks.History]:
    """Pretrain each level as a restricted Boltzmann machine, in place.

    The first deep autoencoders were pretrained in this way, and the method still helps
    stacks of sigmoid layers. Each level is trained by contrastive divergence with
    momentum:

    `dW = learning_rate (<v h>_0 - <v h>_k - weight_decay W)`,
    `da = learning_rate (<v>_0 - <v>_k)`, `db = learning_rate (<h>_0 - <h>_k)`

    `<>_0` is a mean over a batch of data, and `<>_k` is a mean after `k` Gibbs steps.
    The means of the hidden units `h` become the data `v` of the next level. `W` and `b`
    become the weights of the encoder. `a` and the transpose of `W` become the weights
    of the decoder. Call `fit` afterwards to fine-tune the autoencoder.

    Sigmoid layers become binary units, and linear layers become Gaussian units of
    variance 1. The output activation must fit the data: `"sigmoid"` for values in
    [0, 1], or `"linear"` for values with zero mean and unit variance. Each RBM starts
    from random weights instead of the model's. The model's corruption and sparsity
    apply only in `greedy` and `fit`. The mean of a `Centering` layer is set to the mean
    of the data, and the bias of the next layer is adjusted to match.

    Args:
        model: As in `greedy`. All activations must be sigmoid or linear. The code and
            the output of a level must not both be linear.
        x: As in `greedy`. Targets in a dataset are ignored.
        epochs: As in `greedy`.
        batch_size: As in `greedy`.
        cd_steps: Gibbs steps `k`, usually 1.
        learning_rate: A float, a learning rate schedule, or a list with one entry per
            level. None means 0.001 for levels with Gaussian units and 0.1 for all
            others.
        initial_momentum: Momentum during the first `momentum_epochs` epochs of each
            level.
        momentum: Momentum in all later epochs.
        momentum_epochs: Number of epochs with `initial_momentum`, at least 1.
        weight_decay: Weight decay coefficient for `W`.
        sparsity: Penalty in nats on the means of binary hidden units: a regularizer
            such as `keras_sae.regularizers.KLDivergence(0.05, 0.1)`, its name, or None.
        kernel_initializer: Initializer of `W`. The default is a normal distribution
            with a standard deviation of 0.1.
        validation_data: Array or dataset. A growing gap between `val_free_energy` and
            `free_energy` is a sign of overfitting.
        callbacks: As in `greedy`.
        directory: As in `greedy`.
        verbose: As in `greedy`.

    Returns:
        One `keras.callbacks.History` per level, outermost first. `loss` is the
        contrastive divergence plus penalties. `free_energy` (in nats) and
        `reconstruction_error` (squared error summed over inputs) are averaged over
        samples.

    Raises:
        ValueError: As in `greedy`, or the model has a layer, activation or constraint
            that an RBM cannot have, or data for binary units are outside [0, 1].

    Reference:
        Hinton & Salakhutdinov, [Reducing the dimensionality of data with neural
        networks](https://doi.org/10.1126/science.1127647), Science 2006; Hinton,
        [A practical guide to training restricted Boltzmann machines](
        https://www.cs.toronto.edu/~hinton/absps/guideTR.pdf), 2010.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, pretraining
    >>> model = models.deep(
    ...     (6,), (5, 3), activation="sigmoid", code_activation="linear",
    ...     output_activation="sigmoid",
    ... )
    >>> x = np.random.default_rng(0).random((32, 6), dtype="float32")
    >>> histories = pretraining.boltzmann(model, x, 2, batch_size=16, verbose=0)
    >>> sorted(histories[0].history)
    ['free_energy', 'loss', 'reconstruction_error']
    """
    if isinstance(validation_data, tuple):  # an RBM has no target
        validation_data = validation_data[0]
    trainer = LevelTrainer(
        model, x, validation_data, epochs, batch_size, callbacks, verbose
    )
    levels = [rbm_layers(trainer.levels, i) for i in range(len(trainer.levels))]
    penalty = layers.get_sparsity(sparsity)
    if not isinstance(penalty, layers.ActivityPenalty | None):
        raise ValueError(
            "`sparsity` must be a penalty on the hidden means: a regularizer, its "
            f"name, or None. Received: sparsity={sparsity!r}. For a model with another "
            "kind of sparsity, use `keras_sae.pretraining.greedy`."
        )
    regularizer = None if penalty is None else penalty.regularizer
    if isinstance(regularizer, KLDivergence) and regularizer.momentum is not None:
        raise ValueError(
            "`sparsity` must penalize the means of a batch. Received: momentum="
            f"{regularizer.momentum}, which needs a running mean. Use momentum=None."
        )
    rbms = [
        RBM(
            level.code.units,
            level.visible,
            level.hidden,
            cd_steps,
            weight_decay,
            regularizer if level.hidden == "sigmoid" else None,
            kernel_initializer,
            name=f"level_{index}",
            dtype="float32",
        )
        for index, level in enumerate(levels)
    ]
    rates = per_level("learning_rate", learning_rate, len(levels))
    for index, level in enumerate(levels):
        if rates[index] is None:  # Gaussian units diverge with 0.1
            rates[index] = 0.001 if "linear" in (level.visible, level.hidden) else 0.1
    validation.positive_integer("momentum_epochs", momentum_epochs)
    optimizers = [ScheduledMomentum(r, initial_momentum, momentum) for r in rates]
    settings = {
        **rbms[0].get_config(),
        "method": "boltzmann",
        "optimizer": [keras.optimizers.serialize(one) for one in optimizers],
        "momentum_epochs": momentum_epochs,
        "sparsity": keras.regularizers.serialize(regularizer),
    }
    trainer.resume_from(directory, settings)
    for index, (level, rbm) in enumerate(zip(levels, rbms, strict=True)):
        steps, samples, mean = summarize(trainer.x, batch_size)
        optimizers[index].steps = momentum_epochs * steps
        rbm.compile(optimizers[index], loss=None)
        rbm.build(trainer.chains[index][0].input_shape)
        # Otherwise, TensorFlow would trace the training step twice.
        rbm.optimizer.build(rbm.trainable_variables)
        trainer.fit(rbm)
        level.assign(rbm, samples, mean)
        trainer.encode_data()
    return trainer.histories


@dataclass(frozen=True)
class RBMLayers:
    """The layers of a level that receive the RBM's weights."""

    code: keras.layers.Layer  # receives `W` and the hidden bias
    output: keras.layers.Layer  # receives the transpose of `W` and the visible bias
    center: layers.Centering | None  # receives the mean of the data
    visible: str  # a key of `UNITS`
    hidden: str

    def assign(self, rbm: RBM, samples: int, mean: np.ndarray) -> None:
        """Copy the weights of an RBM and the mean of its data into the layers."""
        kernel = ops.convert_to_numpy(rbm.kernel)
        bias = ops.convert_to_numpy(rbm.hidden_bias)
        if self.center is not None:
            # The RBM was trained on x, but the layer receives x minus the mean.
            self.center.mean.assign(mean)
            self.center.count.assign(np.full(mean.shape, samples))
            bias = bias + mean.astype("float32") @ kernel
        is_transposed = (
            isinstance(self.code, layers.SparseDense) and self.code.transposed_kernel
        )
        self.code.kernel.assign(kernel.T if is_transposed else kernel)
        self.code.bias.assign(bias)
        if not isinstance(self.output, layers.TiedDense):
            self.output.kernel.assign(kernel.T)
        self.output.bias.assign(ops.convert_to_numpy(rbm.visible_bias))


def rbm_layers(levels: Sequence[Level], index: int) -> RBMLayers:
    """Return a level's layers, or raise an error if they cannot form an RBM."""
    encode = [layer for layer in levels[index].encode if not is_identity(layer)]
    decode = [layer for layer in levels[index].decode if not is_identity(layer)]
    center = next((x for x in encode if isinstance(x, layers.Centering)), None)
    found = []
    for side in ([layer for layer in encode if layer is not center], decode):
        layer = side[0]
        penalty = layer.sparsity if isinstance(layer, layers.SparseDense) else None
        if (
            len(side) != 1
            or not isinstance(layer, DENSE)
            or layer.bias is None
            or not isinstance(penalty, layers.ActivityPenalty | None)
        ):
            raise ValueError(
                "To be trained as an RBM, a level must have one dense layer with a "
                "bias in the encoder and one in the decoder. Received: "
                f"level {index} with {[type(x).__name__ for x in side]}. Build the "
                "model with biases, without batch normalization or scaling, and with a "
                "penalty as `sparsity`; or use `keras_sae.pretraining.greedy`."
            )
        is_tied = isinstance(layer, layers.TiedDense)
        constrained = not is_tied and layer.kernel_constraint is not None
        if constrained or not layer.trainable:
            raise ValueError(
                "The weights of an RBM must be trainable and unconstrained. Received: "
                f"level {index} with {layer.name!r} "
                f"{'constrained' if constrained else 'frozen'}. Build the model with "
                "unit_norm=False and trainable layers, or use "
                "`keras_sae.pretraining.greedy`."
            )
        found.append(layer)
    code, output = found
    hidden, visible = _kind_of_units(code), _kind_of_units(output)
    below = [x for x in levels[index - 1].encode if not is_identity(x)][-1]
    if index and visible != _kind_of_units(below):
        raise ValueError(
            f"The output of level {index} must have the same activation as the code of "
            f"level {index - 1}, because they are the same units. Received: "
            f"{visible!r}."
        )
    if hidden == visible == "linear":
        raise ValueError(
            "An RBM with Gaussian units on both sides cannot be trained. Received: "
            f"level {index} with a linear code and a linear output. Make one of them "
            "'sigmoid'."
        )
    return RBMLayers(code, output, center, visible, hidden)


def _kind_of_units(layer: keras.layers.Layer) -> str:
    for name in UNITS:
        if layer.activation is keras.activations.get(name):
            return name
    raise ValueError(
        "The units of an RBM must be binary (activation 'sigmoid') or Gaussian "
        "(activation 'linear'). Received: "
        f"{keras.activations.serialize(layer.activation)!r} for layer {layer.name!r}. "
        "Build the model with activation='sigmoid' (the code and the output may be "
        "'linear'), or use `keras_sae.pretraining.greedy`."
    )
