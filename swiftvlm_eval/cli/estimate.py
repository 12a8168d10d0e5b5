"""The command `estimate`: memory and hours of a sweep on one GPU, by arithmetic."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from swiftvlm_eval.cli.options import BudgetsOption, MethodsOption, names
from swiftvlm_eval.cli.terminal import console, fail

if TYPE_CHECKING:
    from swiftvlm_eval.results.benchmarks import Benchmark

GROUNDING_ANSWER, SHORT_ANSWER = 24, 4
"""Tokens of a box with its end, and of a word or a letter with its end."""
PATCHES = 576
"""Visual tokens of one square that the tower encodes."""


def estimate_command(
    methods: MethodsOption = "all",
    budgets: BudgetsOption = "192,128",
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            help="Comma-separated groups (paper, paper_next, paper_official), benchmarks (refcoco, gqa) or tasks.",
        ),
    ] = "paper",
    shape: Annotated[
        str,
        typer.Option(help="Of the decoder: hidden, intermediate, layers, heads[, kv_heads]; by default LLaVA-7B's."),
    ] = "",
    visual_tokens: Annotated[
        int | None,
        typer.Option("--visual-tokens", "--visual_tokens", min=1, help="N of an image: 576, or 2880 for LLaVA-NeXT."),
    ] = None,
    gpu_tflops: Annotated[
        float, typer.Option(min=1, help="Peak in half precision as on the data sheet; 312 is an A100, 990 an H100.")
    ] = 312,
    utilization: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the peak that prefill reaches.")] = 0.4,
    step_ms: Annotated[float, typer.Option(min=0, help="One decoding step of `generate`, in milliseconds.")] = 25,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate memory and hours of a sweep on one GPU, by arithmetic: no weights, no data, no measurement.

    Prefill and image encoding by their FLOPs at a share of the peak; answers of 24 tokens for grounding and 4
    elsewhere at so many milliseconds a token. Reading images and scoring are not in it. `sweep --dry-run` measures
    instead.
    """
    from swiftvlm_eval.efficiency.run_estimate import Gpu, Part, memory_gib, run_hours
    from swiftvlm_eval.efficiency.table import decoder_of, flops_rows
    from swiftvlm_eval.sweep import parse_methods

    try:
        benchmarks = asked_benchmarks(names("tasks", tasks))
        decoder = decoder_of(None, shape, visual_tokens)
        rows = flops_rows(parse_methods(methods), budgets.split(","), None, shape, visual_tokens)
    except ValueError as error:
        fail(error)
    gpu, squares = Gpu(gpu_tflops, utilization, step_ms), -(-decoder.visual_tokens // PATCHES)
    parts = [
        Part(each.documents or 0, GROUNDING_ANSWER if each.group == "localization" else SHORT_ANSWER)
        for each in benchmarks
    ]
    exact = {(row["method"], row["budget"]): row for row in rows}  # of two schedules the one that meets the budget
    hours = {key: run_hours(row["tflops"], squares, parts, gpu) for key, row in exact.items() if row["tflops"]}
    told = {
        "estimate": True,
        "assumed": {"gpu_tflops": gpu_tflops, "utilization": utilization, "step_ms": step_ms},
        "documents": {each.key: each.documents for each in benchmarks},
        "hours": [{"method": method, "budget": budget, "hours": value} for (method, budget), value in hours.items()],
        "total_hours": sum(hours.values()),
        "not_feasible": [f"{method} {budget}" for (method, budget), row in exact.items() if not row["tflops"]],
        "memory_gib": memory_gib(decoder.shape, decoder.visual_tokens + 128, squares),
    }
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        say(told)


def asked_benchmarks(asked: Sequence[str]) -> list["Benchmark"]:
    """The benchmarks of sets, keys or tasks, each once.

    Raises:
        ValueError: one is not known, or how many documents it has.
    """
    from swiftvlm_eval.results import shipped_benchmarks

    table = shipped_benchmarks()
    groups = {
        **{name: list(keys) for name, keys in table.sets.items()},
        **{key: [key] for key in table.benchmarks},
        **{each.task: [key] for key, each in table.benchmarks.items()},
    }
    if unknown := [name for name in asked if name not in groups]:
        raise ValueError(f"tasks={unknown[0]!r}: allowed are {', '.join(groups)}")
    found = {key: table.benchmarks[key] for name in asked for key in groups[name]}
    if open_ := [key for key, each in found.items() if not each.documents]:
        raise ValueError(f"tasks={open_[0]!r}: its number of documents is not fixed; `sweep --dry-run` counts them")
    return list(found.values())


def say(told: dict[str, Any]) -> None:
    """Prints documents, hours and memory."""
    documents, memory = told["documents"], told["memory_gib"]
    by_method = {f"{one['method']} {one['budget']}": one["hours"] for one in told["hours"]}
    assumed = told["assumed"]
    console.print(
        f"ESTIMATE by arithmetic for one GPU of {assumed['gpu_tflops']:g} TFLOPS of which prefill reaches "
        f"{assumed['utilization']:.0%}, {assumed['step_ms']:g} ms a decoded token",
        soft_wrap=True,
    )
    console.print(f"documents: {sum(documents.values())} of {escape(', '.join(documents))}", soft_wrap=True)
    for label, hours in sorted(by_method.items(), key=lambda item: -item[1]):
        console.print(f"  {hours:6.2f} h  {escape(label)}", soft_wrap=True)
    console.print(f"  {told['total_hours']:6.1f} h  all {len(by_method)} configurations one after the other")
    if told["not_feasible"]:
        console.print(f"not feasible: {escape(', '.join(told['not_feasible']))}", soft_wrap=True)
    items = ", ".join(f"{item} {size:.1f}" for item, size in memory.items())
    console.print(f"memory: {sum(memory.values()):.1f} GiB ({items}) at batch 1 in half precision, unpruned")
