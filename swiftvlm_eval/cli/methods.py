"""The command `methods`: what there is, and all that one method says of itself."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from swiftvlm_eval.cli.terminal import console, fail, folding_table

if TYPE_CHECKING:
    from swiftvlm_eval.pruning.contract import PruningMethod
    from swiftvlm_eval.pruning.schedule import Plan

WIDE = 100
"""Columns of a terminal from which names and titles stand side by side."""
FEW = 4
"""More choices of boundaries than these are told as a range."""


def methods_command(
    only: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="METHOD...",
            help="Tell all of these: name, name[option=value;option=value], a+b, or your own as "
            "path/to/file.py:ClassName or package.module:ClassName. WARNING: that file is run. Default: a table "
            "of all.",
        ),
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option(
            "--budgets",
            "--budget",
            help="Plans for these, comma-separated: shares of the visual tokens (1/3, 33%), counts of a stated whole "
            "(640/2880), or counts of 576 (192). By default 1/3.",
        ),
    ] = None,
    visual_tokens: Annotated[
        int | None,
        typer.Option(
            "--visual-tokens", "--visual_tokens", min=1, max=1_000_000, help="N of the plans; by default 576."
        ),
    ] = None,
    decoder_layers: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Decoder layers of the plans; by default 32.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list instead; of named methods with their `plans`.")
    ] = False,
) -> None:
    """List the pruning methods, or tell all of one: options, presets, and the plan for a budget layer by layer.

    Boundary b is the place after layer b; 0 is the decoder's input. `keep` leaves the position ids of the rows,
    `compact` renumbers them. No weights are needed. A budget that a method cannot meet is refused with status 1.
    """
    from swiftvlm_eval.pruning.describe import describe, outline
    from swiftvlm_eval.pruning.registry import known_names, make_method

    try:
        given = {"budgets": budgets, "visual_tokens": visual_tokens, "decoder_layers": decoder_layers}
        if not only and (alone := next((name for name, value in given.items() if value is not None), None)):
            raise ValueError(f"{alone}={given[alone]!r}: belongs to the plan of a method; name one")
        with redirect_stdout(sys.stderr):  # whatever code from outside prints
            methods = [make_method(name) for name in only or known_names()]
            told = [describe(method) if only or as_json else outline(method) for method in methods]
            plans = [_plans(method, budgets, visual_tokens, decoder_layers) if only else [] for method in methods]
        text = _json(told, plans if only else None) if as_json else ""
    except (ValueError, TypeError, RuntimeError, OSError, NameError) as error:
        fail(ValueError(" ".join(str(error).split())))
    if as_json:
        typer.echo(text)
    elif only:
        for method, facts, own in zip(methods, told, plans, strict=True):
            _tell(method, facts, own)
    else:
        console.print(_listing(told))


def _plans(
    method: "PruningMethod", budgets: str | None, visual_tokens: int | None, decoder_layers: int | None
) -> list[tuple[str, float, "Plan"]]:
    """Budget as typed, as a share, and its plan."""
    from swiftvlm_eval.pruning.budget import REFERENCE_VISUAL_TOKENS, parse_budget
    from swiftvlm_eval.pruning.describe import REFERENCE_LAYERS

    count, layers = visual_tokens or REFERENCE_VISUAL_TOKENS, decoder_layers or REFERENCE_LAYERS
    shares = [(text.strip(), parse_budget(text, count)) for text in ("1/3" if budgets is None else budgets).split(",")]
    return [(text, share, method.plan(count, layers, share)) for text, share in shares]


def _json(told: Sequence[dict[str, Any]], plans: Sequence[list[tuple[str, float, "Plan"]]] | None) -> str:
    """The list as JSON; what JSON does not know (a path) is written as text."""
    from swiftvlm_eval.pruning.describe import steps_of

    if plans is not None:
        told = [
            {
                **facts,
                "plans": [
                    {
                        "budget": typed,
                        "share": share,
                        "visual_tokens": plan.num_visual,
                        "decoder_layers": plan.num_layers,
                        "adaptive": plan.adaptive,
                        "mean_visual_tokens": plan.mean_visual_tokens,
                        "rows_per_layer": plan.rows_per_layer,
                        "steps": steps_of(plan),
                    }
                    for typed, share, plan in own
                ],
            }
            for facts, own in zip(told, plans, strict=True)
        ]
    return json.dumps(told, indent=2, default=str, allow_nan=False)


# the table of all


def _listing(told: Iterable[dict[str, Any]]) -> Table:
    """One row a method; in a narrow terminal the title stands below the name."""
    wide = console.width >= WIDE
    names = ("method", "title") if wide else ("method, title",)
    table = folding_table(*names, "acts", "positions", "served", "what it does")
    table.columns[-4].max_width, table.columns[-3].max_width = 18 if not wide else 28, 9  # room for the summary
    table.caption = (
        "after 2: when two layers of a decoder of 32 have run; `;` parts the choices for low and high budgets; "
        "served: whether `export-embeddings` can hand its rows to a serving engine"
    )
    for facts in told:
        own = (
            (facts["name"], facts["title"]) if wide else ("\n".join((_plain(facts["name"]), _plain(facts["title"]))),)
        )
        served = "yes" if facts["servable"] else "no"
        cells = [*own, _acts(facts), facts["position_rule"], served, facts["summary"]]
        table.add_row(*(escape("\n".join(map(_plain, cell.splitlines()))) for cell in cells))
    return table


def _acts(facts: dict[str, Any]) -> str:
    """Where a method acts, in words."""
    schedules = facts["boundaries_by_budget"]
    if not schedules:
        return "nowhere"
    if len(schedules) > FEW:
        return f"{_places(facts['boundaries'])}, by budget"
    inside = "tower_rows" in facts["needs"] and schedules == [[0]]
    return "inside the vision tower" if inside else "; ".join(map(_places, schedules)).replace("; after ", "; ")


def _places(boundaries: Sequence[int]) -> str:
    """`before the decoder, after 3 to 5, 9`."""
    runs: list[list[int]] = []
    for boundary in boundaries:
        if boundary and runs and boundary == runs[-1][-1] + 1:
            runs[-1].append(boundary)
        elif boundary:
            runs.append([boundary])
    texts = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    after = [f"after {', '.join(texts)}"] if texts else []
    return ", ".join([*(["before the decoder"] if 0 in boundaries else []), *after])


# all of one method


def _tell(method: "PruningMethod", facts: dict[str, Any], plans: Sequence[tuple[str, float, "Plan"]]) -> None:
    """Prints everything that is known of a method."""
    from swiftvlm_eval.pruning.describe import parts_of

    parts = parts_of(method)
    if len(parts) > 1:
        _heading(facts)
        _print_facts(facts)
    for part, own in zip(parts, facts["parts"] or [facts], strict=True):
        _heading(own)
        _print_facts(own)
        _print_docstring(part)
        _print_options(own)
        _print_presets(own)
    for typed, share, plan in plans:
        _print_plan(typed, share, plan, [part.name for part in parts])


def _heading(facts: dict[str, Any]) -> None:
    console.print(Text(_plain(f"{facts['title']} ({facts['name']})"), style="bold"))


def _print_facts(facts: dict[str, Any]) -> None:
    """Two columns: what, and what is said of it."""
    from swiftvlm_eval.models.families import FAMILIES
    from swiftvlm_eval.pruning.describe import REFERENCE_LAYERS, lacking

    families = [
        FAMILIES[name].title if not missing else f"NOT {FAMILIES[name].title} (lacks {', '.join(missing)})"
        for name, missing in lacking(frozenset(facts["needs"])).items()
    ]
    rows = {
        "source": facts["source"],
        "code": facts["code"],
        "in short": facts["summary"],
        "acts": f"{_acts(facts)} (of {REFERENCE_LAYERS} layers)" if facts["boundaries"] else _acts(facts),
        "positions": facts["position_rule"],
        "needs": ", ".join(facts["needs"]) or "nothing beyond rows and attention",
        "families": ", ".join(families),
        "merges rows": "yes" if facts["merges_rows"] else "no",
        "rows depend on the image": "yes" if facts["adaptive"] else "no",
        "draws at random": "yes" if facts["draws"] else "no",
        "served by engines": "yes, with `export-embeddings`"
        if facts["servable"]
        else f"no: {facts['not_servable_because']}",
    }
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for what, said in rows.items():
        grid.add_row(what, escape(_plain(said)))
    console.print(Padding(grid, (0, 0, 1, 2)))


def _print_docstring(method: "PruningMethod") -> None:
    """The module's docstring and the beginning of the class's, wrapped; lists keep their lines."""
    from swiftvlm_eval.pruning.describe import class_docstring, module_docstring

    for text in filter(None, (module_docstring(method), class_docstring(method))):
        for paragraph in re.split(r"\n\s*\n", text):
            lines = paragraph.splitlines()
            listed = any(re.match(r"\s|[-*] |\d+[.)] ", line) for line in lines)
            for said in lines if listed else [paragraph]:
                console.print(Padding(Text(_plain(said)), (0, 0, 0, 2)))
            console.print()


def _print_options(facts: dict[str, Any]) -> None:
    """One row an option; what this method was given stands beside the default."""
    console.print("options, written behind the name as \\[option=value;option=value], layers and counts as 3:10:14")
    changed = any(option["value"] != option["default"] for option in facts["options"])
    table = folding_table("option", "allowed", "default", *(["here"] if changed else []), "meaning")
    for option in facts["options"]:
        default = "required" if option["required"] else _value(option["default"])
        here = [_value(option["value"])] if changed else []
        cells = (option["name"], option["type"], default, *here, option["meaning"] or "(its docstring does not say)")
        table.add_row(*(escape(_plain(cell)) for cell in cells))
    console.print(table)


def _value(value: Any) -> str:
    """As it is typed; `none` is what an option left out may be."""
    if isinstance(value, tuple | list):
        return ":".join(map(str, value)) or "(empty)"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _print_presets(facts: dict[str, Any]) -> None:
    """Published rows of 576 per stage, kept and merged."""
    from swiftvlm_eval.pruning.budget import REFERENCE_VISUAL_TOKENS

    presets = [("exact", preset) for preset in facts["presets"]]
    presets += [("paper", preset) for preset in facts["paper_presets"]]
    if not presets:
        console.print("presets: none\n")
        return
    whole = REFERENCE_VISUAL_TOKENS
    console.print(f"presets, rows of {whole} after each stage (kept + merged)")
    table = folding_table("budget", "schedule", "rows")
    for schedule, preset in presets:
        rows = (f"{row['kept']}{' + ' + str(row['merged']) if row['merged'] else ''}" for row in preset["rows"])
        table.add_row(f"{whole * preset['budget']:.4g}/{whole}", schedule, ", ".join(rows))
    console.print(table)


def _print_plan(typed: str, share: float, plan: "Plan", parts: Sequence[str]) -> None:
    """Runs of layers with equal rows, the edits between them, and the mean."""
    from swiftvlm_eval.pruning.budget import budget_in_words
    from swiftvlm_eval.pruning.describe import steps_of

    words = f"budget {_plain(typed)}: {budget_in_words(share, plan.num_visual)}, {plan.num_layers} decoder layers"
    console.print(Text(words))
    several = len(parts) > 1
    table = Table(box=SIMPLE)
    for heading in ("layers", "rows", "edit", *(["by"] if several else []), "scored by", "kept", "merged"):
        right = heading in ("rows", "kept", "merged")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for step in steps_of(plan):
        first, last = step["layers"]
        layers, stage = f"{first}-{last}" if last > first else str(first), step["stage"]
        if stage is None:
            table.add_row(layers, str(step["rows"]))
            continue
        place = f"after layer {stage['boundary']}" if stage["boundary"] else "before the decoder"
        scorer = stage["scored_by_layer"]
        by = [_plain(parts[stage["part"]])] if several else []
        cells = (place, *by, "-" if scorer is None else f"layer {scorer}", str(stage["kept"]), str(stage["merged"]))
        table.add_row(layers, str(step["rows"]), *map(escape, cells))
    console.print(table)
    console.print(Text(_mean(share, plan)))
    console.print()


def _mean(share: float, plan: "Plan") -> str:
    """The mean beside the budget, and whether it holds for every image."""
    mean, off = plan.mean_visual_tokens, plan.mean_visual_tokens - share * plan.num_visual
    said = [f"mean {mean:.1f} of {plan.num_visual} rows a layer ({mean / plan.num_visual:.4g})"]
    if abs(off) > 0.5 + 1e-9:
        said.append(f"NOT the budget: {abs(off):.1f} rows {'above' if off > 0 else 'below'} it")
    if not plan.stages and share < 1:
        said.append("no stage, so no budget changes it")
    said.append("adaptive: expected, the image decides" if plan.adaptive else "not adaptive: the same for every image")
    return "; ".join(said)


def _plain(text: str) -> str:
    """In one line, without control characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())
