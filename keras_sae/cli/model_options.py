"""Options of `keras-sae train` and `tune` that define a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from keras_sae.cli.app import split_list
from keras_sae.layers import MaskingNoise
from keras_sae.models.families import FAMILIES, KINDS
from keras_sae.utils.validation import known_name

Family = Annotated[
    str, typer.Option(help=f"{', '.join(FAMILIES)}. `tune` accepts a list.")
]
Sparsity = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(KINDS)}. `tune` accepts a list. Default: l1, or l1,kl,top_k "
        "in `tune`; none for a variational model."
    ),
]
K = Annotated[
    int | None,
    typer.Option(
        help="Active units per row for top_k, batch_top_k and matryoshka, or target L0 "
        "for jump_relu. Default: an eighth of the units (no target for jump_relu), or "
        "searched by `tune`."
    ),
]
Factor = Annotated[
    float | None,
    typer.Option(
        help="Weight of the penalty for l1, kl, jump_relu and gated. Default: 0.003, "
        "or searched by `tune`."
    ),
]
Target = Annotated[
    float | None,
    typer.Option(
        help="For kl: target mean activation. For lifetime: fraction of rows that "
        "activate a unit. Default: 0.05, or searched by `tune`."
    ),
]
Units = Annotated[
    str | None,
    typer.Option(
        help="Width of the code, or widths of all layers with the code last, such as "
        "128,64. Default: 64, or searched by `tune`."
    ),
]
Tied = Annotated[
    bool | None,
    typer.Option(
        "--tied/--untied",
        help="Whether the decoder shares the encoder's weights. Default: untied, but "
        "`tune` tries both.",
    ),
]
Corruption = Annotated[
    float | None,
    typer.Option(help="Fraction of values set to 0 in training, for denoising."),
]


@dataclass(frozen=True)
class ModelOptions:
    """Families and sparsities of models, and their settings.

    `settings` are arguments of the sparsities. `options` are arguments of the functions
    that build models.
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
    """Check and collect the options. An option is None if the user did not set it."""
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
                f"Received: --{option} {value:g}. Remove it, or set --sparsity to one "
                f"of {', '.join(fitting)}."
            )
        settings |= dict.fromkeys(arguments, value)
    try:
        widths = [int(width) for width in split_list(units) or ()]
    except ValueError as error:
        raise ValueError(
            "`units` must be one integer, or several integers separated by commas. "
            f"Received: --units {units!r}. For example, use --units 128,64."
        ) from error
    if len(widths) > 1 and "shallow" in families:
        raise ValueError(
            f"A shallow model has one width. Received: --units {units} with --family "
            f"{family}. Pass one number, or use --family deep."
        )
    options: dict[str, Any] = {}
    if tied:
        if "variational" in families:
            raise ValueError(
                "A variational model cannot have tied weights. Received: --tied with "
                f"--family {family}. Remove one of them."
            )
        options["tied"] = True
    if corruption is not None:
        if not 0 < corruption < 1:
            raise ValueError(
                "`corruption` must be between 0 and 1. Received: --corruption "
                f"{corruption:g}. A typical value is 0.3."
            )
        options["corruption"] = MaskingNoise(corruption)
    width = widths[0] if len(widths) == 1 else widths or None
    return ModelOptions(families, kinds, width, settings, options)
