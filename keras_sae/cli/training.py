"""`compare` and `train`."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from keras_sae.cli._app import (
    BatchSize,
    Dataset,
    Epochs,
    Export,
    Output,
    Rate,
    Report,
    Seed,
    Units,
    reported,
)
from keras_sae.cli._bars import Bars
from keras_sae.cli._tables import print_table
from keras_sae.cli.serving import deploy


@reported
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
    from keras_sae import plans, runs
    from keras_sae.utils import validation as checks

    families = functools.partial(
        plans.families,
        units=units,
        epochs=epochs,
        l1=l1,
        kl=kl,
        target=target,
        learning_rate=checks.positive_number("learning_rate", learning_rate),
        batch_size=batch_size,
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
        with Bars(trainings, epochs) as bars:
            runs.sweep(plan, data, folder, **options, callbacks=bars.callbacks)
    if report:
        _report(plan, data, folder, seed)


@reported
def train(
    dataset: Dataset = "digits",
    epochs: Epochs = 50,
    seed: Seed = 0,
    output: Output = "keras-sae-train",
    family: Annotated[
        str, typer.Option(help="shallow, deep, stacked or convolutional.")
    ] = "shallow",
    units: Annotated[
        str, typer.Option(help="Width of the code; deep ones: 128,64.")
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
    export_to: Export = None,
) -> None:
    """Train one model with its settings as options.

    Example: keras-sae train --sparsity kl --target 0.05 --units 100
    """
    from keras_sae import evaluation, layers, models, plans
    from keras_sae.utils import validation as checks

    families: dict[str, Callable] = {
        "shallow": models.shallow,
        "deep": models.deep,
        "stacked": models.stacked,
        "convolutional": models.convolutional,
    }
    factory = families[checks.known_name("family", family, families)]
    kind = type(layers.get_sparsity(sparsity))
    config = {"factor": factor} | ({} if target is None else {"target": target})
    known = set(kind().get_config())
    if "factor" not in known:
        raise ValueError(
            "`sparsity` must be a penalty with a weight, l1 or kl. Received: "
            f"--sparsity {sparsity}. `keras-sae tune` tries the others, and "
            "keras_sae.models.shallow(..., sparsity=...) takes them."
        )
    if not set(config) <= known:
        raise ValueError(
            f"`target` belongs to the KL penalty. Received: target={target} with "
            f"sparsity={sparsity!r}. Leave it out, or use --sparsity kl."
        )

    def one(shape: tuple[int, ...]) -> Any:
        return plans.Plan(
            {
                family: plans.compiled(
                    checks.positive_number("learning_rate", learning_rate),
                    factory,
                    shape,
                    _widths(units),
                    kind(**config),
                    tied=tied,
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
    if export_to is not None:
        saved = folder / f"{evaluation.run_name(family, seed)}.keras"
        deploy(saved, export_to, dataset=dataset)


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
    with Bars(len(plan.builders) * len(seeds), epochs) as bars:
        table = runs.run(
            plan,
            data,
            folder,
            epochs=epochs,
            seeds=seeds,
            batch_size=batch_size,
            callbacks=bars.callbacks,
        )
    print_table(evaluation.summarize(table))
    typer.echo(f"Models, figures and pictures: {folder}{os.sep}")
    return plan, data, folder


def _report(plan: Any, data: Any, folder: Any, seed: int) -> None:
    from rich.console import Console

    from keras_sae import runs

    with Console().status("Writing the report ..."):
        path = runs.write_report(plan, data, folder, seed=seed)
    typer.echo(f"Report, to open in a browser: {path}")


# Columns of the printed table, with their headings and formats.
