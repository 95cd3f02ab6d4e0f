"""Signatures that take pictures as they are stored: bytes 0..255, or PNG files."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from keras_sae.export._signatures import Outputs, Signature

# Channels that a PNG file may be decoded to.
_CHANNELS = (1, 3, 4)

Range = tuple[float, float]


def image_signatures(
    served: dict[str, Signature], input_range: Range
) -> dict[str, Signature]:
    """Returns `NAME_uint8` and `NAME_png` for every signature that takes samples.

    Args:
        served: Signatures by name.
        input_range: What the bytes 0 and 255 are to the model.
    """
    added = {}
    for name, signature in served.items():
        if signature.samples:
            added[f"{name}_uint8"] = _uint8(signature, input_range)
            added[f"{name}_png"] = _png(added[f"{name}_uint8"])
    return added


def check_image(shape: tuple[int, ...]) -> None:
    """Raises if samples of this shape are no images."""
    if len(shape) != 3 or shape[-1] not in _CHANNELS:
        raise ValueError(
            "`images` adds signatures for images, of shape (height, width, channels) "
            f"with channels among {_CHANNELS}. Received: images=True and samples of "
            f"shape {shape}. Leave `images` out."
        )


def scale(images: Any, input_range: Range) -> Any:
    """Returns `low + image / 255 * (high - low)`, for arrays and tensors."""
    low, high = input_range
    return images / 255 * (high - low) + low


def _uint8(signature: Signature, input_range: Range) -> Signature:
    def function(image: Any) -> Outputs:
        import tensorflow as tf

        return signature.function(scale(tf.cast(image, tf.float32), input_range))

    return replace(signature, function=function, input="image", dtype="uint8")


def _png(signature: Signature) -> Signature:
    decode = _decoder(signature.shape)
    return replace(
        signature,
        function=lambda files: signature.function(decode(files)),
        shape=(),
        input="image_bytes",
        dtype="string",
    )


def _decoder(shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """A function from PNG files to images; one of another size is an error."""

    def decode(files: Any) -> Any:
        import tensorflow as tf

        return tf.map_fn(
            lambda file: tf.ensure_shape(
                tf.io.decode_png(file, channels=shape[-1]), shape
            ),
            files,
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        )

    return decode


def encode_png(images: Any) -> Any:
    """Returns one PNG file an image, bytes in an array of objects.

    Args:
        images: uint8 array of shape `(batch, height, width, channels)`.
    """
    import numpy as np
    import tensorflow as tf

    files = [tf.io.encode_png(image).numpy() for image in images]
    return np.array(files, dtype=object)
