"""Apache Beam handler that applies a saved model to data of any size.

This module requires the extra `beam`: `pip install "keras-sae[beam]"`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from keras_sae.models import Autoencoder, sparse_codes
from keras_sae.models.validation import as_numpy, check_data
from keras_sae.types import PathLike
from keras_sae.utils.validation import known_name, positive_integer

# A row, or a pair of a key and a row. The type is `Any`, because Beam checks type hints
# and a row may have any type that NumPy can convert.
Element: TypeAlias = Any


class SparseAutoencoderHandler(ModelHandler):
    """Beam `ModelHandler` that computes codes, reconstructions or anomaly scores.

    Use it with `apache_beam.ml.inference.RunInference` for data that does not fit on
    one computer. Any Beam runner can distribute the work. Each worker process loads the
    model once.

    Elements are rows of shape `input_shape`, or pairs `(key, row)`. A row of another
    shape or with non-finite values raises an error. With
    `RunInference(...).with_exception_handling()`, the pipeline continues and sends
    such rows to a second output.

    Each result is a `PredictionResult`, or a pair `(key, PredictionResult)`. Its
    `example` is the row, and its `inference` depends on `output`:

    - `"code"`: a dict with `units`, the indices of the active units, and `values`,
      their activations, both of shape `(active,)`. If the code has several positions,
      the indices refer to the flattened code.
    - `"reconstruction"`: an array of shape `input_shape`.
    - `"anomaly_score"`: the squared error of the reconstruction, summed over the row,
      as in an exported model.

    Args:
        path: Path of the `.keras` file of a `keras_sae.models.Autoencoder`. Every
            worker must be able to read this file.
        output: `"code"`, `"reconstruction"` or `"anomaly_score"`.
        batch_size: Maximum number of rows per call of the model.

    Raises:
        ValueError: `output` is unknown, `batch_size` is not a positive integer, or the
            model in the file is not an autoencoder or cannot compute `output`.
    """

    def __init__(
        self, path: PathLike, output: str = "code", *, batch_size: int = 256
    ) -> None:
        positive_integer("batch_size", batch_size)
        super().__init__(max_batch_size=batch_size)
        known_name("output", output, ("code", "reconstruction", "anomaly_score"))
        self.path, self.output = str(path), output
        model = load_autoencoder(self.path)
        if output == "anomaly_score" and not model.reconstructs_input:
            raise ValueError(
                "`output` must not be 'anomaly_score' for a transcoder, which does not "
                f"reconstruct its input. Received: the model {model.name!r}."
            )
        self.sample_shape = model.sample_shape

    def load_model(self) -> Callable[[np.ndarray], Iterable[Any]]:
        """Return a function that maps a batch of rows to their results."""
        model = load_autoencoder(self.path)
        encoder = sparse_codes.SparseEncoder(model.encoder)

        def encode(x: np.ndarray) -> Iterable[Any]:
            codes = sparse_codes.encode_batch(model, encoder, x)
            cuts = codes.indptr[1:-1]
            units, values = np.split(codes.indices, cuts), np.split(codes.data, cuts)
            return [
                {"units": u, "values": v} for u, v in zip(units, values, strict=True)
            ]

        def score(x: np.ndarray) -> Iterable[Any]:
            signature = model.serving_signatures(1)["anomaly_score"]
            return as_numpy(signature.function(x)["score"])

        functions = {
            "code": encode,
            "reconstruction": model.predict_on_batch,
            "anomaly_score": score,
        }
        return functions[self.output]

    def run_inference(
        self,
        batch: Sequence[Element],
        model: Callable[[np.ndarray], Iterable[Any]],
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[Any]:
        """Yield the result of each element of a batch."""
        del inference_args
        rows = [e[1] if self.is_pair(e) else e for e in batch]
        results = map(PredictionResult, rows, model(np.stack(rows)))
        for element, result in zip(batch, results, strict=True):
            yield (element[0], result) if self.is_pair(element) else result

    def get_preprocess_fns(self) -> Iterable[Callable[[Element], Element]]:
        """Return the function that checks each element."""
        return [self.checked]

    def checked(self, element: Element) -> Element:
        """Check an element, and return it with its row converted to float32."""
        is_pair = self.is_pair(element)
        row = np.asarray(element[1] if is_pair else element)
        check_data(row[None], self.sample_shape)
        row = row.astype("float32")
        return (element[0], row) if is_pair else row

    def is_pair(self, element: Element) -> bool:
        """Return whether an element is a pair `(key, row)` instead of a row."""
        return (
            isinstance(element, tuple)
            and len(element) == 2
            and np.ndim(element[1]) == len(self.sample_shape)
        )

    def get_metrics_namespace(self) -> str:
        """Return the namespace of the metrics that Beam records."""
        return "SparseAutoencoder"


def load_autoencoder(path: str) -> Autoencoder:
    """Load an autoencoder from a `.keras` file."""
    model = keras.saving.load_model(path)
    if not isinstance(model, Autoencoder):
        raise ValueError(
            "`path` must be the file of a `keras_sae.models.Autoencoder`. Received: a "
            f"`{type(model).__name__}` in {path!r}."
        )
    return model
