"""Hard sparsity: only the largest activations stay active."""

import math
from typing import Any

import keras
from keras import ops

from keras_sae.layers import forward_pass
from keras_sae.layers.aux_k import AuxK
from keras_sae.layers.base import layer_state
from keras_sae.layers.sparsity import Sparsity, Step
from keras_sae.ops import tensorflow_kernels, top_k
from keras_sae.ops.sparse_code import SparseCode
from keras_sae.ops.statistics import expand_weight, weighted_mean
from keras_sae.types import Config, Shape, Tensor
from keras_sae.utils import validation
from keras_sae.utils.serialization import register


class KSparsity(Sparsity):
    """Base class for `TopK` and `BatchTopK`, with annealing and an auxiliary loss."""

    selects = True

    def __init__(
        self,
        k: int = 32,
        *,
        initial_k: int | None = None,
        auxiliary: AuxK | Config | str | None = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.k = validation.positive_integer("k", k)
        if initial_k is not None:
            initial_k = validation.positive_integer("initial_k", initial_k)
            if initial_k <= k:
                raise ValueError(
                    "`initial_k` must exceed `k`, because `k` is annealed down from "
                    f"`initial_k`. Received: initial_k={initial_k}, k={k}. A typical "
                    "value is 4 * k."
                )
        self.initial_k = initial_k
        self.anneals = initial_k is not None
        if isinstance(auxiliary, dict):
            auxiliary = keras.saving.deserialize_keras_object(auxiliary)
        elif auxiliary == "auto":
            auxiliary = AuxK(k_aux=1, dead_after=50)  # see benchmarks/recovery.py
        if not isinstance(auxiliary, (AuxK, type(None))):
            raise ValueError(
                "`auxiliary` must be a `keras_sae.layers.AuxK`, 'auto' or None. "
                f"Received: auxiliary={auxiliary!r}."
            )
        self.auxiliary = auxiliary
        if auxiliary is not None:
            self.auxiliary_loss_names = ("auxiliary_loss",)

    @property
    def max_k(self) -> int:
        """The largest `k` in training: `initial_k`, or `k` without annealing."""
        return self.initial_k or self.k

    def build(self, input_shape: Shape) -> None:
        """Check that `k` does not exceed `units`, and create `current_k` if needed."""
        super().build(input_shape)
        units = input_shape[-1]
        if units is not None and self.max_k > units:
            raise ValueError(
                "`k` and `initial_k` must not exceed `units`. Received: initial_k="
                f"{self.initial_k}, k={self.k}, units={units}. Lower k or raise units."
            )
        self.current_k: keras.Variable | None = None
        if self.initial_k is not None:
            self.current_k = layer_state("current_k", initial=self.k)

    def _selected_k(self) -> int | Tensor | None:
        """Return the current `k`, or None if the code must be computed densely."""
        if self.current_k is None:
            return self.k
        # Without these kernels, `k` must be known before run time.
        if not tensorflow_kernels.are_usable():
            return None
        return ops.cast(ops.convert_to_tensor(self.current_k), "int32")

    def set_progress(self, fraction: float) -> None:
        """Set the current `k` between `initial_k` (fraction 0) and `k` (fraction 1)."""
        if self.current_k is not None:
            k = round(self.max_k + fraction * (self.k - self.max_k))
            self.current_k.assign(k)

    def auxiliary_losses(self, step: Step) -> dict[str, Tensor]:
        """Return the loss that revives dead units."""
        if self.auxiliary is None:
            return {}
        return {"auxiliary_loss": self.auxiliary.loss(step)}

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        auxiliary = self.auxiliary
        if auxiliary is not None:
            auxiliary = keras.saving.serialize_keras_object(auxiliary)
        return {
            **super().get_config(),
            "k": self.k,
            "initial_k": self.initial_k,
            "auxiliary": auxiliary,
        }


@register
class TopK(KSparsity):
    """Keep the `k` largest activations of each sample and set the others to zero.

    `h_j = a_j` if `a_j` is among the `k` largest activations of the sample, else 0

    L0 is at most `k` by construction, in training and at inference. Choose `TopK` if
    you know how many units should be active per sample. `SparseDense` applies a ReLU
    first by default, so L0 is lower if fewer than `k` activations are positive.

    Args:
        k: Number of active units per sample.
        initial_k: None, or a larger `k` that `keras_sae.callbacks.SparsityWarmup`
            anneals down to `k`.
        auxiliary: `AuxK(...)`, a loss that revives dead units. `"auto"` trains one dead
            unit per sample, and None disables the loss. Layers other than the innermost
            one ignore this argument.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input and output shape:
        `(batch, ..., units)`.

    Raises:
        ValueError: An argument is invalid, or `k` or `initial_k` exceeds `units`.

    References:
        [Makhzani & Frey, "k-Sparse Autoencoders", 2013](
        https://arxiv.org/abs/1312.5663); [Gao et al., "Scaling and evaluating sparse
        autoencoders", 2024](https://arxiv.org/abs/2406.04093).

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> code = layers.TopK(2)(np.array([[0.1, 3.0, 0.0, 2.0]], "float32"))
    >>> np.asarray(code).tolist()
    [[0.0, 3.0, 0.0, 2.0]]
    """

    def select(
        self, pre_activations: Tensor, training: bool | None
    ) -> SparseCode | None:
        """Return the `k` largest pre-activations of each sample."""
        k = self._selected_k()
        if k is None or not (training or self.current_k is None):
            return None
        return SparseCode(*top_k.top_k(pre_activations, k, self.max_k))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return `inputs`, with all but the largest values per sample set to zero."""
        del training
        units = inputs.shape[-1]
        values, indices = top_k.top_k(ops.reshape(inputs, (-1, units)), self.max_k)
        if self.current_k is not None:
            k = ops.cast(ops.convert_to_tensor(self.current_k), "int32")
            values = ops.where(ops.arange(self.max_k) < k, values, 0)
        code = SparseCode(values, indices)
        return ops.reshape(code.to_dense(units), ops.shape(inputs))


@register
class BatchTopK(KSparsity):
    """Keep the `k * batch` largest activations of a batch: `k` per sample on average.

    Training: `h_ij = a_ij` if `a_ij` is among the `k B` largest activations of `B`
    samples, else 0. Inference: `h_ij = a_ij` if `a_ij > threshold`, else 0. Each
    training step updates
    `threshold <- mu * threshold + (1 - mu) * min{h_ij : h_ij > 0}`. In step
    `t = 0, 1, ...`, `mu = min(momentum, t / (t + 9))`. The first step therefore sets
    the threshold, and early steps soon lose their influence.

    Samples of weight 0 activate no units, and do not count towards `B`. Under
    `tf.distribute`, each replica selects from its own samples, and the mean of the
    replicas' minima updates `threshold`.

    A complex sample can activate more units than a simple one. At inference, the code
    of a sample does not depend on the other samples. With `trainable = False`, the
    layer behaves in training as at inference, like `keras.layers.BatchNormalization`.

    Args:
        k: Mean number of active units per sample.
        momentum: Momentum of the threshold's running mean.
        initial_k: As in `TopK`.
        auxiliary: As in `TopK`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input and output shape:
        `(batch, ..., units)`.

    Attributes:
        threshold: float32 variable, 0 before the first training step.

    Raises:
        ValueError: `momentum` is not between 0 and 1, or another argument is invalid,
            as in `TopK`.

    References:
        [Bussmann et al., "BatchTopK Sparse Autoencoders", 2024](
        https://arxiv.org/abs/2412.06410).

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> a = np.array([[1.0, 3.0, 2.0], [0.5, 0.2, 0.1]], "float32")
    >>> np.asarray(layers.BatchTopK(1)(a, training=True)).tolist()
    [[0.0, 3.0, 2.0], [0.0, 0.0, 0.0]]
    """

    min_batch_size = 2

    def __init__(
        self,
        k: int = 32,
        *,
        momentum: float = 0.99,
        initial_k: int | None = None,
        auxiliary: AuxK | Config | str | None = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(k, initial_k=initial_k, auxiliary=auxiliary, **kwargs)
        self.momentum = validation.fraction("momentum", momentum)

    def build(self, input_shape: Shape) -> None:
        """Check that `k` does not exceed `units`, and create the threshold."""
        super().build(input_shape)
        self.threshold = layer_state("threshold")
        self.steps = layer_state("steps")

    def select(
        self, pre_activations: Tensor, training: bool | None
    ) -> SparseCode | None:
        """Return the `k * batch` largest pre-activations during training."""
        k = self._selected_k()
        if k is None or not (training and self.trainable):
            return None
        if forward_pass.sample_weight() is not None:
            return None  # `call` excludes samples of weight 0.
        code = ops.cast(pre_activations, "float32")
        values, indices, rows = top_k.batch_top_k(code, k, self.max_k)
        values = ops.maximum(values, 0)
        self._update_threshold(ops.min(ops.where(values > 0, values, float("inf"))))
        return SparseCode(ops.cast(values, pre_activations.dtype), indices, rows)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return `inputs`, with all but the largest values set to zero."""
        if not (training and self.trainable):
            active = ops.cast(inputs, "float32") > self.threshold
            return ops.where(active, inputs, ops.zeros_like(inputs))
        code = ops.stop_gradient(ops.cast(inputs, "float32"))
        samples, *positions, units = ops.shape(inputs)
        weight = forward_pass.sample_weight()
        if weight is not None:
            code = ops.where(expand_weight(weight > 0, code), code, 0.0)
            samples = ops.sum(ops.cast(weight > 0, "int32"))
        code = ops.reshape(code, (-1, units))
        k: int | Tensor = self.k
        if self.current_k is not None:
            k = ops.cast(ops.convert_to_tensor(self.current_k), "int32")
        n = k * samples * math.prod(positions)
        threshold = top_k.batch_threshold(code, n, self.max_k)
        active = ops.logical_and(code > threshold, code > 0)
        self._update_threshold(ops.min(ops.where(active, code, float("inf"))))
        active = ops.reshape(active, ops.shape(inputs))
        return ops.where(active, inputs, ops.zeros_like(inputs))

    def _update_threshold(self, smallest: Tensor) -> None:
        old, steps = ops.copy(self.threshold), ops.copy(self.steps)
        momentum = ops.minimum(self.momentum, steps / (steps + 9))

        def assign(smallest: Tensor) -> None:
            # A batch without an active unit does not change the threshold.
            found = ops.cast(ops.isfinite(smallest), "float32")
            mean = weighted_mean(ops.where(found > 0, smallest, 0.0), found)
            any_found = ops.max(found)
            new = ops.where(any_found > 0, mean, old)
            self.threshold.assign(momentum * old + (1 - momentum) * new)
            self.steps.assign(steps + any_found)

        forward_pass.update(assign, smallest)

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {**super().get_config(), "momentum": self.momentum}
