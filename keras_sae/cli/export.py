"""`keras-sae export`: export a trained model for TensorFlow Serving."""

import os
import warnings
from pathlib import Path
from typing import Annotated, Any

import keras
import typer

from keras_sae import evaluation, models
from keras_sae.cli import app
from keras_sae.export import export_saved_model
from keras_sae.utils.io import load_model


@app.report_errors
def export(
    model: Annotated[str, typer.Argument(help="A .keras file.")],
    output: Annotated[str, typer.Option(help="Folder for versions.")] = "serving/sae",
    version: Annotated[
        int | None, typer.Option(help="Version number. Default: the next free one.")
    ] = None,
    images: Annotated[
        bool, typer.Option(help="Add signatures for bytes 0..255 and PNG files.")
    ] = False,
    top_k: Annotated[int, typer.Option(help="Number of units in top_features.")] = 10,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset for the test metrics in the metadata.")
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=0, help="Further epochs on the dataset before export.")
    ] = 0,
    seed: app.Seed = 0,
) -> None:
    """Export a trained model for TensorFlow Serving."""
    options = {"version": version, "images": images, "top_k": top_k}
    export_model(model, output, dataset=dataset, epochs=epochs, seed=seed, **options)


def export_model(
    source: str | Path,
    output: str,
    *,
    dataset: str | None = None,
    epochs: int = 0,
    seed: int = 0,
    **options: Any,
) -> None:
    """Export a saved model, and print the path of the new version.

    `options` are passed to `keras_sae.export.export_saved_model`.
    """
    model = load_model(source)
    metrics = None
    if dataset is not None:
        if not isinstance(model, models.Autoencoder):
            raise ValueError(
                "`dataset` requires an autoencoder, whose test metrics are computed. "
                f"Received: --dataset {dataset} with a {type(model).__name__}. "
                "Remove the option."
            )
        (x, _), (x_test, y_test) = app.load_splits(dataset)
        model.check_data(x_test)
        keras.utils.set_random_seed(seed)
        if epochs:
            model.fit(x, epochs=epochs, verbose=0)
        metrics = evaluation.evaluate(model, x_test, y_test, seed=seed)
    elif epochs:
        raise ValueError(
            f"`epochs` needs data to train on. Received: --epochs {epochs}. "
            "For example, add --dataset digits."
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "The artifact has no warm-up requests")
        version = export_saved_model(model, output, metrics=metrics, **options)
    for warning in caught:  # print the message without the source line
        typer.echo(str(warning.message), err=True)
    typer.echo(f"SavedModel for TensorFlow Serving: {version}{os.sep}")
