"""`keras-sae train`: train one model with the given settings."""

from collections.abc import Callable
from typing import Annotated

import typer

from keras_sae import layers, models, regularizers
from keras_sae.cli import app, presets
from keras_sae.cli.compare import Run
from keras_sae.cli.export import export_model
from keras_sae.evaluation.training import file_stem
from keras_sae.utils.validation import known_name, positive_number

FAMILIES: dict[str, Callable] = {
    factory.__name__: factory
    for factory in (models.shallow, models.deep, models.stacked, models.convolutional)
}
PENALTIES: dict[str, Callable] = {
    "l1": regularizers.L1,
    "kl": regularizers.KLDivergence,
    "jump_relu": layers.JumpReLU,
    "gated": layers.Gated,
}


@app.report_errors
def train(
    context: typer.Context,
    dataset: app.Dataset = "digits",
    epochs: app.Epochs = 50,
    seed: app.Seed = 0,
    output: app.Output = "keras-sae-train",
    family: Annotated[str, typer.Option(help=", ".join(FAMILIES) + ".")] = "shallow",
    units: Annotated[
        str, typer.Option(help="Number of code units. For deep models: 128,64.")
    ] = "64",
    sparsity: Annotated[str, typer.Option(help=", ".join(PENALTIES) + ".")] = "l1",
    factor: Annotated[float, typer.Option(help="Factor of the penalty.")] = 3e-3,
    target: Annotated[
        float | None, typer.Option(help="Target mean activation, for kl.")
    ] = None,
    tied: Annotated[bool, typer.Option(help="Use tied weights.")] = False,
    learning_rate: app.LearningRate = 5e-3,
    batch_size: app.BatchSize = 64,
    report: app.Report = False,
    export_to: app.Export = None,
) -> None:
    """Train one model with the given settings."""
    factory = FAMILIES[known_name("family", family, FAMILIES)]
    positive_number("learning_rate", learning_rate)
    known_name("sparsity", sparsity, PENALTIES)
    if target is not None and sparsity != "kl":
        raise ValueError(
            f"`target` requires the KL penalty. Received: --target {target} "
            f"with --sparsity {sparsity}. Remove it, or use --sparsity kl."
        )
    try:
        widths = [int(width) for width in units.split(",")]
    except ValueError as error:
        raise ValueError(
            "`units` must be one integer, or several separated by commas. "
            f"Received: --units {units!r}. For example, use --units 128,64."
        ) from error
    config = {"factor": factor} | ({} if target is None else {"target": target})
    data = app.load_splits(dataset)
    width = widths[0] if len(widths) == 1 else widths
    settings = data[0][0].shape[1:], width, PENALTIES[sparsity](**config)
    build = presets.builder(learning_rate, factory, *settings, tied=tied)
    preset = presets.Preset({family: build})
    run = Run(context, output, data, preset, epochs, batch_size, (seed,))
    run.train()
    if report:
        run.write_report(dataset)
    if export_to is not None:
        saved = run.folder / f"{file_stem(family, seed)}.keras"
        export_model(saved, export_to, dataset=dataset)
