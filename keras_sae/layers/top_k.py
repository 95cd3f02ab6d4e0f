"""Hard sparsity by choice: only the largest activations stay on."""

from typing import Any

import keras
from keras import ops

from keras_sae.layers import aux_k as auxiliaries
from keras_sae.layers._forward import Step
from keras_sae.layers._state import state
from keras_sae.ops import top_k as _top
from keras_sae.ops.sparse_code import SparseCode
from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register


class Selection(keras.layers.Layer):
    """What `TopK` and `BatchTopK` have in common: `k`, its annealing, dead units."""

    def __init__(
        self,
        k: int = 32,
        *,
        initial_k: int | None = None,
        auxiliary: Any = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.k = checks.positive_integer("k", k)
        self.initial_k = _annealed_from(initial_k, self.k)
        self.auxiliary = auxiliaries.get(auxiliary)

    @property
    def extra_terms(self) -> tuple[str, ...]:
        """Names of the losses that `terms` gives."""
        return () if self.auxiliary is None else ("auxiliary_loss",)

    @property
    def most(self) -> int:
        """The largest `k` of a training, the one it is annealed from."""
        return self.initial_k or self.k

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Checks `k` against the width; makes the `k` of the moment if it moves."""
        units = input_shape[-1]
        if units is not None and self.most > units:
            raise ValueError(
                f"`k` units of a code cannot stay on if it has fewer. Received: "
                f"k={self.most} for units={units}. Lower k, or widen the code."
            )
        self.current: Any = None
        if self.initial_k is not None:
            self.current = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(self.k),
                name="current_k",
                trainable=False,
                dtype="float32",
                autocast=False,
            )

    @property
    def steerable(self) -> bool:
        """Whether a warm-up has anything to change."""
        return self.initial_k is not None

    def set_progress(self, share: float) -> None:
        """Sets the `k` of the moment: `initial_k` at a share of 0, `k` at 1.

        Args:
            share: Of the way.
        """
        if self.current is not None:
            self.current.assign(round(self.most + share * (self.k - self.most)))

    def terms(self, step: Step) -> dict[str, Any]:
        """Returns the losses that need the decoder again, by their names."""
        if self.auxiliary is None:
            return {}
        return {"auxiliary_loss": self.auxiliary.term(step)}

    def _k_now(self) -> Any:
        if self.current is None:
            return self.k
        return ops.cast(ops.convert_to_tensor(self.current), "int32")

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "k": self.k,
            "initial_k": self.initial_k,
            "auxiliary": None if self.auxiliary is None else serialize(self.auxiliary),
        }


@register
class TopK(Selection):
    """Keeps the `k` largest activations of each sample, and zeroes the others.

    `h_j = a_j` if `a_j` is among the `k` largest of the sample's `a`, else 0

    L0 is `k` by construction (less where fewer are positive), in training and at
    inference. As `sparsity=` of a layer it stands behind a ReLU.

    Args:
        k: Units that stay on.
        initial_k: Where `k` is annealed from by
            `keras_sae.callbacks.SparsityWarmup`; None leaves it as it is.
        auxiliary: `AuxK(...)`, which revives dead units; `"auto"` takes one dead
            unit a sample, and None goes without. It acts where the model's code
            comes from this layer.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., units)`.

    Output shape:
        The same.

    Raises:
        ValueError: `k` is not a positive integer, or exceeds the units.

    Reference:
        Makhzani & Frey, "k-Sparse Autoencoders", 2013; Gao et al., "Scaling and
        evaluating sparse autoencoders", 2024.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> code = layers.TopK(2)(np.array([[0.1, 3.0, 0.0, 2.0]], "float32"))
    >>> np.asarray(code).tolist()
    [[0.0, 3.0, 0.0, 2.0]]
    """

    def choose(self, pre: Any, training: bool | None) -> SparseCode | None:
        """Returns the `k` largest of each sample.

        Args:
            pre: Shape `(batch, units)`.
            training: Of no effect.
        """
        del training
        if self.current is not None:
            return None
        values, columns = ops.top_k(pre, self.k)
        return SparseCode(values, ops.cast(columns, "int32"))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns `inputs` with all but the largest of each sample zeroed."""
        del training
        code = _top.rows(inputs)
        values, columns = ops.top_k(code, self.most)
        if self.current is not None:
            values = ops.where(ops.arange(self.most) < self._k_now(), values, 0)
        kept = _top.dense(values, columns, code.shape[-1])
        return ops.reshape(kept, ops.shape(inputs))


@register
class BatchTopK(Selection):
    """Keeps the `k * batch` largest activations of a batch: `k` a sample on average.

    Training: `h_ij = a_ij` if it is among the `k B` largest of the batch, else 0.
    Inference: `h_ij = a_ij` if `a_ij > threshold`, else 0, where each training step
    moves `threshold <- mu * threshold + (1 - mu) * min(h_ij > 0)`. In step `t`,
    `mu = min(momentum, t / (t + 9))` with `t` from 0: the first step sets it, and
    what the units did before they learned is soon forgotten.

    A sample that has much to say gets more units than one that has little. At
    inference a sample's code does not depend on the others. With `trainable = False`
    the layer is as at inference in training too, as `keras.layers.BatchNormalization`
    is: freeze it once its threshold is found, and compile again.

    Args:
        k: Units a sample that stay on, on average.
        momentum: Of the threshold's running mean.
        initial_k: As in `TopK`.
        auxiliary: As in `TopK`.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., units)`.

    Output shape:
        The same.

    Attributes:
        threshold: float32 variable, 0 before the first training step.

    Raises:
        ValueError: `k` is not a positive integer, or exceeds the units; `momentum`
            is not between 0 and 1.

    Reference:
        Bussmann et al., "BatchTopK Sparse Autoencoders", 2024.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> a = np.array([[1.0, 3.0, 2.0], [0.5, 0.2, 0.1]], "float32")
    >>> np.asarray(layers.BatchTopK(1)(a, training=True)).tolist()
    [[0.0, 3.0, 2.0], [0.0, 0.0, 0.0]]
    """

    # One sample is no batch to choose from.
    least_batch = 2

    def __init__(
        self,
        k: int = 32,
        *,
        momentum: float = 0.99,
        initial_k: int | None = None,
        auxiliary: Any = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(k, initial_k=initial_k, auxiliary=auxiliary, **kwargs)
        self.momentum = checks.fraction("momentum", momentum)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Checks `k` against the width; makes the threshold."""
        super().build(input_shape)
        self.threshold = state("threshold")
        self.steps = state("steps")

    def choose(self, pre: Any, training: bool | None) -> SparseCode | None:
        """Returns the `k * batch` largest of the batch, in training.

        Args:
            pre: Shape `(batch, units)`.
            training: At inference the threshold decides, and None is returned.
        """
        if not self._learns(training) or self.current is not None:
            return None
        values, columns, rows = _top.largest(ops.cast(pre, "float32"), self.k)
        values = ops.maximum(values, 0)
        self._follow(ops.min(ops.where(values > 0, values, float("inf"))))
        return SparseCode(ops.cast(values, pre.dtype), columns, rows)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns `inputs` with all but the largest zeroed."""
        if not self._learns(training):
            on = ops.cast(inputs, "float32") > self.threshold
            return ops.where(on, inputs, ops.zeros_like(inputs))
        code = ops.stop_gradient(ops.cast(_top.rows(inputs), "float32"))
        n = self._k_now() * ops.shape(code)[0]
        least = _top.cut(code, n, self.most)
        on = ops.logical_and(code > least, code > 0)
        self._follow(ops.min(ops.where(on, code, float("inf"))))
        on = ops.reshape(on, ops.shape(inputs))
        return ops.where(on, inputs, ops.zeros_like(inputs))

    def _learns(self, training: bool | None) -> bool:
        return bool(training and self.trainable)

    def _follow(self, least: Any) -> None:
        old, steps = (ops.convert_to_tensor(v) for v in (self.threshold, self.steps))
        momentum = ops.minimum(self.momentum, steps / (steps + 9))
        # A batch whose units are all off says nothing about the threshold.
        seen = ops.isfinite(least)
        moved = momentum * old + (1 - momentum) * ops.where(seen, least, old)
        self.threshold.assign(moved)
        self.steps.assign(steps + ops.cast(seen, "float32"))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "momentum": self.momentum}


def _annealed_from(initial_k: int | None, k: int) -> int | None:
    if initial_k is None:
        return None
    if checks.positive_integer("initial_k", initial_k) <= k:
        raise ValueError(
            "`initial_k` is what `k` is annealed down from, so it must be larger. "
            f"Received: initial_k={initial_k} with k={k}. A usual value is 4 * k."
        )
    return int(initial_k)
