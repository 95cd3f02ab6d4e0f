"""The terms of the loss by name, as the layers of one forward pass add them.

Keras keeps the losses of a forward pass in one unnamed list. A model that logs
`sparsity_loss` apart from `auxiliary_loss` has to know which is which, so the
layers of this package name what they add. Names live for one pass, in the
thread that traces it, and nothing stays on a layer.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

_local = threading.local()


@contextmanager
def collect() -> Iterator[dict[str, Any]]:
    """Collects the terms that layers add inside the `with` block."""
    outer = getattr(_local, "terms", None)
    terms: dict[str, Any] = {}
    _local.terms = terms
    try:
        yield terms
    finally:
        _local.terms = outer


def add(layer: keras.layers.Layer, name: str, value: Any) -> None:
    """Adds the scalar `value` to the loss, to be logged as `name`."""
    layer.add_loss(value)
    terms = getattr(_local, "terms", None)
    if terms is not None:
        terms[name] = terms[name] + value if name in terms else value
