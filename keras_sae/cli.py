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
Report = Annotated[
    bool, typer.Option("--report", help="Also write report.html, a page to explore.")
]


def _reported(command: Callable) -> Callable:
    """Bad input ends in one message and exit status 2, without a traceback."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ValueError as error:
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
    report: Report = False,
) -> None:
    """Train each family on the same data, with baselines beside them.

    Example: keras-sae compare --dataset fashion_mnist --units 256
    """
    from keras_sae import _bars, plans, runs

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
        trainings = len(plan.sweeps) * len(runs.FACTORS)
        options = {"epochs": epochs, "seed": seed, "batch_size": batch_size}
        with _bars.Bars(trainings, epochs) as bars:
            runs.sweep(plan, data, folder, **options, callbacks=bars.callbacks)
    if report:
        _report(plan, data, folder, seed)


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
    report: Report = False,
) -> None:
    """Train one model with its settings as options.

    Example: keras-sae train --sparsity kl --target 0.05 --units 100
    """
    from keras_sae import checks, layers, models, plans

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
    plan, data, folder = _run(
        "train", one, dataset, epochs, (seed,), output, batch_size, settings
    )
    if report:
        _report(plan, data, folder, seed)


@app.command()
@_reported
def tune(
    dataset: Dataset = "digits",
    epochs: Epochs = 30,
    seed: Seed = 0,
    output: Output = "keras-sae-tune",
    trials: Annotated[int, typer.Option(min=1, help="Settings to try.")] = 20,
    model: Annotated[
        str, typer.Option(help="Families: shallow, deep, stacked, convolutional.")
    ] = "shallow",
    sparsity: Annotated[
        str, typer.Option(help="Kinds: l1, kl, top_k, batch_top_k, jump_relu, gated.")
    ] = "l1,kl,top_k",
    tuner: Annotated[
        str, typer.Option(help="random, bayesian, hyperband or grid.")
    ] = "random",
    objective: Annotated[
        str, typer.Option(help="Also probe_accuracy, reconstruction, a figure.")
    ] = "reconstruction_under_l0",
    max_l0: Annotated[
        float | None, typer.Option(help="Most active units; default sqrt(size).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Search the sparsity settings for the best reconstruction under a limit on L0.

    Example: keras-sae tune --dataset fashion_mnist --max-l0 32 --workers 2
    """
    from keras_sae import datasets, runs, searches, tuning

    data = datasets.load_data(dataset)
    hypermodel = tuning.SparsityHyperModel(
        searches.names(model), data[0][0].shape[1:], sparsity=searches.names(sparsity)
    )
    choice = {"tuner": tuner, "objective": objective, "max_l0": max_l0}
    settings = {"command": "tune", "dataset": dataset, "epochs": epochs, "seed": seed}
    folder = runs.open_folder(
        output, {**settings, "model": model, "sparsity": sparsity, **choice}
    )
    counts = {"max_trials": trials, "epochs": epochs, "workers": workers}
    try:
        table, best = searches.run(
            hypermodel, data, folder, seed=seed, **choice, **counts
        )
    except tuning.FailedTrialsError as error:
        raise ValueError(str(error)) from error
    shown = table.assign(
        sparsity=searches.described(table),
        expected_l0=table["l0"],
        l0=table["l0"].mask(table["expected"]),
    )
    one_family = table["model"].nunique() == 1
    shown = shown.drop(columns=["model"] if one_family else [])
    _print(shown, _TRIAL_COLUMNS, _TRIAL_CAPTION)
    figures = ", ".join(f"{name} {best[name]:.4g}" for name in _BEST if name in best)
    typer.echo(f"The best, on the test set: {figures}.")
    typer.echo(f"Trials, their front and best.keras: {folder}{os.sep}")


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
    from keras_sae import __version__, _bars, datasets, evaluation, runs

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
    with _bars.Bars(len(plan.builders) * len(seeds), epochs) as bars:
        table = runs.run(
            plan,
            data,
            folder,
            epochs=epochs,
            seeds=seeds,
            batch_size=batch_size,
            callbacks=bars.callbacks,
        )
    _print(evaluation.summarize(table))
    typer.echo(f"Models, figures and pictures: {folder}{os.sep}")
    return plan, data, folder


def _report(plan: Any, data: Any, folder: Any, seed: int) -> None:
    from rich.console import Console

    from keras_sae import runs

    with Console().status("Writing the report ..."):
        path = runs.write_report(plan, data, folder, seed=seed)
    typer.echo(f"Report, to open in a browser: {path}")


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


# The same of a search, on the validation data.
_TRIAL_COLUMNS = {
    "trial": ("trial", "{}"),
    "model": ("model", "{}"),
    "sparsity": ("sparsity", "{}"),
    "units": ("units", "{:.0f}"),
    "learning_rate": ("rate", "{:.4f}"),
    "reconstruction": ("error", "{:.5f}"),
    "explained_variance": ("EV", "{:.3f}"),
    "l0": ("L0", "{:.1f}"),
    "probe_accuracy": ("probe", "{:.1%}"),
    "score": ("score", "{:.4f}"),
}
_TRIAL_CAPTION = """The best first, on a fifth of the training set. sparsity: with \
what was drawn for it. error: squared, a value. EV: share of the data's variance \
kept. L0: active units a sample (~ sum of the activations, of kl). probe: accuracy \
of a linear classifier on the code. score: what was searched. All settings stand in \
trials.csv."""
_BEST = ("reconstruction", "explained_variance", "l0", "expected_l0", "probe_accuracy")


def _print(
    table: Any, columns: dict[str, tuple] = _COLUMNS, caption: str = _CAPTION
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = [name for name in columns if name in table.columns]
    printed = Table(
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in shown:
        printed.add_column(
            columns[name][0],
            justify="left" if name == "model" else "right",
            no_wrap=True,
        )
    for _, row in table.iterrows():
        printed.add_row(*(_cell(name, row, columns) for name in shown))
    Console().print(printed)


def _cell(name: str, row: Any, columns: dict[str, tuple]) -> str:
    value = row[name]
    if value == value:
        return columns[name][1].format(value)
    expected = row.get("expected_l0", float("nan"))
    return f"~{expected:.1f}" if name == "l0" and expected == expected else "-"


def _examples() -> str:
    """The example of every command, as its docstring has it."""
    docs = (command.callback.__doc__ or "" for command in app.registered_commands)
    found = [line.strip() for doc in docs for line in doc.splitlines()]
    begin = "Example: "
    # A blank line between them: otherwise they are joined to one.
    return "\n\n".join(x.removeprefix(begin) for x in found if x.startswith(begin))


app.info.epilog = _examples()


def main() -> None:
    """Runs the command line, without TensorFlow's notes on retracing."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    app(prog_name="keras-sae")


if __name__ == "__main__":
    main()
