"""The Typer application, and options and helpers that several commands use."""

import functools
import itertools
import os
import re
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

import keras_sae
from keras_sae.utils.io import RunDirectory, describe_changes, read_json

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Epochs = Annotated[int, typer.Option(min=1, help="Passes through the training data.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed for weights and batches.")]
Output = Annotated[str, typer.Option(help="Folder for models, metrics and plots.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Delete an earlier run in --output first.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples per training step.")]
LearningRate = Annotated[float, typer.Option(help="Learning rate of Adam.")]
Report = Annotated[
    bool, typer.Option("--report", help="Also write report.html, an interactive page.")
]
Export = Annotated[
    str | None, typer.Option("--export", help="Also export to this folder for serving.")
]
# Options that may differ when a run is resumed.
_OTHER_OPTIONS = ("output", "overwrite", "report", "export_to", "trials", "workers")


def split_list(text: str | None) -> list[str] | None:
    """Return the entries of a comma-separated list."""
    return None if text is None else [entry.strip() for entry in text.split(",")]


def report_errors(command: Callable[..., None]) -> Callable[..., None]:
    """If the input is invalid, print the error without a traceback, and exit with 2.

    Names of arguments in the message are replaced by options: `k` becomes --k, and k=3
    becomes --k 3.
    """

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, OSError) as error:
            names = "|".join(name for name in kwargs if name != "model")
            message = re.sub(
                rf"`({names})`|\b({names})=",
                lambda found: (
                    f"--{found[1] or found[2]}".replace("_", "-")
                    + " " * (found[1] is None)
                ),
                str(error),
            )
            typer.secho(f"Error: {message}", err=True, fg="red")
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            typer.echo("Interrupted. Run the same command again to resume.", err=True)
            raise typer.Exit(130) from None

    return wrapper


class RunFolder:
    """The folder of a new run, or of an earlier run with the same options.

    If `--output` contains a run with other options, OUTPUT-2, OUTPUT-3, ... are tried
    in turn. Nothing is written until `open` is called.

    Args:
        context: Typer context of the command, with the values of its options.
        output: Value of `--output`.
        last_file: Name of the file that a run writes last.
        overwrite: Whether `open` deletes an earlier run in `--output`.
    """

    def __init__(
        self, context: typer.Context, output: str, last_file: str, overwrite: bool
    ) -> None:
        options = context.params
        settings = {k: v for k, v in options.items() if k not in _OTHER_OPTIONS}
        self.settings = {
            "command": context.info_name,
            "version": keras_sae.__version__,
            **settings,
        }
        data = Path(options["data"] or "").expanduser()
        if options["data"] and data.exists():
            modified = max(path.stat().st_mtime for path in (data, *data.rglob("*")))
            self.settings["data_modified"] = str(datetime.fromtimestamp(modified))
        self.overwrite = overwrite
        for number in itertools.count(1):
            self.path = Path(output + (f"-{number}" if number > 1 else ""))
            file = self.path / "settings.json"
            if overwrite or not file.exists():
                break
            changes = describe_changes(read_json(file, command=str), self.settings)
            if not changes:
                break
            typer.echo(f"{self.path}{os.sep} contains another run: {changes}.")
        self.resumes = file.exists() and not overwrite
        self.finished = self.resumes and (self.path / last_file).exists()

    def open(self) -> Path:
        """Create the folder, after deleting an earlier run if `overwrite` is set."""
        file = self.path / "settings.json"
        if self.overwrite and file.exists() and read_json(file, command=str):
            shutil.rmtree(self.path)
        RunDirectory(
            self.path,
            self.settings,
            argument="output",
            advice="Choose another folder with --output.",
        )
        return self.path
