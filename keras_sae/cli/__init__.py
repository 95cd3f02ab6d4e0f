"""The command-line interface `keras-sae`."""

import logging

from keras_sae.cli import compare, export, train, tune
from keras_sae.cli.app import app as typer_app

# Commands in the order shown by `--help`, each with an example.
_EXAMPLES = {
    compare.compare: "keras-sae compare --dataset fashion_mnist --units 256",
    train.train: "keras-sae train --sparsity kl --target 0.05 --units 100",
    tune.tune: "keras-sae tune --dataset fashion_mnist --max-l0 32 --workers 2",
    export.export: "keras-sae export --dataset digits --output serving/sae model.keras",
}
for _command, _example in _EXAMPLES.items():
    typer_app.command(epilog=f"Example: {_example}")(_command)
# Blank lines put each example on its own line.
typer_app.info.epilog = "\n\n".join(_EXAMPLES.values())


def main() -> None:
    """Run the command line without TensorFlow's warnings about retracing."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    typer_app(prog_name="keras-sae")
