"""Data that a model and its sparse layers exchange during one forward pass.

A Keras layer returns one tensor. An `Autoencoder` needs more from its sparse layers:
the pre-activations for auxiliary losses, and the active entries of a code for sparse
matrix products. The layers, in turn, need the sample weights. A `ForwardPass` contains
these data, so that no tensors are stored on layers. It exists only during one pass, in
the thread that runs or traces this pass.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import keras
from keras import ops

from keras_sae.ops.sparse_code import SparseCode
from keras_sae.ops.statistics import expand_weight, from_replicas
from keras_sae.types import Tensor


@dataclass(frozen=True)
class Activations:
    """The output of one sparse layer, with the values that produced it.

    Attributes:
        layer: The `keras_sae.layers.SparseDense` layer.
        code: The layer's output, of shape `(batch, ..., units)`.
        pre_activations: Function that returns the pre-activations: a tensor with the
            shape of `code` or, for a sparsity with a penalty, possibly a `SparseCode`
            of the selected entries.
        sparse_code: The active entries of `code`, or None if the code was computed
            densely.
        top_pre_activations: None, or a function that takes a boolean mask of shape
            `(units,)` and `k`, and returns the `k` largest pre-activations per sample
            among the units in the mask.
    """

    layer: keras.layers.Layer
    code: Tensor
    pre_activations: Callable[[], Tensor | SparseCode]
    sparse_code: SparseCode | None = None
    top_pre_activations: Callable[[Tensor, int], SparseCode] | None = None


@dataclass
class ForwardPass:
    """One forward pass of one model.

    Attributes:
        model: The model that is called.
        in_step: Whether the pass belongs to a training or test step.
        target: Target of the step, or None if the input is the target.
        sample_weight: Sample weights of the step, or None. They have as many axes as
            the target and broadcast against it.
        activations: One entry per sparse layer, in the order of the calls.
        code: The code, for the activity metrics. If it was computed sparsely, only the
            values of its active entries.
        losses: Terms of the loss, by name. The reconstruction loss is added last.
        updates: Functions that update the state of layers, and their arguments.
        centered: `Centering` layers that were already updated with this batch.
        adds_losses: Whether `add_loss` has an effect.
    """

    model: keras.Model
    in_step: bool = False
    target: Tensor | None = None
    sample_weight: Tensor | None = None
    activations: list[Activations] = field(default_factory=list)
    code: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    updates: list[tuple[Callable[..., None], tuple[Tensor, ...]]] = field(
        default_factory=list
    )
    centered: list[keras.layers.Layer] = field(default_factory=list)
    adds_losses: bool = True


_current: ContextVar[ForwardPass | None] = ContextVar("forward_pass", default=None)
# Function that returns the forward pass active in the current thread, or None.
current = _current.get


@contextmanager
def activate(forward_pass: ForwardPass) -> Iterator[None]:
    """Make `forward_pass` the current one inside the `with` block."""
    token = _current.set(forward_pass)
    try:
        yield
    finally:
        _current.reset(token)


def add_loss(
    layer: keras.layers.Layer, name: str, value: Tensor, batch_size: int | Tensor
) -> None:
    """Add a term to the loss of `layer`, and log it as `name`.

    Args:
        layer: The layer or model that adds the term.
        name: Name of the term in the logs.
        value: Scalar tensor or Python number, which is cast to float32.
        batch_size: Number of samples, which may be 0 on a replica. If there are no
            samples, or all sample weights are 0, the added term is 0 even if `value` is
            NaN.
    """
    forward_pass = current()
    if forward_pass is not None and not forward_pass.adds_losses:
        return
    value = ops.cast(value, "float32")  # On JAX, Keras requires a tensor.
    weight = sample_weight()
    if weight is not None:
        batch_size = ops.sum(weight)
    if not isinstance(batch_size, int):
        value = ops.where(batch_size > 0, value, ops.zeros_like(value))
    layer.add_loss(value)
    if forward_pass is not None:
        losses = forward_pass.losses
        losses[name] = losses[name] + value if name in losses else value


def sample_weight() -> Tensor | None:
    """Return the weight of each sample of the step, shape `(batch,)`, or None.

    The weight of a sample is the mean of the weights of its values.
    """
    forward_pass = current()
    if forward_pass is None or forward_pass.sample_weight is None:
        return None
    weight = ops.cast(forward_pass.sample_weight, "float32")
    return ops.mean(weight, axis=tuple(range(1, len(weight.shape))))


def value_weight(values: Tensor) -> Tensor | None:
    """Return the weights of `values`, with the same shape `(batch, ...)`, or None.

    The weights of a target also apply to other tensors with the same number of values
    per sample, such as the input. In all other tensors, every value has the weight of
    its sample.
    """
    forward_pass = current()
    if forward_pass is None or forward_pass.sample_weight is None:
        return None
    weight = ops.cast(forward_pass.sample_weight, "float32")
    if math.prod(weight.shape[1:]) == math.prod(values.shape[1:]):
        return ops.reshape(weight, ops.shape(values))
    return ops.broadcast_to(expand_weight(sample_weight(), values), ops.shape(values))


def mean_loss(losses: Tensor) -> Tensor:
    """Multiply losses of shape `(batch, ...)` by sample weights, and average them."""
    weight = sample_weight()
    if weight is not None:
        losses = losses * expand_weight(weight, losses)
    return ops.mean(losses)


def update(function: Callable[..., None], *values: Tensor) -> None:
    """Update the state of a layer with statistics of the batch.

    Under `tf.distribute`, `function` is called twice: during the forward pass with the
    values of one replica, and afterwards, by `synchronize`, with the values of all
    replicas.

    Args:
        function: Function that assigns new values to variables. Its arguments are
            `values`, with an additional first axis for the replicas. Since it may be
            called twice, it must compute the new values from copies of the variables
            that were made before the first call.
        *values: float32 tensors, the statistics of the batch.
    """
    function(*(ops.expand_dims(value, 0) for value in values))
    forward_pass = current()
    if forward_pass is not None:
        forward_pass.updates.append((function, values))


def synchronize(forward_pass: ForwardPass) -> None:
    """Repeat all updates with the values of all replicas."""
    for function, values in forward_pass.updates:
        function(*from_replicas(values))
    forward_pass.updates.clear()
