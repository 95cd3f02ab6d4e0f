"""What the layers tell the model about one forward pass.

Keras keeps the losses of a forward pass in one unnamed list. A model that logs
`sparsity_loss` apart from `auxiliary_loss` has to know which is which, so the
layers of this package name what they add. A sparse layer also hands over what its
code was made from, because some objectives need it with the decoder at hand. All of
it lives for one pass, in the thread that traces it, and nothing stays on a layer.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops

_local = threading.local()


@dataclass(frozen=True)
class Made:
    """A code, the layer that made it, and how to get at what it was made from."""

    layer: keras.layers.Layer
    code: Any
    pre_activations: Callable[[], Any]  # the pre-activations, shape of the code
    entries: Any  # those of the code that may be on, or None where all may
    largest: Any = None  # with them, as in `Step`


@dataclass(frozen=True)
class Step:
    """What an objective may use that needs the decoder a second time.

    Args:
        target: What is to be rebuilt: the input, uncorrupted, or what `fit` was
            given for it.
        pre_activations: Returns the pre-activations of the code, `(batch, units)`.
        code: The code, `(batch, units)`.
        reconstruction: Of the whole code, in the shape of `target`.
        largest: None, or a function of booleans of shape `(units,)` and of `k`: the
            entries of a sample's `k` largest pre-activations among those units.
        decode: A code in, its reconstruction out.
        decode_entries: A code's entries in, its reconstruction out.
        decode_part: Booleans of shape `(units,)` in, out the reconstruction of the
            code with the other units zeroed.
        decode_frozen: The same, with no gradient to the decoder's weights.
        data_loss: The compiled loss of a reconstruction, weighted as the samples are.
        steps_since_active: Training steps since each unit was last on, `(units,)`.
    """

    target: Any
    pre_activations: Callable[[], Any]
    code: Any
    reconstruction: Any
    largest: Callable[[Any, int], Any] | None
    decode: Callable[[Any], Any]
    decode_entries: Callable[[Any], Any]
    decode_part: Callable[[Any], Any]
    decode_frozen: Callable[[Any], Any]
    data_loss: Callable[[Any], Any]
    steps_since_active: Any


@dataclass
class Forward:
    """One forward pass: its samples, terms of the loss by name, the codes made."""

    samples: Any
    terms: dict[str, Any] = field(default_factory=dict)
    codes: list[Made] = field(default_factory=list)


@contextmanager
def collect(inputs: Any) -> Iterator[Forward]:
    """Collects what layers tell of `inputs` inside the `with` block."""
    outer = getattr(_local, "forward", None)
    _local.forward = Forward(ops.shape(inputs)[0])
    try:
        yield _local.forward
    finally:
        _local.forward = outer


def add(layer: keras.layers.Layer, name: str, value: Any) -> None:
    """Adds the scalar `value` to the loss, to be logged as `name`."""
    forward = getattr(_local, "forward", None)
    if forward is not None and not isinstance(forward.samples, int):
        # The last batch of an epoch may leave a replica without a sample: no mean.
        value = ops.where(forward.samples > 0, value, ops.zeros_like(value))
    layer.add_loss(value)
    if forward is not None:
        terms = forward.terms
        terms[name] = terms[name] + value if name in terms else value


def made(
    layer: keras.layers.Layer,
    code: Any,
    pre_activations: Callable[[], Any],
    entries: Any = None,
    largest: Any = None,
) -> None:
    """Tells that `layer` has made `code` from the pre-activations `pre()`."""
    forward = getattr(_local, "forward", None)
    if forward is not None:
        forward.codes.append(Made(layer, code, pre_activations, entries, largest))
