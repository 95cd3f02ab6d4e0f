"""Options that define a model, with the same meaning in every command."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from keras_sae.cli.app import split_list
from keras_sae.layers import MaskingNoise
from keras_sae.models.families import FAMILIES, KINDS
from keras_sae.utils.validation import known_name

Family = Annotated[
    str, typer.Option(help=f"{', '.join(FAMILIES)}. `tune` takes a list.")
]
Sparsity = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(KINDS)}. `tune` takes a list. Default: l1, or l1,kl,top_k "
        "in `tune`; none for a variational model."
    ),
]
K = Annotated[
    int | None,
    typer.Option(
        help="Active units per row, for top_k, batch_top_k, matryoshka and, as a "
        "target, jump_relu. Default: an eighth of the units, but no target for "
        "jump_relu; `tune` searches it."
    ),
]
Factor = Annotated[
    float | None,
    typer.Option(
        help="Weight of the penalty, for l1, kl, jump_relu and gated. Default: 0.003; "
        "`tune` searches it."
    ),
]
Target = Annotated[
    float | None,
    typer.Option(
        help="Target mean activation, for kl, or fraction of rows in which a unit is "
        "active, for lifetime. Default: 0.05; `tune` searches it."
    ),
]
Units = Annotated[
    str | None,
    typer.Option(
        help="Width of the code, or of all layers with the code last, such as 128,64. "
        "Default: 64; `tune` searches it."
    ),
]
Tied = Annotated[
    bool | None,
    typer.Option(
        "--tied/--untied",
        help="Whether the decoder shares the encoder's weights. Default: untied; "
        "`tune` searches it.",
    ),
]
Corruption = Annotated[
    float | None,
    typer.Option(help="Fraction of values that are set to 0 in training (denoising)."),
]


@dataclass(frozen=True)
class ModelOptions:
    """The chosen families and sparsities, and the settings that were given.

    `settings` are arguments of the sparsities, and `options` those of the factories.
    """

    families: list[str]
    kinds: list[str]
    units: int | list[int] | None
    settings: dict[str, float]
    options: dict[str, Any]


def read_model_options(
    family: str,
    sparsity: str | None,
    k: int | None,
    factor: float | None,
    target: float | None,
    units: str | None,
    tied: bool | None,
    corruption: float | None,
    default: Sequence[str] = ("l1",),
) -> ModelOptions:
    """Check and collect the options, which are None if they were not given."""
    families = split_list(family) or []
    for name in families:
        known_name("family", name, FAMILIES)
    fallback = ["none"] if families == ["variational"] else list(default)
    kinds = split_list(sparsity) or fallback
    for name in kinds:
        known_name("sparsity", name, KINDS)
    settings: dict[str, float] = {}
    given = {"k": k, "factor": factor, "target": target}
    other_names = {"k": "target_l0", "target": "fraction"}
    for option, value in given.items():
        if value is None:
            continue
        arguments = {option, other_names.get(option, option)}
        fitting = [kind for kind in KINDS if arguments & set(KINDS[kind])]
        if not set(fitting) & set(kinds):
            raise ValueError(
                f"`{option}` has no effect on the sparsity {', '.join(kinds)}. "
                f"Received: --{option} {value:g}. Remove it, or choose --sparsity "
                f"{', '.join(fitting)}."
            )
        settings |= dict.fromkeys(arguments, value)
    try:
        widths = [int(width) for width in split_list(units) or ()]
    except ValueError as error:
        raise ValueError(
            "`units` must be one integer, or several separated by commas. "
            f"Received: --units {units!r}. For example, use --units 128,64."
        ) from error
    if len(widths) > 1 and "shallow" in families:
        raise ValueError(
            f"A shallow model has one width. Received: --units {units} with --family "
            f"{family}. Use one number, or --family deep."
        )
    options: dict[str, Any] = {}
    if tied:
        if "variational" in families:
            raise ValueError(
                "A variational model has no tied weights. Received: --tied with "
                f"--family {family}. Remove one of them."
            )
        options["tied"] = True
    if corruption is not None:
        if not 0 < corruption < 1:
            raise ValueError(
                "`corruption` must lie between 0 and 1. Received: --corruption "
                f"{corruption:g}. A usual value is 0.3."
            )
        options["corruption"] = MaskingNoise(corruption)
    width = widths[0] if len(widths) == 1 else widths or None
    return ModelOptions(families, kinds, width, settings, options)
