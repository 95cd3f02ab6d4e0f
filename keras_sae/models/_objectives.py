"""Decoding in a training step, and the losses that need it a second time."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sae.layers import Scaling, UnitNormDense, _forward
from keras_sae.models import _steps

# What may follow the atoms in a decoder that is a chain.
_AFTER = (Scaling, keras.layers.Dense, keras.layers.Reshape)


def innermost(encoder: keras.Model, forward: _forward.Forward) -> Any:
    """Returns what the layer told that made the encoder's output, or None."""
    made = forward.codes[-1] if forward.codes else None
    outputs = getattr(encoder, "outputs", None)
    last = outputs[0]._keras_history.operation if outputs else None
    return made if made is not None and made.layer is last else None


def decode(
    decoder: keras.Model, entries: Any, code: Callable[[], Any], training: Any
) -> Any:
    """Returns the reconstruction of a code, from its entries where they are enough.

    Args:
        decoder: Model of the code.
        entries: Of the code, or None.
        code: Returns it, shape `(batch, units)`.
        training: As in `call`.
    """
    by_entries = entries is not None and _is_chain_of_atoms(decoder)
    if not (by_entries and _of_one_precision(_layers(decoder)[0], entries)):
        return decoder(code(), training=training)
    first, *rest = _layers(decoder)
    x = first.from_entries(entries)
    for layer in rest:
        x = layer(x)
    return x


def _is_chain_of_atoms(decoder: keras.Model) -> bool:
    """Whether it applies atoms, and what may follow, each layer once and in order."""
    first, *rest = _layers(decoder)
    graph = getattr(decoder, "_functional", decoder)  # a Sequential has one inside
    once = len(getattr(graph, "_nodes", ())) == len(graph.layers)
    atoms = isinstance(first, UnitNormDense) and all(map(_may_follow, rest))
    # Keras adds a penalty of the outputs where a layer is called.
    return once and atoms and first.activity_regularizer is None


def _of_one_precision(atoms: UnitNormDense, entries: Any) -> bool:
    """Whether nothing would be rounded or cast on the way, which a call looks after."""
    read = ops.convert_to_tensor(atoms.kernel)  # a model around it may round that
    found, values = (
        keras.backend.standardize_dtype(x.dtype) for x in (read, entries.values)
    )
    whole = found in (atoms.compute_dtype, atoms.variable_dtype)
    return whole and values == atoms.compute_dtype


def _may_follow(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, _AFTER)


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    return [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]


def add_terms(model: Any, made: Any, data: tuple, reconstruction: Any) -> None:
    """Adds to the loss what the sparsity of the model's code asks for.

    A sparsity layer may have a method `terms(step)` that returns scalars by name.
    AuxK, the second reconstruction of a gate and the prefixes of a nested code are
    all made of it; a penalty on the code alone is added by its layer itself.

    Args:
        model: An `Autoencoder`; what is not compiled yet takes its loss by default.
        made: What `innermost` returns.
        data: The input, and the step's target and sample weights or None.
        reconstruction: Of the input.
    """
    if made is None or not hasattr(made.layer.sparsity, "terms"):
        return
    x, y, weight = data
    target = x if y is None else y
    again = False  # as at inference: batch normalisation is to count a batch once
    shares = _steps.replicas(model)
    loss = model._compile_loss or keras.losses.MeanSquaredError()
    step = _forward.Step(
        target=target,
        pre_activations=made.pre_activations,
        code=made.code,
        reconstruction=reconstruction,
        largest=made.largest,
        decode=lambda code: model.decoder(code, training=again),
        decode_entries=lambda entries: decode(
            model.decoder,
            entries,
            lambda: entries.dense(made.layer.units),
            again,
        ),
        decode_part=lambda keep: _decode_part(model.decoder, made, keep, again),
        decode_frozen=lambda code: _frozen(model.decoder, code),
        data_loss=lambda r: shares * loss(target, r, weigh(weight, target)),
        steps_since_active=made.layer.steps_since_active,
    )
    for name, value in made.layer.sparsity.terms(step).items():
        _forward.add(model, name, value)


def weigh(sample_weight: Any, target: Any) -> Any:
    """Returns the weights of samples in a shape that a loss takes them in.

    Args:
        sample_weight: None, of shape `(batch,)` or `(batch, 1)`, or as the target
            without its last axis.
        target: Shape `(batch, *input_shape)`.
    """
    if sample_weight is None or tuple(sample_weight.shape[1:]) not in ((), (1,)):
        return sample_weight
    # Keras would hold it against the last axis but one of an image.
    return ops.reshape(sample_weight, (-1, *(1,) * (len(target.shape) - 2)))


def _decode_part(decoder: keras.Model, made: Any, keep: Any, training: Any) -> Any:
    def code() -> Any:
        return ops.where(keep, made.code, ops.zeros_like(made.code))

    entries = None if made.entries is None else made.entries.where(keep)
    return decode(decoder, entries, code, training)


def _frozen(decoder: keras.Model, code: Any) -> Any:
    """The reconstruction of `code`, with no gradient to the decoder's weights."""
    fixed = [ops.stop_gradient(v) for v in decoder.trainable_variables]
    others = [ops.convert_to_tensor(v) for v in decoder.non_trainable_variables]
    return decoder.stateless_call(fixed, others, code, training=False)[0]
