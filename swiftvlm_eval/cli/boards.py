"""Commands on results: `leaderboard`, `records`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from swiftvlm_eval.cli.board_table import print_board
from swiftvlm_eval.cli.terminal import console, errors, fail, print_whole


def leaderboard_command(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IN...",
            help="Folders or files: records, or what lmms_eval wrote to --output_path. None with --published alone.",
            exists=True,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "--output_path", help="Folder for the pages; created if needed.")
    ] = None,
    site: Annotated[
        Path | None,
        typer.Option(
            "--site",
            metavar="DIR",
            help="In place of --out: a folder for a static host, with the records, leaderboard.json, its schema and a "
            "feed; new, empty, or such a folder.",
        ),
    ] = None,
    address: Annotated[
        str, typer.Option("--address", help="Where the site will stand (https://host/path/), for links of its feed.")
    ] = "",
    published: Annotated[
        list[Path] | None,
        typer.Option(
            "--published",
            help="YAML with a paper's numbers, or `papers` for all that come along; repeatable. On own pages.",
        ),
    ] = None,
    include_limited: Annotated[
        bool, typer.Option("--include-limited", help="Also show runs with --limit or failed documents, labelled.")
    ] = False,
    benchmarks: Annotated[
        Path | None,
        typer.Option("--benchmarks", help="Benchmark table to use instead of the shipped one.", exists=True),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 if anything was left out.")] = False,
) -> None:
    """Build the leaderboard pages from run records or plain lmms-eval output.

    One page a model and setting: scores and percent of the vanilla run with 95 % intervals, FLOPs, tokens, times; as
    Markdown, CSV, JSON, pictures and one HTML page that works from disk. Run lmms_eval with --log_samples: without
    per-sample files there are no intervals. A vanilla run of the same model, dtype and image mode is the denominator.
    """
    from swiftvlm_eval.joining.site import build_site
    from swiftvlm_eval.leaderboard import build
    from swiftvlm_eval.results import load_benchmarks

    try:
        target = _target(out, site, address)
        table = None if benchmarks is None else load_benchmarks(benchmarks)
        builder = build if site is None else partial(build_site, address=address)
        report = builder(
            inputs or [], target, published=_tables(published or ()), include_limited=include_limited, benchmarks=table
        )
    except ValueError as error:
        fail(error)
    for problem in report.problems:
        kind = "[red]refused[/]" if problem.refused else "[yellow]left out or noted[/]"
        errors.print(f"{kind} {escape(problem.file)}: {escape(problem.reason)}", soft_wrap=True)
    for board in report.boards:
        print_board(board)
    if site is not None:
        console.print(f"wrote {len(report.files)} files; open {escape(str(site / 'index.html'))}", soft_wrap=True)
    else:
        for path in report.files:
            console.print(f"wrote {escape(str(path))}", soft_wrap=True)
    raise typer.Exit(1 if strict and report.problems else 0)


def _tables(asked: Sequence[Path]) -> list[Path]:
    """The published tables that are meant; a file of that name comes before the word `papers`.

    Raises:
        ValueError: there is no such file.
    """
    from swiftvlm_eval.leaderboard.compute.paper_table import shipped_tables

    found: list[Path] = []
    for path in asked:
        if not path.is_file() and str(path) != "papers":
            raise ValueError(f"published={str(path)!r}: no such file; allowed are YAML files, or papers")
        found += [path] if path.is_file() else shipped_tables()
    return list(dict.fromkeys(found))


def _target(out: Path | None, site: Path | None, address: str) -> Path:
    """The folder to be written.

    Raises:
        ValueError: none or two are given, or an address without a site.
    """
    if (out is None) == (site is None):
        raise ValueError(f"out={out}, site={site}: allowed is one of --out and --site")
    if address and site is None:
        raise ValueError(f"address={address!r}: allowed with --site alone")
    target = out or site
    assert target is not None
    return target


def records_command(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Folders or files.", exists=True)],
) -> None:
    """List runs with their status: complete, limited, partial or unverified, and why.

    Only complete runs (and unverified ones, whose per-sample files or description are missing) enter a leaderboard by
    themselves. `?` stands for documents that nothing counted, because there is no per-sample file.
    Exit status 1 if a file is broken or not a record.
    """
    from swiftvlm_eval.leaderboard.render.names import tidy_problems
    from swiftvlm_eval.leaderboard.render.text import plain, shown_name
    from swiftvlm_eval.results import load_records

    try:
        runs, problems = load_records(inputs)
    except ValueError as error:
        fail(error)
    unlogged = any(task.answered is None for run in runs for task in run.record.tasks.values())
    caption = "?: not known without a per-sample file" if unlogged else None
    table = Table("file", "model", "method", "budget", "documents", "status", "why", box=SIMPLE, caption=caption)
    for run in runs:
        record = run.record
        documents = ", ".join(
            f"{name} {'?' if task.answered is None else task.answered}/{task.expected}"
            for name, task in sorted(record.tasks.items())
        )
        budget = "-" if record.method.budget is None else f"{100 * record.method.budget:.1f} %"
        name = shown_name(record.method.name or record.model.lmms_eval_model)
        model = shown_name(record.model.pretrained or "-")
        cells = (run.path.name, model, name, budget, documents, record.status, "; ".join(record.status_reasons))
        table.add_row(*(escape(plain(cell)) for cell in cells))
    if runs:
        print_whole(table)
    unfinished = sorted(path for folder in inputs for path in folder.rglob("partial/*.jsonl") if path.is_file())
    for path in unfinished:
        answers = len(path.read_bytes().splitlines())
        console.print(
            f"unfinished {escape(plain(path.stem))}: {answers} answers stored; the same sweep goes on from there"
        )
    for problem in tidy_problems(problems):
        errors.print(f"[red]refused[/] {escape(problem.file)}: {escape(problem.reason)}", soft_wrap=True)
    if not (runs or unfinished or problems):
        fail(ValueError(f"{', '.join(map(str, inputs))}: neither records nor output of lmms-eval"))
    raise typer.Exit(1 if problems else 0)


def import_command(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS...", help="<stamp>_results.json of lmms-eval.", exists=True, dir_okay=False),
    ],
    out: Annotated[Path, typer.Option("--out", "--output_path", help="Folder for the records; created if needed.")],
) -> None:
    """Turn lmms-eval output into run records with their per-sample files; an existing record is never changed."""
    from swiftvlm_eval.results import import_run, write_record

    for path in results:
        try:
            written = write_record(*import_run(path), out)
        except ValueError as error:
            fail(error)
        console.print(f"wrote {escape(str(written))}", soft_wrap=True)
