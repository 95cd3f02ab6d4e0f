"""Check that an artifact returns the same outputs as the Keras model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import keras
import numpy as np
from keras import ops

from keras_sae.export.signatures import Signature

# Arrays by input or output name.
Arrays: TypeAlias = dict[str, np.ndarray]

_SAMPLES = 3
_UNKNOWN_LENGTH = 8  # example size of an axis whose size the model does not fix


def example_answers(
    signatures: Mapping[str, Signature], input_range: Sequence[float]
) -> Arrays:
    """Return random inputs by name, and the model's outputs by `SIGNATURE/OUTPUT`.

    Samples are also returned as bytes, under the name `image`.

    Raises:
        ValueError: An output is NaN or infinite.
    """
    rng, arrays, (low, high) = np.random.default_rng(0), {}, input_range
    for name, signature in signatures.items():
        if signature.input not in arrays:
            sizes = (n or _UNKNOWN_LENGTH for n in signature.shape)
            image = rng.integers(0, 256, (_SAMPLES, *sizes), "uint8")
            if signature.samples:
                values, arrays["image"] = image / 255 * (high - low) + low, image
            else:
                values = image if signature.dtype == "int32" else image / 255
            arrays[signature.input] = values.astype(signature.dtype)
        value = ops.convert_to_tensor(arrays[signature.input])
        for key, output in signature.function(value).items():
            kind = keras.backend.standardize_dtype(output.dtype)
            output = ops.cast(output, "int32" if "int" in kind else "float32")
            answer = np.asarray(ops.convert_to_numpy(output))
            arrays[f"{name}/{key}"] = answer
            if not np.isfinite(answer).all():
                raise ValueError(
                    "The model outputs NaN: training diverged. Received: a model whose "
                    f"signature `{name}` returns NaN or infinity for `{key}`. Train "
                    "again with a smaller learning rate."
                )
    return arrays


def verify(
    folder: Path,
    signatures: Mapping[str, Signature],
    arrays: Arrays,
    tolerance: float,
) -> None:
    """Run every signature of an artifact, and compare its outputs with the model's.

    `arrays` is the result of `example_answers`. Raise a `RuntimeError` if the relative
    error of an output exceeds `tolerance`.
    """
    import tensorflow as tf

    artifact = tf.saved_model.load(str(folder))
    for name, signature in signatures.items():
        given = tf.constant(arrays[signature.input], signature.dtype)
        answers = artifact.signatures[name](**{signature.input: given})
        extended = name.removesuffix("_uint8").removesuffix("_png")
        ranked = arrays[signature.ranked] if signature.ranked else None
        for key, answer in answers.items():
            error = _error(answer.numpy(), arrays[f"{extended}/{key}"], ranked)
            if not error <= tolerance:
                raise RuntimeError(
                    "The artifact differs from the Keras model: the output "
                    f"`{key}` of `{name}` has a relative error of {error:.2g}. "
                    f"Expected: at most {tolerance:.2g}. Nothing was exported."
                )


def _error(got: np.ndarray, expected: np.ndarray, ranked: np.ndarray | None) -> float:
    """Return `max |got - expected| / max(1, max |expected|)`."""
    if got.shape != expected.shape:
        return float("inf")
    if ranked is not None and np.issubdtype(got.dtype, np.integer):
        got, expected = (
            np.take_along_axis(ranked, v.reshape(*ranked.shape[:-1], -1), axis=-1)
            for v in (got, expected)
        )
    gap = np.abs(got.astype("float64") - expected).max(initial=0.0)
    return float(gap / max(1.0, np.abs(expected).max(initial=0.0)))
