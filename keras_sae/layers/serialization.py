"""`sparsity=`: an object, a registered name or a config becomes a layer."""

import math
from typing import Any

import keras
import numpy as np

from keras_sae.layers.activity_penalty import ActivityPenalty
from keras_sae.layers.jump_relu import Gated, JumpReLU
from keras_sae.layers.lifetime_sparsity import LifetimeSparsity
from keras_sae.layers.matryoshka import Matryoshka
from keras_sae.layers.top_k import BatchTopK, TopK
from keras_sae.regularizers import L1, KLDivergence
from keras_sae.utils import validation as checks

NAMES: dict[str, type] = {
    "l1": L1,
    "kl": KLDivergence,
    "top_k": TopK,
    "batch_top_k": BatchTopK,
    "lifetime": LifetimeSparsity,
    "jump_relu": JumpReLU,
    "gated": Gated,
    "matryoshka": Matryoshka,
}

# The value of an argument that is chosen by the sparsity.
AUTO = "auto"

# Far enough out that every activation with bounds has reached them in float32.
_PROBE = np.concatenate([-np.logspace(6, -3, 200), [0.0], np.logspace(-3, 6, 200)])


def get(identifier: Any) -> Any:
    """Returns the regularizer or layer that `identifier` stands for.

    Args:
        identifier: None, a `keras.regularizers.Regularizer`, a layer that turns
            pre-activations into a code, a registered name such as `"l1"`, or
            the config of any of these.

    Returns:
        None, a regularizer, or a layer. A layer is copied by its config,
        because its state belongs to one model only.

    Raises:
        ValueError: The name is unknown (the nearest is named), or the object is
            neither a regularizer nor a layer.

    Example:

    >>> from keras_sae.layers import get_sparsity
    >>> type(get_sparsity("kl")).__name__
    'KLDivergence'
    """
    if isinstance(identifier, str):
        return NAMES[checks.known_name("sparsity", identifier, NAMES)]()
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, keras.layers.Layer):
        return type(identifier).from_config(identifier.get_config())
    if identifier is None or isinstance(identifier, keras.regularizers.Regularizer):
        return identifier
    raise ValueError(
        "`sparsity` must be a regularizer, a layer, one of the names "
        f"{', '.join(sorted(NAMES))}, a config, or None. "
        f"Received: sparsity={identifier!r}"
        + (". Write `()` after the class." if isinstance(identifier, type) else ".")
    )


def bounds(activation: Any) -> tuple[float, float]:
    """Returns `(low, high)`, the least and greatest value of an activation.

    Args:
        activation: A function of one tensor.

    Returns:
        The bounds, infinite where the activation has none.
    """
    probe = keras.ops.convert_to_tensor(_PROBE[None, :], "float32")
    values = keras.ops.convert_to_numpy(activation(probe))
    # Softsign is 1e-6 short of its bound where the probe ends.
    low, high = round(float(values.min()), 4), round(float(values.max()), 4)
    limit = 1e3  # beyond this the probe is what bounds it
    return (low if low > -limit else -np.inf, high if high < limit else np.inf)


def never_zero(activation: Any) -> bool:
    """Whether an activation has bounds and no unit is ever exactly off.

    Args:
        activation: A function of one tensor.

    Returns:
        True for a sigmoid, False for a ReLU, with an upper bound or without.
    """
    off = activation(keras.ops.convert_to_tensor([[-4.0, -5.0]], "float32"))
    zero = (keras.ops.convert_to_numpy(off) == 0).all()
    return bool(np.isfinite(bounds(activation)).all() and not zero)


def activation(identifier: Any, sparsity: Any) -> Any:
    """Returns the activation; for `"auto"` the one that `sparsity` needs.

    Args:
        identifier: An activation as in `keras.layers.Dense`, or `"auto"`.
        sparsity: What `get` returns.

    Returns:
        A function. ReLU where the sparsity does not say.
    """
    if identifier == AUTO:
        identifier = getattr(sparsity, "activation", None) or "relu"
    return keras.activations.get(identifier)


def bias_initializer(identifier: Any, sparsity: Any, activation: Any) -> Any:
    """Returns the initializer; for `"auto"` one that starts units at their target.

    Args:
        identifier: An initializer as in `keras.layers.Dense`, or `"auto"`.
        sparsity: What `get` returns.
        activation: What `activation` returns.

    Returns:
        An initializer. From a zero bias a sigmoid unit starts at 0.5, and a
        divergence from a target of 0.05 swamps the first epochs.
    """
    if identifier != AUTO:
        return keras.initializers.get(identifier)
    if isinstance(sparsity, KLDivergence) and activation is keras.activations.sigmoid:
        odds = sparsity.target / (1 - sparsity.target)
        return keras.initializers.Constant(math.log(odds))
    return keras.initializers.Zeros()


def attach(
    sparsity: Any, activation: Any, dtype: Any = None, name: str = "penalty"
) -> keras.layers.Layer | None:
    """Returns the layer that makes the output of `activation` sparse.

    Args:
        sparsity: What `get` returns.
        activation: The function that comes before it.
        dtype: Policy of the layer around it.
        name: Name of the layer that holds a soft penalty.

    Returns:
        A layer, or None where there is no sparsity.

    Raises:
        ValueError: A divergence meets an activation without bounds.
    """
    if isinstance(sparsity, keras.layers.Layer):
        return type(sparsity).from_config({**sparsity.get_config(), "dtype": dtype})
    if sparsity is None:
        return None
    if not isinstance(sparsity, KLDivergence):
        return ActivityPenalty(sparsity, dtype=dtype, name=name)
    low, high = bounds(activation)
    if not np.isfinite([low, high]).all() or low == high:
        raise ValueError(
            "`KLDivergence` compares mean activations in (0, 1) with its target, "
            "so it needs an activation with bounds. Received: activation="
            f"{getattr(activation, '__name__', activation)!r}, whose values "
            f"reach from {low:g} to {high:g}. Use activation='sigmoid' (or "
            "'auto'), or an L1 penalty."
        )
    # An activation inside [0, 1] is a probability already: only one that leaves
    # it, such as tanh, is rescaled.
    inside = low >= 0 and high <= 1
    span = (0.0, 1.0) if inside else (low, high)
    return ActivityPenalty(sparsity, span, dtype=dtype, name=name)
