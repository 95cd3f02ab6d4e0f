"""The application, and the options and helpers that commands share."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import keras_sae
from keras_sae import datasets
from keras_sae.datasets.loading import EMBEDDED, Arrays
from keras_sae.datasets.own import is_path
from keras_sae.utils.io import RunDirectory

app = typer.Typer(
    help="Train, compare, tune and export sparse autoencoders in Keras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Dataset = Annotated[
    str, typer.Option(help="fashion_mini, digits, natural_patches, or any TFDS name.")
]
Epochs = Annotated[int, typer.Option(min=1, help="Passes through the training data.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed for weights and batches.")]
Output = Annotated[str, typer.Option(help="Folder for models, metrics and pictures.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples per training step.")]
LearningRate = Annotated[float, typer.Option(help="Learning rate of Adam.")]
Report = Annotated[
    bool, typer.Option("--report", help="Also write report.html, an interactive page.")
]
Export = Annotated[
    str | None, typer.Option("--export", help="Also export for serving to this folder.")
]
# Options that do not change the results of a run.
_OTHER_OPTIONS = ("output", "report", "export_to", "trials", "workers")


def load_splits(dataset: str) -> tuple[Arrays, Arrays]:
    """Return the training and the test split of a dataset."""
    if dataset not in EMBEDDED and is_path(dataset):
        raise ValueError(
            "`dataset` must be the name of a dataset with two splits. Received: "
            f"--dataset {dataset}. For your own files, use `datasets.load_data` and "
            "`evaluation.compare` in Python."
        )
    return datasets.load_data(dataset)


def report_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn errors from bad input into one message and exit status 2."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, OSError) as error:
            typer.secho(f"Error: {error}", err=True, fg="red")
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            typer.echo("Interrupted. Run the same command again to resume.", err=True)
            raise typer.Exit(130) from None

    return wrapper


def open_run(output: str, context: typer.Context) -> Path:
    """Create the output folder, or reopen it to resume a run with the same options."""
    options = {k: v for k, v in context.params.items() if k not in _OTHER_OPTIONS}
    return RunDirectory(
        output,
        {"command": context.info_name, "version": keras_sae.__version__, **options},
        argument="output",
        advice="Choose another folder with --output, or delete this one.",
    ).path
