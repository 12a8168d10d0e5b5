"""Commands on the way in: `submit-check`, `wanted`; and out: `export`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from swiftvlm_eval.cli.options import BudgetsOption, MethodsOption, names, whole_numbers
from swiftvlm_eval.cli.terminal import errors, fail

if TYPE_CHECKING:
    from swiftvlm_eval.joining.wanted import DefaultGrid, WantedCell, WantedTable
    from swiftvlm_eval.results.store import StoredRun
    from swiftvlm_eval.sweep import Configuration

BASELINES = ("random",)
"""Methods shown beside every submitted row."""


def submit_check_command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Records (*.record.json) with their samples (*.samples.jsonl.gz) and, for a method of your own, its "
            "source (*.py); or folders of such.",
        ),
    ],
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            "--reference",
            help="Folder with the records that are there; repeatable. Default: leaderboards, if it is there.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Check records as a stranger's submission: is everything there, and may it stand beside the other rows?

    Schema, hashes and number of the samples, all documents of known benchmarks, scores and token counts that the
    samples bear out, a registered method or its source (hashed, never run), a vanilla run of the same model and
    setting, no test missing that the rows beside it have, no secrets or folders of a machine, no copy of a record.
    Prints the new rows beside vanilla, the first and random of their budget as Markdown, and on standard error one
    line for each reason to refuse. Exit status 1 if anything is refused.
    """
    from swiftvlm_eval.joining.comment import comment
    from swiftvlm_eval.joining.submission import check_submission
    from swiftvlm_eval.pruning.registry import method_names

    try:
        found = check_submission(
            files,
            reference or _default_folders(),
            registered=method_names(),
            now=datetime.now(UTC),
            wrong_options=_wrong_options,
        )
        text = comment(found, baselines=BASELINES)
    except (ValueError, OSError) as error:
        fail(error)
    typer.echo(text)
    for refusal in found.findings.refusals:
        errors.print(f"[red]refused[/] {escape(refusal.line)}", soft_wrap=True, highlight=False)
    raise typer.Exit(0 if found.ok else 1)


def _wrong_options(name: str, options: Mapping[str, Any]) -> str:
    """What a registered method says against options; empty if nothing. The code that runs is this package's own."""
    from swiftvlm_eval.pruning.registry import make_method

    if any(isinstance(value, str) and ":" in value for value in options.values()):
        return "a text with a colon, which may name a file"
    try:
        make_method(name, options)
    except (ValueError, TypeError, OSError) as error:
        return " ".join(str(error).split())
    return ""


def _default_folders() -> list[Path]:
    """The committed records, where the working directory has them."""
    default = Path("leaderboards")
    return [default] if default.is_dir() else []


def wanted_command(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IN...", help="Folders with records. Default: leaderboards, if it is there.", exists=True
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint, as records name it. Default: the three that have a table.")
    ] = None,
    methods: MethodsOption = "all",
    budgets: BudgetsOption = "",
    benchmarks: Annotated[
        str, typer.Option(help="A named set (paper, paper_next, paper_official, demo) or keys of columns.")
    ] = "",
    seeds: Annotated[str, typer.Option(help="Comma-separated; of methods that draw at random.")] = "0",
    grid_file: Annotated[
        Path | None,
        typer.Option(
            "--grid", metavar="FILE", help="A grid as for the sweep, in place of methods, budgets and seeds."
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="A Markdown page instead of a shell script.")] = False,
) -> None:
    """List what the tables lack: methods x budgets x benchmarks without a record, each with the sweep that runs it.

    Every data type, revision and image mode in which records of a model exist is a table of its own. Budgets that a
    method cannot meet on the model are named apart. The output is a shell script; nothing is run here.
    """
    from swiftvlm_eval.joining.wanted import DefaultGrid, default_grids, wanted_markdown, wanted_text
    from swiftvlm_eval.results.store import load_records

    try:
        runs, problems = load_records(inputs or _default_folders())
        known = {grid.model: grid for grid in default_grids()}
        given = [model] if model is not None else list(known)
        tables: list[WantedTable] = []
        for name in given:
            usual = known.get(
                name, DefaultGrid(model=name, set="paper", budgets=("1/3",), visual_tokens=576, layers=32)
            )
            tables += _wanted_of(usual, runs, (methods, budgets, seeds), grid_file, benchmarks)
    except (ValueError, TypeError, OSError) as error:
        fail(error)
    for problem in problems:
        errors.print(f"[yellow]not read[/] {escape(problem.file)}: {escape(problem.reason)}", soft_wrap=True)
    typer.echo((wanted_markdown if markdown else wanted_text)(tables))


