"""Commands that run a model: `sweep`, `check`, `demo-data`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from swiftvlm_eval.cli.dry_run import dry_run as preview_sweep
from swiftvlm_eval.cli.options import (
    AttnOption,
    BatchSizeOption,
    BudgetsOption,
    DeviceOption,
    DtypeOption,
    FeaturesFolderOption,
    FeaturesMemoryOption,
    FeaturesOption,
    ImageModeOption,
    LimitOption,
    LookAheadOption,
    MethodsOption,
    ModelOption,
    RevisionOption,
    TasksOption,
    names,
    whole_numbers,
)
from swiftvlm_eval.cli.sweeping import exit_status, run_sweep
from swiftvlm_eval.cli.terminal import console, fail, folding_table
from swiftvlm_eval.runs.batch_size import read_batch_size

if TYPE_CHECKING:
    from swiftvlm_eval.sweep import Configuration


def sweep_command(
    context: typer.Context,
    model: ModelOption,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "--output_path", help="Folder for records; a second call goes on where the first one stopped."
        ),
    ],
    methods: MethodsOption = "all",
    budgets: BudgetsOption = "192,128",
    tasks: TasksOption = "paper",
    seeds: Annotated[str, typer.Option(help="Comma-separated; methods that draw at random run once for each.")] = "0",
    grid_file: Annotated[
        Path | None,
        typer.Option(
            "--grid",
            metavar="FILE",
            help="The grid as a YAML list instead of methods, budgets and seeds, for options that go with budgets of "
            "their own. An entry has `method` (one, with options as above), `budgets` (a list; none for vanilla) "
            "and, for a method that draws, `seeds` (a list, by default [0]). See examples/ablation.yaml.",
        ),
    ] = None,
    shard: Annotated[
        str, typer.Option(help="K/N runs the K-th of N equal parts of the grid, for jobs that share the folder.")
    ] = "1/1",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be run and for how long, from a few documents; run nothing."),
    ] = False,
    limit: LimitOption = None,
    batch_size: BatchSizeOption = "1",
    look_ahead: LookAheadOption = None,
    revision: RevisionOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    attn: AttnOption = "sdpa",
    image_mode: ImageModeOption = "pad",
    features: FeaturesOption = "auto",
    features_memory: FeaturesMemoryOption = 4.0,
    features_folder: FeaturesFolderOption = 16.0,
) -> None:
    """Run methods x budgets on one loaded model through lmms-eval, one record per configuration.

    A configuration whose record is there is not run again, and an interrupted one goes on from its stored answers. A
    budget that a method cannot meet is refused with the feasible range; the others run. Any number of sweeps may share
    one folder, also under `accelerate launch` or `torchrun`: what another one is running is left to it. The exit
    status is 1 unless every configuration has its record in the end.

    \b
    A grid file is a YAML list such as
      - {method: vanilla}
      - {method: 'fastv[layers=3]', budgets: [1/3, 2/9]}
      - {method: random, budgets: [1/3], seeds: [0, 1, 2]}
    """  # noqa: D301 (click's sign that lines stay)
    from swiftvlm_eval.sweep import parse_shard
    from swiftvlm_eval.sweep.features import Wish

    loading: dict[str, Any] = {
        "revision": revision,
        "dtype": dtype,
        "device": device,
        "attn_implementation": attn,
        "image_mode": image_mode,
    }
    try:
        part = parse_shard(shard)
        if grid_file is not None:
            refuse_beside_grid(context, grid_file, {"methods": methods, "budgets": budgets, "seeds": seeds})
        grid, typed = asked_grid(grid_file, methods, budgets, seeds)
        asked: dict[str, Any] = {"budgets": typed, "limit": limit, "batch_size": read_batch_size(batch_size)}
        asked |= {"look_ahead": look_ahead, **loading}
        if dry_run:
            raise typer.Exit(0 if preview_sweep(model, out, grid[part], names("tasks", tasks), **asked) else 1)
        wish = Wish(features, features_memory, features_folder)
        outcomes = run_sweep(model, out, grid[part], names("tasks", tasks), features=wish, **asked)
    except typer.Exit:
        raise
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        fail(error)
    console.print(
        f"records in {escape(str(out / 'records'))}; `swiftvlm-eval leaderboard {escape(str(out))} --out DIR`"
    )
    raise typer.Exit(exit_status(outcomes))


def refuse_beside_grid(context: typer.Context, grid_file: Path, given: Mapping[str, str]) -> None:
    """Refuses options that a grid file replaces.

    Raises:
        ValueError: one of them was typed, too.
    """
    for name, value in given.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"{name}={value!r}: {grid_file} says which; allowed is one of --{name} and --grid")


def asked_grid(
    grid_file: Path | None, methods: str, budgets: str, seeds: str
) -> tuple[list["Configuration"], list[str]]:
    """The configurations of a grid file or of the options, and the budgets as typed.

    Raises:
        ValueError: malformed; the message names what.
    """
    from swiftvlm_eval.sweep import make_grid, parse_methods
    from swiftvlm_eval.sweep.grid_file import read_grid

    if grid_file is not None:
        found = read_grid(grid_file)
        return list(found.grid), list(found.budgets)
    typed = budgets.split(",")
    return make_grid(parse_methods(methods), typed, whole_numbers("seeds", seeds)), typed


def check_command(
    model: ModelOption,
    tasks: TasksOption = "refcoco,textvqa",
    samples: Annotated[
        int, typer.Option("--samples", "--limit", min=2, help="Documents per task; 200 settle the box frame.")
    ] = 200,
    out: Annotated[Path, typer.Option("--out", "--output_path", help="Folder for the check's output.")] = Path(
        "check"
    ),
    revision: RevisionOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Run a small unpruned check and tell whether the protocol is intact before the long runs begin.

    Gates: empty and unparsable answers, boxes as fractions, the right box frame ahead of the other, scores in the
    range of published runs. Exit status 1 if one fails.
    """
    from swiftvlm_eval.check.gates import check_samples, expectations, read_samples
    from swiftvlm_eval.results import read_record
    from swiftvlm_eval.sweep import Configuration

    try:
        vanilla, wanted = [Configuration("vanilla", 1.0)], names("tasks", tasks)
        outcomes = run_sweep(model, out, vanilla, wanted, limit=samples, revision=revision, dtype=dtype, device=device)
        record_file = outcomes[0].record
        if record_file is None:
            raise RuntimeError(outcomes[0].reason)
        family = read_record(record_file).model.family or ""
        answered = read_samples(out / "lmms_eval" / record_file.parent.name)
        gates = check_samples(family, answered, published=model in expectations()["checkpoints"])
    except (ValueError, RuntimeError, TypeError, KeyError, OSError) as error:
        fail(error)
    table = folding_table("task", "gate", "verdict", "seen", "what to do")
    colours = {"pass": "green", "warn": "yellow", "fail": "red"}
    for gate in gates:
        advice = "" if gate.verdict == "pass" else escape(gate.advice)
        verdict = f"[{colours[gate.verdict]}]{gate.verdict}[/]"
        table.add_row(escape(gate.task), escape(gate.what), verdict, escape(gate.seen), advice)
    console.print(table)
    raise typer.Exit(1 if any(gate.verdict == "fail" for gate in gates) else 0)


def demo_data_command(
    out: Annotated[Path, typer.Option("--out", "--output_path", help="Folder for the parquet files.")],
    split: Annotated[
        Literal["train", "val", "test"], typer.Option(help="Of the benchmark; their seeds never meet.")
    ] = "val",
    count: Annotated[int, typer.Option(min=1, help="Images per task; each has several questions.")] = 170,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other scenes.")] = 0,
) -> None:
    """Draw more of the demo benchmark's scenes and questions, in the schemas of the hub data sets."""
    from swiftvlm_eval.demo.data import generate_split
    from swiftvlm_eval.results.store import make_folder

    try:
        make_folder(out)
        for name, rows in generate_split(split, count, seed, out).items():
            console.print(f"wrote {rows} rows of {name} to {escape(str(out))}", soft_wrap=True)
    except ValueError as error:
        fail(error)
