"""From signatures to a SavedModel that holds what they need, and nothing else."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_sae.export._signatures import Signature

_DEFAULT = "serving_default"  # the signature of a request that names none


def save(served: Mapping[str, Signature], folder: Path) -> None:
    """Writes a SavedModel with these signatures.

    Args:
        served: Signatures by name; the first is the default as well.
        folder: Where it goes.
    """
    import tensorflow as tf

    graphs = {name: trace(signature) for name, signature in served.items()}
    graphs = {_DEFAULT: next(iter(graphs.values())), **graphs}
    holder = tf.Module()
    variables = {id(v): v for graph in graphs.values() for v in graph.graph.variables}
    holder.model_variables = list(variables.values())
    # Nobody differentiates on a server; saving the gradients would need what the
    # pruned graphs no longer hold.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(holder, str(folder), signatures=graphs, options=options)


def trace(signature: Signature) -> Any:
    """Returns the concrete function of a signature, pruned to what its outputs need.

    A layer may compute a penalty, or count what it has seen, as it encodes. Cutting
    the graph back from its outputs leaves all of that out, whichever the layer.
    """
    import tensorflow as tf

    shape = (None, *signature.shape)
    spec = tf.TensorSpec(shape, signature.dtype, name=signature.input)

    def function(value: Any) -> dict[str, Any]:
        # A server checks names and types alone, and a reshape would take another
        # shape for another number of samples.
        outputs = signature.function(tf.ensure_shape(value, shape))
        return {name: _plain(output, name) for name, output in outputs.items()}

    whole = tf.compat.v1.wrap_function(function, [spec])
    return whole.prune(whole.inputs[0], whole.structured_outputs)


def _plain(output: Any, name: str) -> Any:
    """float32 whatever the dtype policy, and int32 for indices."""
    import tensorflow as tf

    kind = tf.int32 if output.dtype.is_integer else tf.float32
    return tf.cast(output, kind, name=name)


@contextmanager
def writing() -> Iterator[None]:
    """Inside, a disk that TensorFlow cannot write to is an `OSError`, as in Python."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
