"""`tune`."""

import os
from typing import Annotated

import typer

from keras_sae.cli._app import Dataset, Epochs, Export, Output, Seed, reported
from keras_sae.cli._tables import TRIAL_CAPTION, TRIAL_COLUMNS, print_table
from keras_sae.cli.serving import deploy

_BEST = ("reconstruction", "explained_variance", "l0", "expected_l0", "probe_accuracy")


@reported
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
    export_to: Export = None,
) -> None:
    """Search the sparsity settings that rebuild best under a limit on L0.

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
    print_table(shown, TRIAL_COLUMNS, TRIAL_CAPTION)
    figures = ", ".join(f"{name} {best[name]:.4g}" for name in _BEST if name in best)
    typer.echo(f"The best, on the test set: {figures}.")
    typer.echo(f"Trials, their front and best.keras: {folder}{os.sep}")
    if export_to is not None:
        deploy(folder / "best.keras", export_to, dataset=dataset)
