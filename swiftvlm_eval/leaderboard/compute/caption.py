"""Headings and captions: what a board's numbers are, in sentences made from the records."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from swiftvlm_eval.leaderboard.columns import column_table
from swiftvlm_eval.leaderboard.compute.entries import Entry
from swiftvlm_eval.leaderboard.compute.scores import ColumnScores
from swiftvlm_eval.leaderboard.render.text import shown_name
from swiftvlm_eval.results.benchmarks import Benchmark, Group
from swiftvlm_eval.results.record import RunRecord

DEMO = "demo"
_DEMO_SENTENCE = (
    "These are numbers of the demo model: a tiny model trained on synthetic scenes that ships with swiftvlm-eval. "
    "They say nothing about LLaVA."
)


def board_title(record: RunRecord, setting: Mapping[str, object]) -> str:
    """Returns a heading; the demo model is never called LLaVA, and a limited setting says so."""
    name = shown_name(record.model.pretrained or record.model.lmms_eval_model)
    title = "Demo model (synthetic scenes)" if name == DEMO else name
    limited = setting.get("limit") is not None or setting.get("offset")
    return f"{title}: limited runs, not the whole benchmarks" if limited else title


def board_slug(record: RunRecord, full: bool) -> str:
    """Returns a file name stem: the model, and with `full` everything that sets its settings apart."""
    model, settings = record.model, record.settings
    parts: list[object] = [model.pretrained or model.lmms_eval_model]
    if full:
        parts += [model.revision, settings.dtype, settings.image_mode, settings.gen_kwargs]
    if settings.limit is not None or settings.offset:
        limit = "all" if settings.limit is None else f"{settings.limit:g}"
        parts.append(f"limited-{limit}-from-{settings.offset}")
    cleaned = (re.sub(r"[^a-z0-9.]+", "-", str(part).lower()).strip("-.") for part in parts if part is not None)
    return "-".join(part for part in cleaned if part) or "model"


def budget_title(entries: Sequence[Entry]) -> str:
    """Returns the heading of one budget's section, with the token counts where all rows agree on them."""
    record = entries[0].record
    if entries[0].is_vanilla:
        return "Vanilla"
    if record.method.budget is None:
        return "Budget not recorded"
    title = f"Budget {100 * record.method.budget:.1f} %"
    counts = {
        round(task.execution.visual_tokens, 6)
        for entry in entries
        for run in entry.runs
        for task in run.record.tasks.values()
        if task.execution
    }
    if len(counts) == 1 and (count := counts.pop()) == int(count):
        return f"{title} ({record.method.budget * count:.0f} of {count:.0f} visual tokens per layer)"
    return title


def board_caption(
    entries: Sequence[Entry],
    columns: Sequence[ColumnScores],
    groups: Mapping[Group, tuple[str, ...]],
    intervals: Collection[str],
) -> tuple[str, ...]:
    """Returns the sentences below a board's heading.

    Args:
        entries: The configurations.
        columns: The benchmark columns.
        groups: Benchmark keys of each group mean.
        intervals: Keys of the benchmarks for which some row has an interval.
    """
    records = [run.record for entry in entries for run in entry.runs]
    sentences = [_DEMO_SENTENCE] if any(record.model.pretrained == DEMO for record in records) else []
    sentences.append(
        f"Model {_all(record.model.pretrained for record in records)}, revision "
        f"{_all(record.model.revision for record in records)}, {_all(record.settings.dtype for record in records)}, "
        f"images {_all(record.settings.image_mode for record in records)}, "
        f"attention {_all(record.settings.attn_implementation for record in records)}, "
        f"batch size {_all(_batch_size(record) for record in records)}, "
        f"on {_all(record.settings.device for record in records)}."
    )
    sentences.append(f"Software: {_versions(records)}.")
    if halved := sum(task.halved_batches or 0 for record in records for task in record.tasks.values()):
        sentences.append(f"Batches that ran out of memory and were answered in halves: {halved}.")
    dates = sorted(record.origin.created[:10] for record in records if record.origin.created)
    if dates:
        sentences.append(f"Run {dates[0]}." if dates[0] == dates[-1] else f"Run from {dates[0]} to {dates[-1]}.")
    sentences.extend(_documents(column, column.benchmark.key in intervals) for column in columns)
    return (*sentences, *mean_sentences(groups, [column.benchmark for column in columns]))


def mean_sentences(groups: Mapping[Group, tuple[str, ...]], benchmarks: Iterable[Benchmark]) -> list[str]:
    """Returns what each mean of a board is taken over."""
    titles, names = {benchmark.key: benchmark.title for benchmark in benchmarks}, column_table().groups
    return [
        f"The {names[group]} is the plain mean of the ratios of {', '.join(titles[key] for key in keys)}."
        for group, keys in groups.items()
    ]


def _documents(column: ColumnScores, intervals: bool) -> str:
    benchmark = column.benchmark
    counts = sorted({cell.documents for cell in column.cells.values() if cell.documents is not None})
    protocol = column_table().protocols[benchmark.protocol] if benchmark.protocol else "protocol not stated"
    text = f"{benchmark.title}: {benchmark.task}, {benchmark.metric}, {protocol}, "
    text += f"{' / '.join(map(str, counts))} documents"
    if benchmark.documents is not None and counts != [benchmark.documents]:
        text += f" (the whole benchmark has {benchmark.documents})"
    base = column.units.get(column.vanilla) if column.vanilla else None
    if base is None or not intervals:
        return f"{text}; no intervals."
    if base.named:
        return f"{text}, resampled by image in {base.ids.size} units."
    what = "" if benchmark.reduction == "mean" else f", resampled in {base.ids.size} units, each scored as one and"
    why = "since not every sample names its image; intervals are too short if some share one"
    return f"{text}{what or ','} taken as independent, {why}."


def _versions(records: Sequence[RunRecord]) -> str:
    names = sorted({name for record in records for name in record.software.versions})
    parts = [f"{name} {_all(record.software.versions.get(name) for record in records)}" for name in names]
    # lmms-eval states its own version; the run description may hold it as a package as well.
    if "lmms-eval" not in names and "lmms_eval" not in names:
        parts.append(f"lmms-eval {_all(record.software.lmms_eval_version for record in records)}")
    commits = {record.software.commit for record in records if record.software.commit}
    if commits:
        parts.append(f"commit {', '.join(sorted(commit[:12] + commit[40:] for commit in commits))}")
    return ", ".join(parts)


def _batch_size(record: RunRecord) -> str | None:
    """The size, and that it was chosen rather than given."""
    size, choice = record.settings.batch_size, record.settings.batch_size_choice
    return None if size is None else f"{size}{'' if choice is None else f' (auto, by {choice})'}"


def _all(values: Iterable[object]) -> str:
    """Joins the distinct values; what no record holds is shown as not recorded."""
    distinct = sorted({"not recorded" if value is None else str(value) for value in values})
    return " / ".join(distinct)
