"""Nested codes: prefixes of the code reconstruct the data by themselves."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_sae.layers.sparsity import Sparsity, Step
from keras_sae.layers.top_k import BatchTopK
from keras_sae.ops.sparse_code import SparseCode
from keras_sae.types import Config, Shape, Tensor
from keras_sae.utils import validation
from keras_sae.utils.serialization import register


@register
class Matryoshka(Sparsity):
    """Train prefixes of the code to reconstruct the data by themselves.

    `loss += sum_w loss(target, decode(h_1, ..., h_w, 0, ..., 0))`

    The sum runs over all `widths` less than `units`. It is added to the auxiliary loss
    of the inner sparsity, and the total is logged as `auxiliary_loss`. The first units
    are part of every prefix, so they learn general features. A wide code then splits
    fewer general features into specific ones.

    Args:
        sparsity: The sparsity of the whole code, such as `TopK(32)`, or its config.
            `BatchTopK()` if None.
        widths: Widths of the prefixes, in increasing order. The last width may be
            `units`. If None, the widths are a quarter and a half of `units`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input and output shape:
        `(batch, ..., units)`.

    Raises:
        ValueError: `widths` is empty, does not increase, or exceeds `units`, or
            `sparsity` is not a `keras_sae.layers.Sparsity`.

    References:
        [Bussmann et al., "Learning Multi-Level Features with Matryoshka Sparse
        Autoencoders", 2025](https://arxiv.org/abs/2503.17547).

    Example:

    >>> from keras_sae import layers, models
    >>> nested = layers.Matryoshka(layers.BatchTopK(4), widths=(8, 16, 32))
    >>> model = models.shallow((12,), units=32, sparsity=nested)
    >>> sorted(model.loss_means)
    ['auxiliary_loss', 'reconstruction_loss']
    """

    requires_decoder = True
    auxiliary_loss_names = ("auxiliary_loss",)

    def __init__(
        self,
        sparsity: Sparsity | Config | None = None,
        widths: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(sparsity, dict):
            sparsity = keras.saving.deserialize_keras_object(sparsity)
        sparsity = BatchTopK() if sparsity is None else sparsity
        if not isinstance(sparsity, Sparsity):
            raise ValueError(
                "`sparsity` must be a `keras_sae.layers.Sparsity` such as "
                f"`keras_sae.layers.BatchTopK(32)`. Received: sparsity={sparsity!r}."
            )
        policy = keras.dtype_policies.serialize(self.dtype_policy)
        config = {**sparsity.get_config(), "dtype": policy}
        self.sparsity = type(sparsity).from_config(config)
        self.activation = self.sparsity.activation
        self.min_batch_size = self.sparsity.min_batch_size
        self.scale_dependent = self.sparsity.scale_dependent
        self.selects = self.sparsity.selects and not self.sparsity.has_penalty
        self.widths = None
        if widths is not None:
            self.widths = tuple(
                validation.positive_integer("widths", w) for w in widths
            )
            if not widths or list(self.widths) != sorted(set(self.widths)):
                raise ValueError(
                    "`widths` must be increasing positive integers, such as "
                    f"(64, 256, 1024). Received: widths={widths!r}."
                )

    def build(self, input_shape: Shape) -> None:
        """Check that no prefix is wider than the code, and build the inner sparsity."""
        super().build(input_shape)
        units = int(input_shape[-1] or 0)
        if self.widths is not None and self.widths[-1] > units:
            raise ValueError(
                "`widths` must not exceed `units`, because a prefix is a part of the "
                f"code. Received: widths={self.widths}, units={units}."
            )
        widths = self.widths or (units // 4, units // 2)
        self.prefixes = tuple(sorted({w for w in widths if 0 < w < units}))
        if not self.sparsity.built:
            self.sparsity.build(tuple(input_shape))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return the code that the inner sparsity computes."""
        return self.sparsity(inputs, training=training)

    def select(
        self, pre_activations: Tensor, training: bool | None
    ) -> SparseCode | None:
        """Return the entries that the inner sparsity selects."""
        return self.sparsity.select(pre_activations, training)

    def per_unit_state(self) -> list[tuple[keras.Variable, float]]:
        """Return the per-unit state of the inner sparsity."""
        return self.sparsity.per_unit_state()

    def auxiliary_losses(self, step: Step) -> dict[str, Tensor]:
        """Return the losses of the prefixes and of the inner sparsity."""
        losses = self.sparsity.auxiliary_losses(step).values()
        total = sum(losses, ops.zeros((), "float32"))
        for reconstruction in step.prefix_reconstructions():
            total = total + step.data_loss(reconstruction)
        return {"auxiliary_loss": total}

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "sparsity": keras.saving.serialize_keras_object(self.sparsity),
            "widths": None if self.widths is None else list(self.widths),
        }
