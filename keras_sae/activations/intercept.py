"""Hooks that act on the output of a layer while a model is called.

While a layer is intercepted, a function in the layer's `__dict__` overrides its `call`
method. The function calls the hooks of the current thread, and the hooks call the
original method. `Layer.__call__` looks up `self.call` each time, so hooks work in every
kind of model, both in eager mode and while Keras traces a step.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import keras

from keras_sae.activations.paths import LayerKey, find_layer
from keras_sae.types import Tensor

# A hook takes a function that runs one call of the layer, and the first positional
# argument of that call. It returns the outputs of the call, or replacements for them.
Hook: TypeAlias = Callable[[Callable[[], Any], Any], Any]

# Keras calls `quantized_call` instead of `call` if the layer is quantized.
_METHODS = ("call", "quantized_call")
# Attributes in which Keras models keep their compiled functions.
_COMPILED = (
    "predict_function",
    "test_function",
    "train_function",
    "generate_function",
)
_STEPS = ("predict_step", "test_step", "train_step")


class _Hooks(threading.local):
    """The hooks of a thread, in the order of their `with` blocks."""

    def __init__(self) -> None:
        self.stack: list[tuple[keras.layers.Layer, Hook]] = []


_hooks = _Hooks()
_lock = threading.Lock()
# Open contexts of all threads, by the id of the layer. Each context is a dict of the
# methods that the layer's `__dict__` contained when the `with` block started.
_open: dict[int, list[dict[str, Any]]] = {}


@contextmanager
def intercept(
    layer: LayerKey,
    fn: Callable[[Tensor], Tensor],
    model: keras.layers.Layer | None = None,
) -> Iterator[None]:
    """Replace the output of a layer with `fn(output)` inside a `with` block.

    The outputs of all calls in this thread are replaced. If the layer returns several
    tensors, only the first one is replaced. After the block, the layer is restored.

    A compiled function ignores changes that are made to a layer after tracing. To call
    `predict`, `evaluate` or `generate` inside the block, pass `model`. These methods
    are then compiled again, and after the block, the earlier compiled functions are
    restored. For repeated use, `keras_sae.activations.splice` creates a model that is
    compiled only once.

    Args:
        layer: A layer, its path in `model`, the end of its path, or its name.
        fn: Function of the layer's output that uses `keras.ops`, Keras layers or
            operations of the backend.
        model: Model that contains the layer. It may be None if `layer` is a layer
            object and you call no compiled method, such as `predict`, in the block.

    Raises:
        ValueError: The layer is not in the model, or is given by name without a model.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_sae import activations
    >>> model = keras.Sequential([keras.layers.Identity(name="copy")])
    >>> with activations.intercept("copy", lambda x: 10 * x, model):
    ...     print(np.asarray(model(np.array([[1.0, 2.0]]))).tolist())
    [[10.0, 20.0]]
    """
    if model is not None:
        layer = find_layer(model, layer).layer
    if not isinstance(layer, keras.layers.Layer):
        raise ValueError(
            "`layer` must be a Keras layer if `model` is None. Received: "
            f"layer={layer!r}. Pass the model that contains the layer: "
            "`intercept(layer, fn, model)`."
        )

    with hooked(layer, replacing(fn)), _traced_anew(model):
        yield


@contextmanager
def _traced_anew(model: keras.layers.Layer | None) -> Iterator[None]:
    """Trace a model again in a `with` block, then restore its compiled functions."""
    own = {} if model is None else vars(model)
    compiled = [name for name in _COMPILED if name in own]
    steps = _STEPS if compiled else ()
    saved = {name: own[name] for name in (*compiled, *steps) if name in own}
    own.update(dict.fromkeys(compiled))
    for name in steps:
        # JAX reuses the trace of an equal function, so wrap it in a new function.
        method = getattr(model, name)
        own[name] = functools.update_wrapper(functools.partial(method), method)
    try:
        yield
    finally:
        for name in steps:
            del own[name]
        own.update(saved)


@contextmanager
def hooked(layer: keras.layers.Layer, hook: Hook) -> Iterator[None]:
    """Apply a hook to every call of a layer in this thread."""
    with _lock:
        own = layer.__dict__
        contexts = _open.setdefault(id(layer), [])
        contexts.append({name: own[name] for name in _METHODS if name in own})
        if len(contexts) == 1:
            for name in _METHODS:
                # Bypass Keras's attribute tracking, which is locked after `build`.
                method = getattr(layer, name)
                dispatch = functools.partial(_dispatch, layer, method)
                own[name] = functools.update_wrapper(dispatch, method)
    _hooks.stack.append((layer, hook))
    try:
        yield
    finally:
        _hooks.stack.remove((layer, hook))
        with _lock:
            if len(contexts) == 1:
                for name in _METHODS:
                    own.pop(name, None)
                own.update(_open.pop(id(layer))[0])
            else:
                contexts.pop()


def _dispatch(
    layer: keras.layers.Layer, method: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Call a method of a layer, and apply the hooks of this thread to it."""
    run = functools.partial(method, *args, **kwargs)
    inputs = args[0] if args else None
    for target, hook in _hooks.stack:
        if target is layer:
            run = functools.partial(hook, run, inputs)
    return run()


def replacing(fn: Callable[[Tensor], Tensor]) -> Hook:
    """Return a hook that replaces the first output of a layer with `fn(output)`."""

    def hook(run: Callable[[], Any], inputs: Any) -> Any:
        del inputs
        outputs = run()
        value = fn(first(outputs))
        if not isinstance(outputs, (list, tuple)):
            return value
        return type(outputs)([value, *outputs[1:]])

    return hook


def first(outputs: Any) -> Tensor:
    """Return the first tensor of a layer's outputs."""
    if isinstance(outputs, dict):
        raise ValueError(
            "A layer that returns a dict cannot be intercepted. Received: a dict with "
            f"the keys {sorted(outputs)}. Choose a layer inside it or after it."
        )
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs
