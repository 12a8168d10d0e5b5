"""Writes files of the shape lmms-eval 0.7.3 writes, with any scores, for tests that must not run a model."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DECODER = {"hidden_size": 64, "intermediate_size": 172, "num_layers": 4, "num_heads": 4, "num_kv_heads": 4}


def description(method: str = "swiftvlm", budget: float = 1 / 3, **changes: Any) -> dict[str, Any]:
    return {
        "method": method,
        "options": {},
        "budget": 1.0 if method == "vanilla" else budget,
        "schedule": None,
        "planned_mean": 576.0 if method == "vanilla" else 576.0 * budget,
        "pretrained": "llava-hf/llava-1.5-7b-hf",
        "revision": "abc123",
        "family": "llava",
        "shape": DECODER,
        "dtype": "float16",
        "device": "Test GPU",
        "attn_implementation": "sdpa",
        "batch_size": 1,
        "image_mode": "pad",
        "seed": 0,
        "world_size": 1,
        "versions": {"swiftvlm-eval": "0.1.0", "torch": "2.15.0", "transformers": "5.23.0", "lmms-eval": "0.7.3"},
        "commit": "0123456789abcdef",
    } | changes


def report(run: Mapping[str, Any] | None, budget: float = 1.0, prefill_s: float | None = 0.06, **changes: Any) -> dict:
    """What our model class reports for one sample: half the layers see everything that makes the mean right."""
    rows = 576 * budget
    high = 576 if budget == 1 else min(300, 2 * rows)
    low = 2 * rows - high
    counts: dict[str, Any] = {
        "visual_tokens": 576,
        "text_tokens": 64,
        "rows_per_layer": [[576, 4]] if budget == 1 else [[high, 2], [low, 2]],
        "flops_t": 4.2 * budget,
        "flops_paper_t": 4.29 * budget,
        "attributed_mean": None,
        "prefill_s": prefill_s,
        "total_s": None if prefill_s is None else prefill_s + 0.04,
    }
    return counts | ({"run": dict(run)} if run else {}) | changes


def samples_of(
    scores: Sequence[Any],
    metric: str,
    run: Mapping[str, Any] | None,
    *,
    clusters: Sequence[Any] | None = None,
    prefill_s: float | None = None,
    prompt: str = "question {}",
) -> list[dict[str, Any]]:
    """One line per score; `run` None stands for a model class that reports nothing."""
    lines = []
    for index, score in enumerate(scores):
        counts: dict[str, Any] = {"input_tokens": 640, "output_tokens": 3}
        if run is not None:
            budget = run["budget"]
            seconds = 0.06 * budget + 0.001 * (index % 3) if prefill_s is None else prefill_s
            counts["swiftvlm"] = report(run if index == 0 else None, budget, seconds)
        line = {
            "doc_id": index,
            "target": f"target {index}",
            "filtered_resps": "answer",
            "token_counts": [counts],
            "doc_hash": "same",
            "input": prompt.format(index),
            metric: score,
            "W": 640,
        }
        if clusters is not None:
            line["cluster_id"] = clusters[index]
        lines.append(line)
    return lines


def write_run(
    folder: Path,
    tasks: Mapping[str, tuple[str, Sequence[dict[str, Any]]]],
    *,
    stamp: str = "20260102_030405",
    model: str = "swiftvlm_llava",
    values: Mapping[str, float] | None = None,
    log_samples: bool = True,
    config: Mapping[str, Any] | None = None,
    expected: Mapping[str, int] | None = None,
    version: float = 1.0,
) -> Path:
    """Writes a results file and its samples files; a task's score is the mean of its lines unless `values` says so."""
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for task, (metric, lines) in tasks.items():
        numbers = [_number(line[metric]) for line in lines]
        value = (values or {}).get(task, float(np.mean(numbers)) if numbers else math.nan)
        spread = float(np.std(numbers, ddof=1) / math.sqrt(len(numbers))) if len(numbers) > 1 else "N/A"
        results[task] = {
            "alias": task,
            f"{metric},none": value,
            f"{metric}_stderr,none": spread,
            f"{metric}_stderr_clt,none": spread,
            f"{metric}_stderr_clustered,none": "N/A",
            "record,none": [],
        }
    counts = {task: (expected or {}).get(task, len(lines)) for task, (_, lines) in tasks.items()}
    content = {
        "results": results,
        "group_subtasks": {task: [] for task in tasks},
        "configs": {task: {"task": task} for task in tasks},
        "versions": dict.fromkeys(tasks, version),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {task: {metric: True} for task, (metric, _) in tasks.items()},
        "n-samples": {task: {"original": count, "effective": count} for task, count in counts.items()},
        "config": {
            "model": model,
            "model_args": "pretrained=llava-hf/llava-1.5-7b-hf",
            "batch_size": "1",
            "limit": None,
            "offset": 0,
            "gen_kwargs": None,
            "torch_seed": 1234,
            "resolved_cli_args": {"timezone": "Asia/Singapore"},
        }
        | dict(config or {}),
        "git_hash": "cafe",
        "lmms_eval_version": "0.7.3",
        "date": stamp,
        "total_evaluation_time_seconds": "12.5",
    }
    path = folder / f"{stamp}_results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    if log_samples:
        for task, (_, lines) in tasks.items():
            file = folder / f"{stamp}_samples_{task}.jsonl"
            file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def _number(value: Any) -> float:
    return float(value["score"]) if isinstance(value, dict) else float(value)


def grid(
    root: Path,
    methods: Mapping[str, float],
    *,
    budgets: Sequence[float] = (1 / 3, 2 / 9),
    documents: int = 240,
    seed: int = 7,
    **changes: Any,
) -> list[Path]:
    """Writes a vanilla run and methods x budgets on a grounding and a VQA task.

    Args:
        root: Folder; each run gets its own below it.
        methods: Method name to the probability of losing a right answer at the first budget.
        documents: Documents of each task; four share an image in the grounding task.
        changes: Fields of the run description.
    """
    rng = np.random.default_rng(seed)
    images = [f"COCO_{index // 4:012d}.jpg" for index in range(documents)]
    easy = np.repeat(rng.random(documents // 4 + 1), 4)[:documents]
    right = {"swiftvlm_refcoco_val": rng.random(documents) < 0.5 + 0.5 * easy, "gqa": rng.random(documents) < 0.62}
    metrics = {"swiftvlm_refcoco_val": "acc@0.5", "gqa": "exact_match"}
    configurations = [("vanilla", 1.0, 0.0)] + [
        (name, budget, loss * (1 + index)) for name, loss in methods.items() for index, budget in enumerate(budgets)
    ]
    paths = []
    for number, (name, budget, loss) in enumerate(configurations):
        run = description(name, budget, **changes)
        tasks = {}
        for task, base in right.items():
            kept = base & (rng.random(documents) >= loss)
            clusters = images if task.startswith("swiftvlm") else None
            tasks[task] = (
                metrics[task],
                samples_of(kept.astype(float).tolist(), metrics[task], run, clusters=clusters),
            )
        paths.append(write_run(root / f"run{number}", tasks, stamp=f"20260102_{number:06d}"))
    return paths
