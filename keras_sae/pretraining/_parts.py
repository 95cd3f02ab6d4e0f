"""What a level must be made of to be a restricted Boltzmann machine."""

from dataclasses import dataclass
from typing import Any

import keras

from keras_sae.layers import ActivityPenalty, Centering, SparseDense, TiedDense
from keras_sae.models.validation import is_identity
from keras_sae.pretraining._rbm import UNITS


@dataclass(frozen=True)
class Parts:
    """The layers of a level that a machine is unrolled into, and its units.

    Attributes:
        code: Dense layer with `W` and the hidden bias.
        output: Dense layer with the transpose and the visible bias.
        center: Layer that subtracts the data's mean, or None.
        visible: Name of the visible units, a key of `UNITS`.
        hidden: Name of the hidden units.
    """

    code: Any
    output: Any
    center: Any
    visible: str
    hidden: str

    @property
    def gaussian(self) -> bool:
        """Whether units of either side are Gaussian."""
        return "linear" in (self.visible, self.hidden)


def parts_of(levels: list[Any], index: int) -> Parts:
    """Returns the parts of a level, if a Boltzmann machine can have its layers."""
    level = levels[index]
    encode = [x for x in level.encode if not is_identity(x)]
    decode = [x for x in level.decode if not is_identity(x)]
    center = next((x for x in encode if isinstance(x, Centering)), None)
    dense = [x for x in encode if x is not center]
    for found in (dense, decode):
        if len(found) != 1 or not _is_dense(found[0]):
            names = [type(x).__name__ for x in found]
            raise ValueError(
                "A Boltzmann machine is one dense layer with a bias, and its "
                f"transpose. Received: level {index} with {names}. Build the model "
                "without batch normalisation and scaling, with biases and soft "
                "sparsity, or use `keras_sae.pretraining.greedy`."
            )
    code, output = dense[0], decode[0]
    _check_weights(code, output, index)
    hidden = _units(code, f"the code of level {index}")
    visible = _units(output, f"the output of level {index}")
    if index and visible != _units(levels[index - 1].encode[-1], ""):
        raise ValueError(
            f"Level {index} rebuilds the code of level {index - 1} with another "
            f"activation. Received: {visible!r}. The two are the same units: give "
            "both the same activation."
        )
    if hidden == visible == "linear":
        raise ValueError(
            "Gaussian units on Gaussian units have no density that can be trained. "
            f"Received: level {index} with a linear code and a linear output. Make "
            "one of them 'sigmoid'."
        )
    return Parts(code, output, center, visible, hidden)


def _is_dense(layer: Any) -> bool:
    if not isinstance(layer, (keras.layers.Dense, SparseDense, TiedDense)):
        return False
    soft = isinstance(getattr(layer, "sparse", None), (ActivityPenalty, type(None)))
    return soft and layer.bias is not None


def _check_weights(code: Any, output: Any, index: int) -> None:
    for layer in (code, output):
        if not layer.trainable:
            raise ValueError(
                "A Boltzmann machine replaces the weights of its level. Received: "
                f"level {index} with {layer.name!r} frozen. Set `trainable = True` on "
                "it, or use `keras_sae.pretraining.greedy`, which leaves it as it is."
            )
        if getattr(layer, "kernel_constraint", None) is not None:
            raise ValueError(
                "The weights of a Boltzmann machine have no constraint, and a later "
                f"`fit` would change them at once. Received: level {index} with "
                f"{type(layer.kernel_constraint).__name__} on {layer.name!r}. Build "
                "the model without it (unit_norm=False)."
            )


def _units(layer: Any, where: str) -> str:
    for name in UNITS:
        if layer.activation is keras.activations.get(name):
            return name
    given = getattr(layer.activation, "__name__", repr(layer.activation))
    raise ValueError(
        "A Boltzmann machine has binary units, activation 'sigmoid', or Gaussian "
        f"units, 'linear'. Received: {given!r} for {where}. Build the model with "
        "activation='sigmoid' (the code and the output may be 'linear'), or use "
        "`keras_sae.pretraining.greedy`."
    )
