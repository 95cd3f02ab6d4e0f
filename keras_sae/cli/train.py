"""`keras-sae train`: train one model with the given settings."""

from typing import Annotated

import typer

from keras_sae.cli import app, loading, model_options, presets
from keras_sae.cli.compare import Run, print_results
from keras_sae.cli.export import export_model
from keras_sae.evaluation.training import file_stem
from keras_sae.models import building_blocks, families
from keras_sae.utils.io import load_model
from keras_sae.utils.validation import positive_number

# With beta=1, the KL divergence collapses to 0 on small images.
BETA = 0.01


@app.report_errors
def train(
    context: typer.Context,
    dataset: loading.Dataset = "digits",
    data: loading.OwnData = None,
    label: loading.Label = None,
    columns: loading.Columns = None,
    validation: loading.Validation = 0.2,
    epochs: app.Epochs = 50,
    seed: app.Seed = 0,
    output: app.Output = "keras-sae-train",
    overwrite: app.Overwrite = False,
    family: model_options.Family = "shallow",
    sparsity: model_options.Sparsity = None,
    k: model_options.K = None,
    factor: model_options.Factor = None,
    target: model_options.Target = None,
    units: model_options.Units = None,
    tied: model_options.Tied = None,
    corruption: model_options.Corruption = None,
    learning_rate: app.LearningRate = 5e-3,
    batch_size: app.BatchSize = 64,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Add PCA and other baselines.")
    ] = False,
    report: app.Report = False,
    export_to: app.Export = None,
) -> None:
    """Train one model with the given settings."""
    loading.check_options(context)
    chosen = model_options.read_model_options(
        family, sparsity, k, factor, target, units, tied, corruption
    )
    if len(chosen.families) > 1 or len(chosen.kinds) > 1:
        raise ValueError(
            "`family` and `sparsity` must each be one name. Received: --family "
            f"{family} --sparsity {sparsity}. Only `keras-sae tune` accepts lists."
        )
    [family], [kind] = chosen.families, chosen.kinds
    positive_number("learning_rate", learning_rate)
    folder = app.RunFolder(context, output, "table.csv", overwrite)
    if folder.finished:
        print_results(folder)
        if not report and export_to is None:
            return
    splits = loading.load_splits(
        dataset, data, label, app.split_list(columns), validation
    )
    widths = 64 if chosen.units is None else chosen.units
    *_, code = building_blocks.layer_units(widths)
    defaults = {"factor": 3e-3, "k": max(1, code // 8)}
    settings = {
        name: value
        for name, value in (defaults | chosen.settings).items()
        if name in families.KINDS[kind]
    }
    options = chosen.options | ({"beta": BETA} if family == "variational" else {})
    model = family, splits.shape, widths, families.make_sparsity(kind, settings)
    build = presets.builder(learning_rate, families.build, *model, **options)
    preset = presets.Preset({family: build})
    run = Run(folder, splits, preset, epochs, batch_size, (seed,))
    if not folder.finished:
        run.train(baselines)
    if report:
        run.write_report()
    if export_to is not None:
        saved = folder.path / f"{file_stem(family, seed)}.keras"
        export_model(load_model(saved), export_to, splits)
