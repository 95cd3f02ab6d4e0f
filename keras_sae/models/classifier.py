"""Supervised training on top of a code: fine-tuning, or a frozen encoder."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.layers import Sampling, Sparsity
from keras_sae.models import (
    _arguments,
    _labels,
    data_adapter,
    validation,
)
from keras_sae.models._exported import Exported
from keras_sae.models.levels import flatten
from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register

_LOSS, _ACCURACY = "sparse_categorical_crossentropy", ("accuracy",)


@register
class Classifier(Exported):
    """An encoder and a softmax layer on its code.

    `p = softmax(encoder(x) V + d)`

    The encoder runs as at inference, in training too: without corruption, sampling
    or statistics of the batch. `keras_sae.models.classifier` makes the model.

    Args:
        encoder: Model from `(batch, *input_shape)` to `(batch, units)`.
        num_classes: Number of classes, at least 2.
        trainable_encoder: Whether `fit` changes the encoder.
        **kwargs: Those of `keras.Model`.

    Raises:
        ValueError: `num_classes` is not an integer of at least 2.

    Example:

    >>> from keras_sae import models
    >>> encoder = models.shallow((6,), 4).encoder
    >>> model = models.Classifier(encoder, num_classes=3)
    >>> model.output_shape
    (None, 3)
    """

    def __init__(
        self,
        encoder: keras.Model,
        num_classes: int,
        trainable_encoder: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = checks.positive_integer("num_classes", num_classes)
        if num_classes < 2:
            raise ValueError(
                "`num_classes` must be at least 2: there is nothing to tell apart in "
                f"one class. Received: num_classes={num_classes}."
            )
        self.encoder = encoder
        self.trainable_encoder = trainable_encoder
        self.head = keras.layers.Dense(
            num_classes, "softmax", name="head", dtype=self.dtype_policy
        )
        self.build(encoder.input_shape)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the head; the encoder is built already."""
        del input_shape
        if not self.head.built:
            self.head.build(self.encoder.output_shape)

    @property
    def trainable_encoder(self) -> bool:
        """Whether `fit` changes the encoder; set it, then compile again."""
        return bool(self.encoder.trainable)

    @trainable_encoder.setter
    def trainable_encoder(self, value: bool) -> None:
        # Set anew, it would thaw layers that are frozen on their own.
        if self.encoder.trainable != bool(value):
            self.encoder.trainable = bool(value)

    @property
    def output_shape(self) -> tuple[int | None, int]:
        """Shape of the probabilities."""
        return (None, self.num_classes)

    def call(self, inputs: Any) -> Any:
        """Returns the probability of every class, shape `(batch, num_classes)`."""
        return self.head(self.encoder(inputs, training=False))

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = _LOSS,
        metrics: Any = _ACCURACY,
        **kwargs: Any,
    ) -> None:
        """Configures training as in Keras, for labels that are integers.

        Args:
            optimizer: As in Keras.
            loss: As in Keras.
            metrics: As in Keras; the accuracy by default.
            **kwargs: As in Keras.
        """
        if (loss, metrics) == (_LOSS, _ACCURACY):
            # A metric has its variables at once, a name not before the first step.
            metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        metrics = list(metrics) if isinstance(metrics, tuple) else metrics
        super().compile(optimizer, loss, metrics=metrics, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as saved; Keras leaves this to models with their own `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does, after a look at the labels.

        Args:
            x: Array of shape `(samples, *input_shape)`, or a dataset of batches of
                `(x, label)`.
            y: Labels of shape `(samples,)`, integers below `num_classes`; or what
                the compiled loss takes, of shape `(samples, num_classes)`. Of a
                dataset the labels of the first batch are looked at.
            batch_size: Samples a step, 32 if None.
            *args: As in Keras.
            **kwargs: As in Keras.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: There are no labels, another number of them than samples,
                all are the same, or they are not integers below `num_classes`.
        """
        kwargs = _arguments.by_name(_arguments.FIT, args, kwargs)
        self._check(x, y, kwargs.get("sample_weight"))
        validation.check_adapted(self.name, flatten(self.encoder))
        if batch_size is not None:
            checks.positive_integer("batch_size", batch_size)
        held = kwargs.get("validation_data")
        if isinstance(held, (tuple, list)):
            self._check(*[*held, None, None][:3])
        elif held is not None:
            self._check(held, None)
        labels = None if y is None else validation.as_numpy(y)
        if labels is not None and (labels == labels[0]).all():
            raise ValueError(
                "`y` must hold at least two classes. Received: the label "
                f"{labels[0]} for all {len(labels)} samples."
            )
        data_adapter.build_optimizer(self)
        arguments = {"x": x, "y": y, "batch_size": batch_size, **kwargs}
        return super().fit(**data_adapter.fit_arguments(arguments))

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains one step on one batch, as `keras.Model.train_on_batch` does.

        Args:
            x: Array of shape `(batch, *input_shape)`.
            y: As in `fit`.
            *args: As in Keras.
            **kwargs: As in Keras.

        Returns:
            The figures of the logs, as in Keras.

        Raises:
            ValueError: As in `fit`; one class alone is fine.
        """
        self._check(x, y)
        validation.check_adapted(self.name, flatten(self.encoder))
        return super().train_on_batch(x, y, *args, **kwargs)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Returns loss and metrics as `keras.Model.evaluate` does.

        Args:
            x: As in `fit`.
            y: As in `fit`.
            batch_size: As in Keras.
            *args: As in Keras.
            **kwargs: As in Keras.

        Returns:
            A list of floats, or a dict with `return_dict=True`.

        Raises:
            ValueError: As in `fit`; one class alone is fine.
        """
        kwargs = _arguments.by_name(_arguments.EVALUATE, args, kwargs)
        # Keras itself evaluates inside `fit`, with data already in batches.
        if "_use_cached_eval_dataset" not in kwargs:
            self._check(x, y, kwargs.get("sample_weight"))
        return super().evaluate(x, y, batch_size, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Returns the probabilities, as `keras.Model.predict` does.

        Args:
            x: As in `fit`.
            *args: As in Keras.
            **kwargs: As in Keras.

        Returns:
            NumPy array of shape `(samples, num_classes)`.

        Raises:
            ValueError: `x` has another shape, is empty or not finite.
        """
        validation.check_data(validation.without_target(x), self._sample_shape)
        return super().predict(x, *args, **kwargs)

    def _check(self, x: Any, y: Any, sample_weight: Any = None) -> None:
        validation.check_data(validation.without_target(x), self._sample_shape)
        spec = getattr(x, "element_spec", ())
        parts = spec if isinstance(spec, tuple) else (spec,)
        if hasattr(x, "shape"):
            check = _labels.check_labels if self._of_labels() else _labels.check_shares
            check(y, x.shape[0], self.num_classes)
            _arguments.weighed(x, y, sample_weight)
        elif len(parts) == 1:
            raise ValueError(
                "A classifier learns from `(x, label)`. Received: a dataset that "
                f"yields x alone, {parts[0]!r}. `keras_sae.datasets.load(..., "
                "as_supervised=True)` has the labels."
            )
        elif parts and _of_keras(self._loss()):
            _labels.check_spec(parts[1], self.num_classes, self._of_labels())
            _labels.check_first(x, self.num_classes, self._of_labels())

    @property
    def _sample_shape(self) -> tuple[int, ...]:
        return tuple(self.encoder.input_shape[1:])

    def _loss(self) -> Any:
        loss: Any = getattr(self, "loss", None) or _LOSS  # before `compile`
        if isinstance(loss, (list, tuple)) and len(loss) == 1:
            [loss] = loss  # as Keras has it for a model of one output
        return keras.losses.get(loss) if isinstance(loss, str) else loss

    def _of_labels(self) -> bool:
        """Whether the compiled loss compares the probabilities with one integer."""
        loss = self._loss()
        return loss is keras.losses.sparse_categorical_crossentropy or isinstance(
            loss, keras.losses.SparseCategoricalCrossentropy
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the encoder's config and the constructor's arguments."""
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "num_classes": self.num_classes,
            "trainable_encoder": self.trainable_encoder,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "Classifier":
        """Makes the model that `get_config` describes."""
        deserialize = keras.saving.deserialize_keras_object
        encoder = deserialize(config["encoder"], custom_objects)
        return cls(**{**config, "encoder": encoder})


def _of_keras(loss: Any) -> bool:
    """Whether it is known what a loss compares: a function of a user's may be any."""
    of = loss if hasattr(loss, "__name__") else type(loss)
    return str(of.__module__).partition(".")[0] == "keras"


def classifier(
    autoencoder: Any,
    num_classes: int,
    *,
    trainable_encoder: bool = True,
    name: str = "classifier",
) -> Classifier:
    """Makes a classifier of a trained autoencoder's code.

    `p = softmax(encoder(x) V + d)`, trained by cross-entropy

    The encoder is a copy: training the classifier leaves the autoencoder as it is.
    Its soft penalties are switched off (their `scale` is 0), so that the loss is
    the cross-entropy and the weight decay, if there is one.

    Args:
        autoencoder: A `keras_sae.models.Autoencoder`.
        num_classes: Number of classes, at least 2. Labels run from 0.
        trainable_encoder: True fine-tunes the encoder, False keeps it frozen and
            trains the softmax layer alone.
        name: Name of the model.

    Returns:
        A `keras_sae.models.Classifier`; `compile()` needs nothing but an optimizer.

    Raises:
        ValueError: `autoencoder` has no encoder, or `num_classes` is below 2.

    Reference:
        Hinton & Salakhutdinov, "Reducing the dimensionality of data with neural
        networks", Science 2006.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models
    >>> autoencoder = models.shallow((6,), units=8, sparsity="l1")
    >>> model = models.classifier(autoencoder, num_classes=2)
    >>> model.compile("adam")
    >>> x, y = np.random.default_rng(0).random((16, 6)), np.arange(16) % 2
    >>> sorted(model.fit(x, y, verbose=0).history)
    ['accuracy', 'loss']
    """
    if not isinstance(getattr(autoencoder, "encoder", None), keras.Model):
        raise ValueError(
            "`autoencoder` must be a `keras_sae.models.Autoencoder`. Received: "
            f"autoencoder={autoencoder!r}."
        )
    encoder = keras.models.clone_model(autoencoder.encoder)
    for new, old in zip(encoder.weights, autoencoder.encoder.weights, strict=True):
        new.assign(ops.copy(old))  # JAX would share the buffer, and give it away
    for layer in flatten(encoder):
        if isinstance(layer, (Sampling, Sparsity)) and layer.coefficient is not None:
            layer.coefficient.assign(0.0)
    return Classifier(encoder, num_classes, trainable_encoder, name=name)
