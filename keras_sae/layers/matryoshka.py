"""Nested codes: every prefix of the code rebuilds the data by itself."""

from typing import Any

import keras
from keras import ops

from keras_sae.layers._forward import Step
from keras_sae.layers.top_k import BatchTopK
from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register


@register
class Matryoshka(keras.layers.Layer):
    """Makes the first units of a code a code of their own, and so on outwards.

    `loss += sum_w loss(target, decode(h_1, ..., h_w, 0, ..., 0))`

    over the `widths` that are less than the whole code, whose loss is there
    anyway; the sum stands as `auxiliary_loss` in the logs. The first units have to
    serve every prefix, so they learn the most general features, and a feature is
    not split to make room for a special case.

    Args:
        sparsity: What chooses the active units over the whole code: a sparsity
            layer such as `TopK(32)`, or its config; `BatchTopK()` if None.
        widths: Increasing widths of the prefixes; the last may be the whole code.
            A quarter and a half of the code if None.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., units)`.

    Output shape:
        The same.

    Raises:
        ValueError: `widths` is empty, does not increase, or exceeds the code; the
            sparsity is not a layer.

    Reference:
        Bussmann et al., "Learning Multi-Level Features with Matryoshka Sparse
        Autoencoders", 2025.

    Example:

    >>> from keras_sae import layers, models
    >>> nested = layers.Matryoshka(layers.BatchTopK(4), widths=(8, 16, 32))
    >>> model = models.shallow((12,), units=32, sparsity=nested)
    >>> sorted(model.term_means)
    ['auxiliary_loss', 'reconstruction_loss']
    """

    needs_decoder = True

    def __init__(self, sparsity: Any = None, widths: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(sparsity, dict):
            sparsity = keras.saving.deserialize_keras_object(sparsity)
        sparsity = BatchTopK() if sparsity is None else sparsity
        if not isinstance(sparsity, keras.layers.Layer):
            raise ValueError(
                "`Matryoshka` nests a sparsity layer, such as "
                f"`keras_sae.layers.BatchTopK(32)`. Received: sparsity={sparsity!r}."
            )
        config = {**sparsity.get_config(), "dtype": self.dtype_policy}
        self.sparsity = type(sparsity).from_config(config)
        self.widths = None if widths is None else _increasing(widths)

    @property
    def activation(self) -> str | None:
        """What the sparsity inside needs before it."""
        return getattr(self.sparsity, "activation", None)

    @property
    def extra_terms(self) -> tuple[str, ...]:
        """Names of the losses that `terms` gives."""
        return ("auxiliary_loss",)

    @property
    def least_batch(self) -> int:
        """Samples a training batch must have, for the sparsity inside."""
        return getattr(self.sparsity, "least_batch", 1)

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Checks the widths against the code's."""
        units = input_shape[-1]
        if self.widths is not None and self.widths[-1] > units:
            raise ValueError(
                "The `widths` of `Matryoshka` are prefixes of the code. Received: "
                f"widths={self.widths} for units={units}."
            )
        widths = self.widths or (units // 4, units // 2)
        self._prefixes = sorted({w for w in widths if 0 < w < units})
        if not self.sparsity.built:
            self.sparsity.build(tuple(input_shape))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the code that the sparsity inside makes."""
        return self.sparsity(inputs, training=training)

    def choose(self, pre: Any, training: bool | None) -> Any:
        """Returns what the sparsity inside chooses, if it does.

        Args:
            pre: Shape `(batch, units)`.
            training: As in `call`.
        """
        inner = getattr(self.sparsity, "choose", None)
        return inner(pre, training) if inner else None

    @property
    def steerable(self) -> bool:
        """Whether a warm-up has anything to change; the sparsity inside is asked."""
        return False

    def starts(self) -> list[tuple[Any, float]]:
        """Returns what a unit starts from, of the sparsity inside."""
        return self.sparsity.starts() if hasattr(self.sparsity, "starts") else []

    def set_progress(self, share: float) -> None:
        """Passes a warm-up on to the sparsity inside.

        Args:
            share: Of the way.
        """
        if hasattr(self.sparsity, "set_progress"):
            self.sparsity.set_progress(share)

    def terms(self, step: Step) -> dict[str, Any]:
        """Returns the losses of the prefixes, and what the sparsity inside adds."""
        inner = getattr(self.sparsity, "terms", None)
        total = sum((inner(step) if inner else {}).values())
        unit = ops.arange(step.code.shape[-1])
        for width in self._prefixes:
            total = total + step.data_loss(step.decode_part(unit < width))
        return {"auxiliary_loss": total}

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "sparsity": keras.saving.serialize_keras_object(self.sparsity),
            "widths": None if self.widths is None else list(self.widths),
        }


def _increasing(widths: Any) -> tuple[int, ...]:
    found = tuple(checks.positive_integer("widths", w) for w in widths)
    if not found or list(found) != sorted(set(found)):
        raise ValueError(
            "`widths` must be increasing positive integers, e.g. (64, 256, 1024). "
            f"Received: widths={widths!r}."
        )
    return found
