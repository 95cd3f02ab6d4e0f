"""Convert the `sparsity` argument to a layer, and find the bounds of activations."""

import functools

import keras
import numpy as np

from keras_sae.layers.activity_penalty import ActivityPenalty
from keras_sae.layers.gated import Gated
from keras_sae.layers.jump_relu import JumpReLU
from keras_sae.layers.lifetime_sparsity import LifetimeSparsity
from keras_sae.layers.matryoshka import Matryoshka
from keras_sae.layers.sparsity import Sparsity
from keras_sae.layers.top_k import BatchTopK, TopK
from keras_sae.regularizers import L1, KLDivergence
from keras_sae.types import Activation, SparsityLike
from keras_sae.utils import validation

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

# Inputs at which activations are evaluated to find their bounds. At both ends, bounded
# activations are within 1e-4 of their bounds. Near zero, the inputs are dense enough to
# find the minimum of SiLU.
_PROBE = np.concatenate(
    [-np.logspace(6, 1, 100), np.linspace(-10, 10, 4001), np.logspace(1, 6, 100)]
)


def get(identifier: SparsityLike) -> Sparsity | None:
    """Return the sparsity layer for an object, a registered name or a config.

    Args:
        identifier: None, a `keras_sae.layers.Sparsity`, a
            `keras.regularizers.Regularizer`, a name such as `"l1"`, or a config.

    Returns:
        None or a `Sparsity`. A regularizer becomes an `ActivityPenalty`. A `Sparsity`
        is returned without being copied.

    Raises:
        ValueError: The name is unknown, or the object's type is not supported.

    Example:

    >>> from keras_sae.layers import get_sparsity
    >>> type(get_sparsity("kl")).__name__
    'ActivityPenalty'
    """
    sparsity = identifier
    if isinstance(identifier, str):
        sparsity = NAMES[validation.known_name("sparsity", identifier, NAMES)]()
    elif isinstance(identifier, dict):
        sparsity = keras.saving.deserialize_keras_object(identifier)
    if isinstance(sparsity, keras.regularizers.Regularizer):
        return ActivityPenalty(sparsity, name="penalty")
    if sparsity is None or isinstance(sparsity, Sparsity):
        return sparsity
    hint = ""
    if isinstance(sparsity, type):
        hint = " Write `()` after the class."
    elif isinstance(sparsity, keras.layers.Layer):
        hint = " Derive the layer from `keras_sae.layers.Sparsity`."
    raise ValueError(
        "`sparsity` must be a `keras_sae.layers.Sparsity`, a regularizer, one of the "
        f"names {', '.join(sorted(NAMES))}, a config, or None. "
        f"Received: sparsity={identifier!r}.{hint}"
    )


def copy_for(
    sparsity: Sparsity,
    activation: Activation,
    dtype: keras.DTypePolicy | None = None,
    name: str | None = None,
) -> Sparsity:
    """Return a copy of `sparsity` for a layer with this activation and dtype policy.

    Each layer uses a copy of the sparsity that it is given, so that layers do not share
    state.

    Args:
        sparsity: The sparsity to copy.
        activation: Activation function that precedes the sparsity.
        dtype: Dtype policy of the layer. If None, the default policy is used.
        name: Name of the copy. If None, the name does not change.

    Raises:
        ValueError: The sparsity is a KL divergence and the activation is unbounded.
    """
    # Pass the policy as a config: Keras can then save subclasses without `get_config`.
    policy = None if dtype is None else keras.dtype_policies.serialize(dtype)
    config = {**sparsity.get_config(), "dtype": policy}
    if name is not None:
        config["name"] = name
    penalty = sparsity.regularizer if isinstance(sparsity, ActivityPenalty) else None
    if isinstance(penalty, KLDivergence):
        low, high = activation_bounds(activation)
        if not np.isfinite([low, high]).all() or low == high:
            label = getattr(activation, "__name__", activation)
            raise ValueError(
                "`KLDivergence` needs a bounded activation, because it compares mean "
                "activations in (0, 1) with its target. Received: "
                f"activation={label!r}, with values from {low:g} to {high:g}. Use "
                "activation='sigmoid' or 'auto', or an L1 penalty."
            )
        # Activations in [0, 1] are already probabilities. Others are rescaled.
        is_probability = low >= 0 and high <= 1
        config["bounds"] = (0.0, 1.0) if is_probability else (low, high)
    return type(sparsity).from_config(config)


@functools.lru_cache(maxsize=64)
def activation_bounds(activation: Activation) -> tuple[float, float]:
    """Return the lowest and highest value of an activation; both may be infinite.

    Args:
        activation: A function of one tensor.
    """
    probe = keras.ops.convert_to_tensor(_PROBE[None, :], "float32")
    values = keras.ops.convert_to_numpy(activation(probe))
    # Round outwards, because softsign is 1e-6 short of its bound at the largest input.
    low = float(np.floor(float(values.min()) * 1e4) / 1e4)
    high = float(np.ceil(float(values.max()) * 1e4) / 1e4)
    limit = 1e3  # Larger values only reflect the range of the inputs.
    return (low if low > -limit else -np.inf, high if high < limit else np.inf)
