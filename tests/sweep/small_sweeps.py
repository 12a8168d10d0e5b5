"""Sweeps of the tiny model over two documents of each embedded task."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from lmms.tiny_runs import checkpoint

from swiftvlm_eval.sweep import Sweep
from swiftvlm_eval.sweep.documents import Documents

LIMIT = 2


def make_sweep(out: Path, *tasks: str, **options: Any) -> Sweep:
    return Sweep(checkpoint(), documents(*tasks), out, **{"limit": LIMIT, **options})


@cache
def documents(*tasks: str) -> Documents:
    return Documents(tasks or ("demo_gqa", "demo_refcoco"))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def answers(record: Path) -> list[tuple[Any, ...]]:
    """(task, document, answer, visual rows) of a record's per-sample file."""
    (path,) = record.parent.glob("*samples*")
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert len(lines) == 2 * LIMIT
    return [(line["task"], line["doc_id"], line["prediction"], line["output_tokens"]) for line in lines]
