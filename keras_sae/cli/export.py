"""`keras-sae export`: export a trained model for TensorFlow Serving."""

import os
import warnings
from typing import Annotated, Any

import keras
import typer

from keras_sae import evaluation, models
from keras_sae.cli import app, loading
from keras_sae.export import export_saved_model
from keras_sae.utils.io import load_model


@app.report_errors
def export(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A .keras file.")],
    output: Annotated[
        str, typer.Option(help="Folder for the numbered versions.")
    ] = "serving/sae",
    version: Annotated[
        int | None, typer.Option(help="Version number. Default: the next number.")
    ] = None,
    images: Annotated[
        bool, typer.Option(help="Add signatures for 8-bit images and PNG files.")
    ] = False,
    top_k: Annotated[
        int, typer.Option(help="Number of units that top_features returns.")
    ] = 10,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset for further training and test metrics.")
    ] = None,
    data: loading.OwnData = None,
    validation: loading.Validation = 0.2,
    epochs: Annotated[
        int, typer.Option(min=0, help="Further training epochs before the export.")
    ] = 0,
    seed: app.Seed = 0,
) -> None:
    """Export a trained model for TensorFlow Serving."""
    loading.check_options(context)
    loaded, splits = load_model(model), None
    if dataset is not None or data is not None:
        is_autoencoder = isinstance(loaded, models.Autoencoder)
        if not is_autoencoder or not loaded.reconstructs_input:
            raise ValueError(
                "--dataset and --data require an autoencoder that reconstructs its "
                "input, because they are used to compute test metrics. Received: a "
                f"{type(loaded).__name__}. Remove the option."
            )
        columns = label = None
        if data is not None:
            columns, label = loading.names_in(loaded, data)
        splits = loading.load_splits(
            dataset or "", data, label, columns, validation, loaded
        )
        loading.check_shape(loaded, splits.test[0], splits.name)
        keras.utils.set_random_seed(seed)
        if epochs:
            loaded.fit(splits.train[0], epochs=epochs, verbose=0)
    elif epochs:
        raise ValueError(
            f"`epochs` requires data. Received: --epochs {epochs}. Add --dataset "
            "or --data, for example --dataset digits."
        )
    options = {"version": version, "images": images, "top_k": top_k}
    export_model(loaded, output, splits, seed, **options)


def export_model(
    model: keras.Model,
    output: str,
    splits: loading.Splits | None = None,
    seed: int = 0,
    **options: Any,
) -> None:
    """Export a model with its test metrics, and print the path of the new version.

    `options` are passed to `keras_sae.export.export_saved_model`.
    """
    metrics = None
    if splits is not None:
        metrics = evaluation.evaluate(model, *splits.test, seed=seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "The artifact has no warm-up requests")
        version = export_saved_model(model, output, metrics=metrics, **options)
    for warning in caught:  # print the message without the source line
        typer.echo(str(warning.message), err=True)
    typer.echo(f"SavedModel for TensorFlow Serving: {version}{os.sep}")
