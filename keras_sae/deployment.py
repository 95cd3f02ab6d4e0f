"""What the command line does to serve a model: loads it, rates it, exports it."""

from pathlib import Path
from typing import Any

import keras

from keras_sae import datasets, evaluation, export


def deploy(
    source: str | Path,
    output: str | Path,
    dataset: str | None = None,
    epochs: int = 0,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Exports a saved model to a folder of versions.

    Args:
        source: A `.keras` file of this package.
        output: Folder of the versions.
        dataset: None, or a set whose test samples give the figures of the metadata.
        epochs: Passes through that set's training samples before the export.
        seed: Of the batches.
        **options: As for `keras_sae.export.export_saved_model`.

    Returns:
        The path of the version.

    Raises:
        ValueError: There is no such file, its model does not fit the data, or there
            are epochs and no data.

    Example:

    >>> from keras_sae import deployment, models
    >>> models.shallow((8, 8, 1), 16, "l1").save("model.keras")
    >>> deployment.deploy("model.keras", "sae", dataset="digits").name
    '1'
    """
    model = keras.saving.load_model(source)
    if dataset is None and epochs:
        raise ValueError(
            f"Training needs data. Received: epochs={epochs} without a dataset. For "
            "example --dataset digits."
        )
    figures = None if dataset is None else _figures(model, dataset, epochs, seed)
    return export.export_saved_model(model, output, figures=figures, **options)


def _figures(model: Any, dataset: str, epochs: int, seed: int) -> dict[str, float]:
    """Of the set's test samples, after the epochs that are to come before."""
    if not hasattr(model, "encode"):
        raise ValueError(
            "Figures are those of an autoencoder. Received: a "
            f"{type(model).__name__} with dataset={dataset!r}. Leave the dataset out."
        )
    (x, _), (x_test, y_test) = datasets.load_data(dataset)
    model.check_data(x_test)
    keras.utils.set_random_seed(seed)
    if epochs:
        model.fit(x, epochs=epochs, verbose=0)
    return evaluation.evaluate(model, x_test, y_test, seed=seed)
