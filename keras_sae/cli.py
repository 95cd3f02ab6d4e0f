"""The command line: parses, calls the package, prints."""

import functools
import logging
import os
from collections.abc import Callable, Sequence
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
Export = Annotated[
    str | None, typer.Option("--export", help="Also export for serving, to here.")
]


def _reported(command: Callable) -> Callable:
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


@app.command()
@_reported
def compare(
    dataset: Dataset = "digits",
    epochs: Epochs = 50,
    seed: Seed = 0,
    output: Output = "keras-sae-compare",
    units: Units = 64,
    batch_size: BatchSize = 64,
    learning_rate: Rate = 5e-3,
    l1: Annotated[float, typer.Option(help="Weight of the L1 penalty.")] = 3e-3,
    kl: Annotated[float, typer.Option(help="Weight of the KL penalty.")] = 1e-2,
    target: Annotated[float, typer.Option(help="KL target, in (0, 1).")] = 0.05,
    full: Annotated[
        bool, typer.Option(help="Three seeds, and a sweep of the penalties.")
    ] = False,
) -> None:
    """Train each family on the same data, with baselines beside them.

    Example: keras-sae compare --dataset fashion_mnist --units 256
    """
    from keras_sae import plans, runs

    families = functools.partial(
        plans.families,
        units=units,
        epochs=epochs,
        l1=l1,
        kl=kl,
        target=target,
        learning_rate=_positive("learning_rate", learning_rate),
    )
    settings = {"units": units, "l1": l1, "kl": kl, "target": target, "full": full}
    settings |= {"learning_rate": learning_rate}
    seeds = range(seed, seed + 3) if full else (seed,)
    plan, data, folder = _run(
        "compare", families, dataset, epochs, seeds, output, batch_size, settings
    )
    if full:
        typer.echo("Sweeping the weights of the penalties ...")
        runs.sweep(plan, data, folder, epochs=epochs, seed=seed, batch_size=batch_size)


@app.command()
@_reported
def train(
    dataset: Dataset = "digits",
    epochs: Epochs = 50,
    seed: Seed = 0,
    output: Output = "keras-sae-train",
    family: Annotated[
        str, typer.Option(help="shallow, deep, stacked or convolutional.")
    ] = "shallow",
    units: Annotated[
        str, typer.Option(help="Width of the code; of each layer: 128,64.")
    ] = "64",
    sparsity: Annotated[str, typer.Option(help="l1 or kl.")] = "l1",
    factor: Annotated[float, typer.Option(help="Weight of the penalty.")] = 3e-3,
    target: Annotated[
        float | None, typer.Option(help="Mean activation aimed at (kl).")
    ] = None,
    tied: Annotated[bool, typer.Option(help="Decoder = encoder transposed.")] = False,
    learning_rate: Rate = 5e-3,
    batch_size: BatchSize = 64,
    export_to: Export = None,
) -> None:
    """Train one model with its settings as options.

    Example: keras-sae train --sparsity kl --target 0.05 --units 100
    """
    from keras_sae import checks, evaluation, layers, models, plans

    families: dict[str, Callable] = {
        "shallow": models.shallow,
        "deep": models.deep,
        "stacked": models.stacked,
        "convolutional": models.convolutional,
    }
    factory = families[checks.known_name("family", family, families)]
    kind = type(layers.get_sparsity(sparsity))
    config = {"factor": factor} | ({} if target is None else {"target": target})
    if not set(config) <= set(kind().get_config()):
        raise ValueError(
            f"`target` belongs to the KL penalty. Received: target={target} with "
            f"sparsity={sparsity!r}. Leave it out, or use --sparsity kl."
        )
    # Only where asked for, since not every family can be tied.
    options = {"tied": True} if tied else {}

    def one(shape: tuple[int, ...]) -> Any:
        return plans.Plan(
            {
                family: plans.compiled(
                    _positive("learning_rate", learning_rate),
                    factory,
                    shape,
                    _widths(units),
                    kind(**config),
                    **options,
                )
            }
        )

    settings = {
        "family": family,
        "units": units,
        "sparsity": sparsity,
        **config,
        "tied": tied,
        "learning_rate": learning_rate,
    }
    _, _, folder = _run(
        "train", one, dataset, epochs, (seed,), output, batch_size, settings
    )
    if export_to is not None:
        saved = folder / f"{evaluation.run_name(family, seed)}.keras"
        _deploy(saved, export_to, dataset=dataset)


