"""Models that call another model while some of its layers are hooked."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NoReturn

import keras

from keras_sae.activations.intercept import Hook, hooked
from keras_sae.activations.paths import layer_paths
from keras_sae.types import Config, Tensor
from keras_sae.utils.serialization import config_errors


class Targets:
    """Layers of a model, identified by their indices in `layer_paths`.

    A model that kept the layers themselves as attributes would save them twice.
    """

    def __init__(self, indices: Sequence[int]) -> None:
        self.indices = tuple(indices)
        self._found: list[tuple[str, keras.layers.Layer]] = []

    def of(self, model: keras.Model) -> list[tuple[str, keras.layers.Layer]]:
        """Return the path and the layer of each target."""
        if not self._found:
            paths = list(layer_paths(model).items())
            self._found = [paths[index] for index in self.indices]
        return self._found


class Wrapper(keras.Model):
    """Base class of models that call another model while some layers are hooked.

    A wrapper has its own compiled functions, so the other model never keeps a function
    that was traced with hooks. Both models share the same weights.

    Args:
        base: Any built Keras model.
        indices: Indices of the hooked layers in `layer_paths`.
        **kwargs: Arguments of `keras.Model`.
    """

    def __init__(
        self, base: keras.Model, indices: Sequence[int], **kwargs: Any
    ) -> None:
        # The base model casts its inputs.
        super().__init__(**{"dtype": base.dtype_policy, **kwargs}, autocast=False)
        self.base = base
        self.targets = Targets(indices)
        self.built = True
        if isinstance(base, keras.Function):
            self.output_names = base.output_names  # for a dict of losses or metrics

    def call_hooked(self, inputs: Tensor, hooks: Sequence[Hook]) -> Any:
        """Call the base model with one hook on each target, and return its outputs.

        Keras passes the wrapper's `training` argument on to the base model.
        """
        with ExitStack() as stack:
            targets = self.targets.of(self.base)
            for (_, layer), hook in zip(targets, hooks, strict=True):
                stack.enter_context(hooked(layer, hook))
            return self.base(inputs)

    def compute_output_spec(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return the output specification of the base model."""
        del args, kwargs
        return self.base.compute_output_spec(inputs)

    @property
    def inputs(self) -> list[Tensor] | None:
        """The symbolic inputs of the base model, or None for a subclassed model."""
        return getattr(self.base, "inputs", None)

    @property
    def losses(self) -> list[Tensor]:
        """The losses that the base model adds, without those of an autoencoder."""
        return self._losses_override or self.base.losses

    def compile_from_config(self, config: Config) -> None:
        """Compile with the saved arguments, without building an optimizer."""
        with config_errors(type(self).__name__):
            self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise an error, because a wrapper cannot be trained."""
        del args, kwargs
        raise ValueError(
            f"`{type(self).__name__}` cannot be trained, because training would change "
            f"the model {self.base.name!r} too. Train the autoencoder on activations "
            "of the layer, which `keras_sae.activations.record` writes to disk."
        )

    train_on_batch = fit


def compile_like(wrapper: keras.Model, base: keras.Model) -> None:
    """Compile `wrapper` with the loss and metrics of `base` if `base` is compiled."""
    if not base.compiled:
        return
    given = base._compile_config.config
    metrics = {}
    for name in ("metrics", "weighted_metrics"):
        if given[name] is not None:
            metrics[name] = keras.tree.map_structure(
                lambda metric: (
                    type(metric).from_config(metric.get_config())
                    if isinstance(metric, keras.metrics.Metric)
                    else metric
                ),
                given[name],
            )
    names = ("loss", "loss_weights", "run_eagerly", "jit_compile")
    options = {name: given[name] for name in names}
    wrapper.compile(optimizer=None, **options, **metrics)