def _wanted_of(
    usual: "DefaultGrid",
    runs: "Sequence[StoredRun]",
    typed: tuple[str, str, str],
    grid_file: Path | None,
    benchmarks: str,
) -> "list[WantedTable]":
    """The tables of one model.

    Raises:
        ValueError: an unknown method, budget or benchmark.
    """
    from swiftvlm_eval.joining.wanted import wanted_tables
    from swiftvlm_eval.results.benchmarks import shipped_benchmarks
    from swiftvlm_eval.sweep.configurations import make_grid, parse_methods
    from swiftvlm_eval.sweep.grid_file import read_grid

    table = shipped_benchmarks()
    methods, budgets, seeds = typed
    if grid_file is not None:
        grid = list(read_grid(grid_file).grid)
    else:
        shares = names("budgets", budgets) if budgets else list(usual.budgets)
        grid = make_grid(parse_methods(methods), shares, whole_numbers("seeds", seeds))
    asked = names("benchmarks", benchmarks) if benchmarks else [usual.set]
    keys = [key for name in asked for key in table.sets.get(name, (name,))]
    return wanted_tables(usual.model, [_wanted_cell(cell, usual) for cell in grid], keys, runs, table)


def _wanted_cell(cell: "Configuration", usual: "DefaultGrid") -> "WantedCell":
    from swiftvlm_eval.joining.wanted import WantedCell
    from swiftvlm_eval.pruning.registry import make_method

    method = make_method(cell.method, cell.options)
    options = ";".join(f"{key}={value}" for key, value in cell.options.items())
    typed = f"{cell.method}[{options}]" if options else cell.method
    impossible = usual.refusal(typed, cell.budget)
    try:
        method.plan(usual.visual_tokens, usual.layers, cell.budget)
    except ValueError as error:
        impossible = " ".join(str(error).split())
    seed = cell.seed if method.draws else None
    return WantedCell(typed, method.name, method.options, cell.budget, seed, impossible)


def export_command(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Folders or files: records.", exists=True)],
    out: Annotated[Path, typer.Option("--out", "--output_path", help="Folder that gets `data/`; created if needed.")],
    organization: Annotated[str, typer.Option("--organization", help="Who ran the records.")],
    relationship: Annotated[
        str,
        typer.Option(
            "--relationship", help="Of the organization to the model: first_party, third_party, collaborative, other."
        ),
    ] = "third_party",
) -> None:
    """Write complete records in the schema of Every Eval Ever (aggregate level, version 0.3.0).

    One JSON file a record, under data/swiftvlm-eval/<developer>/<model>/. Method and budget stand in the names of
    model and evaluations, so that a pruned score never passes for the model's own. Exit status 1 if a record was left
    out.
    """
    from swiftvlm_eval.joining.every_eval_ever import export_records
    from swiftvlm_eval.leaderboard.render.text import plain
    from swiftvlm_eval.results.benchmarks import shipped_benchmarks
    from swiftvlm_eval.results.store import load_records

    try:
        runs, unread = load_records(inputs)
        files, problems = export_records(
            runs, out, shipped_benchmarks(), organization=organization, relationship=relationship
        )
    except ValueError as error:
        fail(error)
    for problem in [*unread, *problems]:
        errors.print(f"[yellow]left out[/] {escape(plain(f'{problem.file}: {problem.reason}'))}", soft_wrap=True)
    typer.echo(f"wrote {len(files)} files below {out / 'data'}")
    raise typer.Exit(1 if unread or problems or not files else 0)
