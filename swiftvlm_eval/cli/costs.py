"""The command on what methods cost by formula: `flops`."""

import json
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from swiftvlm_eval.cli.options import BudgetsOption, MethodsOption
from swiftvlm_eval.cli.terminal import fail, print_whole


def flops_command(
    methods: MethodsOption = "all",
    budgets: BudgetsOption = "192,128",
    model: Annotated[str | None, typer.Option(help="Take the shape from this checkpoint's config.")] = None,
    shape: Annotated[str, typer.Option(help="Of the decoder: hidden, intermediate, layers, heads[, kv_heads].")] = "",
    visual_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="N, visual tokens that enter the decoder; by default the checkpoint's, or 576."),
    ] = None,
    text_tokens: Annotated[int, typer.Option(min=1, help="n_t; 70 reproduces the papers.")] = 70,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prefill FLOPs of methods at budgets, by formula: no weights needed.

    Counted as in the pruning papers: per layer 4nd^2 + 2n^2d + 3ndm, one per multiply-accumulate. `selection` is what
    this code executes to choose, score and merge; `paper` has 70 text tokens and what the method's own paper counts.
    35 text tokens stand before the image, the others ask. `paper` rows take the published schedule, `exact` rows meet
    the budget within half a token. Exit status 1 if a method cannot meet a budget.
    """
    from swiftvlm_eval.efficiency.table import flops_rows
    from swiftvlm_eval.sweep import parse_methods

    try:
        rows = flops_rows(parse_methods(methods), budgets.split(","), model, shape, visual_tokens, text_tokens)
    except ValueError as error:
        fail(error)
    status = 1 if any(row["tflops"] is None for row in rows) else 0
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        raise typer.Exit(status)
    table = Table(box=SIMPLE)
    numbers = ("mean", "layers T", "selection T", "total T", "paper T")
    for heading in ("method", "budget", "schedule", "rows per layer", *numbers, "selection, in millions", "note"):
        table.add_column(heading, justify="right" if heading in numbers else "left")
    for row in rows:
        if row["tflops"] is None:
            table.add_row(row["method"], row["budget"], row["schedule"], *[""] * 7, escape(row["note"]))
            continue
        segments = " ".join(f"{rows_}x{layers}" for rows_, layers in row["rows_per_layer"])
        selection: dict[str, float] = row["selection_tflops"]
        items = ", ".join(f"{item.replace('_', ' ')} {1e6 * value:.3g}" for item, value in selection.items())
        sums = (row["layers_tflops"], sum(selection.values()), row["tflops"], row["paper_tflops"])
        cells = (row["method"], row["budget"], row["schedule"], segments, f"{row['mean_visual_tokens']:.1f}")
        table.add_row(*cells, *(f"{value:.4f}" for value in sums), items, escape(row["note"]))
    print_whole(table)
    raise typer.Exit(status)
