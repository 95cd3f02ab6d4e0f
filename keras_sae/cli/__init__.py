"""The `keras-sae` command-line interface."""

import logging
from typing import Annotated

import typer

import keras_sae
from keras_sae.cli import compare, encode, export, train, tune
from keras_sae.cli.app import app as typer_app

# Commands in the order shown by `--help`, each with an example.
_EXAMPLES = {
    compare.compare: "keras-sae compare --dataset fashion_mnist --units 256",
    train.train: "keras-sae train --data flowers.csv --label kind --sparsity kl",
    tune.tune: "keras-sae tune --dataset fashion_mnist --max-l0 32 --workers 2",
    encode.encode: "keras-sae encode model.keras new.csv --output codes.npz",
    encode.score: "keras-sae score model.keras new.csv --output scores.csv",
    export.export: "keras-sae export --dataset digits --output serving/sae model.keras",
}
for _command, _example in _EXAMPLES.items():
    typer_app.command(epilog=f"Example: {_example}")(_command)
# The main help shows only two examples, so that it fits on a screen. The blank line
# between them keeps them on separate lines.
typer_app.info.epilog = "\n\n".join(
    _EXAMPLES[command] for command in (train.train, encode.encode)
)


def _print_version(is_given: bool) -> None:
    if is_given:
        typer.echo(f"keras-sae {keras_sae.__version__}")
        raise typer.Exit


@typer_app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version.",
        ),
    ] = False,
) -> None:
    """Train, compare, tune and export sparse autoencoders in Keras."""


def main() -> None:
    """Run the command without TensorFlow's warnings, such as those about retracing."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    typer_app(prog_name="keras-sae")