@app.command()
@_reported
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
    _deploy(model, output, dataset=dataset, epochs=epochs, seed=seed, **options)


def _deploy(source: Any, output: str, **options: Any) -> None:
    from keras_sae import deployment

    version = deployment.deploy(source, output, **options)
    typer.echo(f"SavedModel for TensorFlow Serving: {version}{os.sep}")


def _positive(name: str, value: float) -> float:
    from keras_sae import checks

    if checks.finite_factor(name, value) == 0:
        raise ValueError(f"`{name}` must be positive. Received: {name}={value}.")
    return value


def _widths(units: str) -> Any:
    """`"128,64"` is a sequence, `"64"` a number, as the factories want them."""
    try:
        widths = [int(width) for width in units.split(",")]
    except ValueError as error:
        raise ValueError(
            "`units` must be a whole number, or several with commas between. "
            f"Received: --units {units!r}. For example --units 128,64."
        ) from error
    return widths[0] if len(widths) == 1 else widths


def _run(
    command: str,
    planned: Callable,
    dataset: str,
    epochs: int,
    seeds: Sequence[int],
    output: str,
    batch_size: int,
    settings: dict[str, Any],
) -> tuple[Any, Any, Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from keras_sae import __version__, datasets, evaluation, runs

    data = datasets.load_data(dataset)
    x = data[0][0]
    plan = planned(x.shape[1:])
    for build in plan.builders.values():
        # All that is wrong with the options is said before anything is written.
        build().check_data(x, batch_size=batch_size)
    settings = {
        "command": command,
        "version": __version__,
        "dataset": dataset,
        "epochs": epochs,
        "seed": seeds[0],
        "batch_size": batch_size,
        **settings,
    }
    folder = runs.open_folder(output, settings)
    with Progress(
        "[progress.description]{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ) as progress:
        table = runs.run(
            plan,
            data,
            folder,
            epochs=epochs,
            seeds=seeds,
            batch_size=batch_size,
            callbacks=lambda name: [_bar(progress, name, epochs)],
        )
    _print(evaluation.summarize(table))
    typer.echo(f"Models, figures and pictures: {folder}{os.sep}")
    return plan, data, folder


def _bar(progress: Any, name: str, epochs: int) -> Any:
    """A Keras callback that moves a bar of `progress` with every epoch."""
    import keras

    class Bar(keras.callbacks.Callback):
        def on_train_begin(self, logs: dict | None = None) -> None:
            del logs
            self.task = progress.add_task(name, total=epochs)

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            del logs
            progress.update(self.task, completed=epoch + 1)

    return Bar()


# Columns of the printed table, with their headings and formats.
_COLUMNS = {
    "model": ("model", "{}"),
    "reconstruction": ("error", "{:.5f}"),
    "explained_variance": ("EV", "{:.3f}"),
    "copying": ("copy", "{:.2f}"),
    "l0": ("L0", "{:.1f}"),
    "dead_fraction": ("dead", "{:.0%}"),
    "probe_accuracy": ("probe", "{:.1%}"),
    "parameters": ("weights", "{:,.0f}"),
    "seconds": ("s", "{:.0f}"),
}
_CAPTION = """On the test set. error: squared, a value. EV: share of the data's \
variance kept; copy: the same on noise (1 is the identity). L0: active units a \
sample (~ sum of activations, where none is exactly 0). dead: units that never \
fire. probe: accuracy of a linear classifier on the code. s: training. All \
figures, with few labels and after fine-tuning too, stand in table.csv."""


def _print(table: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = [name for name in _COLUMNS if name in table.columns]
    printed = Table(
        caption=_CAPTION,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in shown:
        printed.add_column(
            _COLUMNS[name][0],
            justify="left" if name == "model" else "right",
            no_wrap=True,
        )
    for _, row in table.iterrows():
        printed.add_row(*(_cell(name, row) for name in shown))
    Console().print(printed)


def _cell(name: str, row: Any) -> str:
    value = row[name]
    if value == value:
        return _COLUMNS[name][1].format(value)
    expected = row.get("expected_l0", float("nan"))
    return f"~{expected:.1f}" if name == "l0" and expected == expected else "-"


def main() -> None:
    """Runs the command line, without TensorFlow's notes on retracing."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    app(prog_name="keras-sae")


if __name__ == "__main__":
    main()
