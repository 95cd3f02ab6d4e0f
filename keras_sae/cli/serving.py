"""`export`, and the `--export` of other commands."""

import os
import warnings
from typing import Annotated, Any

import typer

from keras_sae.cli._app import Seed, reported


@reported
def export(
    model: Annotated[str, typer.Argument(help="A .keras file.")],
    output: Annotated[str, typer.Option(help="Folder of the versions.")] = (
        "serving/sae"
    ),
    version: Annotated[
        int | None, typer.Option(help="Its number; the next free one if left out.")
    ] = None,
    images: Annotated[
        bool, typer.Option(help="Add signatures for bytes 0..255 and PNG files.")
    ] = False,
    top_k: Annotated[int, typer.Option(help="Units that top_features names.")] = 10,
    dataset: Annotated[
        str | None, typer.Option(help="Its test samples give figures to the metadata.")
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=0, help="Of training on the dataset before the export.")
    ] = 0,
    seed: Seed = 0,
) -> None:
    """Export a trained model for TensorFlow Serving.

    Example: keras-sae export --dataset digits --output serving/sae model.keras
    """
    options = {"version": version, "images": images, "top_k": top_k}
    deploy(model, output, dataset=dataset, epochs=epochs, seed=seed, **options)


def deploy(source: Any, output: str, **options: Any) -> None:
    """Exports a saved model, and says where to."""
    from keras_sae import deployment

    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "The artifact has no warm-up requests")
        version = deployment.deploy(source, output, **options)
    for warning in caught:  # a line, without the source that warns
        typer.echo(str(warning.message), err=True)
    typer.echo(f"SavedModel for TensorFlow Serving: {version}{os.sep}")
