"""The application, the options that commands share, and how errors end."""

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Sparse autoencoders in Keras: train, compare, look.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Dataset = Annotated[
    str, typer.Option(help="digits, natural_patches, or any name in TFDS.")
]
Epochs = Annotated[int, typer.Option(min=1, help="Passes through the data.")]
Seed = Annotated[int, typer.Option(min=0, help="Of weights and batches.")]
Output = Annotated[str, typer.Option(help="Folder for models, figures, pictures.")]
Units = Annotated[int, typer.Option(min=1, help="Width of the code.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples a step.")]
Rate = Annotated[float, typer.Option(help="Learning rate of Adam.")]
Report = Annotated[
    bool, typer.Option("--report", help="Also write report.html, a page to explore.")
]
Export = Annotated[
    str | None, typer.Option("--export", help="Also export for serving, to here.")
]


def reported(command: Callable) -> Callable:
    """Bad input ends in one message and exit status 2, without a traceback."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, OSError) as error:
            typer.secho(f"Error: {error}", err=True, fg="red")
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            typer.echo("Interrupted. The same command goes on from here.", err=True)
            raise typer.Exit(130) from None

    return wrapper
