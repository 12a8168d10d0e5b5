"""Small submissions on the four tasks of the demo set, made by hand, and ways to spoil them."""

import gzip
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fake_runs import description, samples_of, write_run

from swiftvlm_eval.joining.submission import Submission, check_submission
from swiftvlm_eval.results import import_run, write_record

NOW = datetime(2026, 3, 1, tzinfo=UTC)
REGISTERED = ("vanilla", "random", "fastv", "swiftvlm", "pdrop")
METRICS = {
    "demo_refcoco": "acc@0.5",
    "demo_textvqa": "exact_match",
    "demo_gqa": "exact_match",
    "demo_pope": "pope_accuracy",
}
SCORES = {
    "vanilla": [1.0] * 9 + [0.0],
    "random": [1.0] * 4 + [0.0] * 6,
    "swiftvlm": [0.0] + [1.0] * 8 + [0.0],
    "fastv": [1.0] * 5 + [0.0] * 4 + [1.0],
    "pdrop": [1.0, 0.0] * 5,
}
MODEL = "org/model"


def made(
    folder: Path,
    method: str,
    *,
    scores: list[float] | None = None,
    stamp: str = "20260102_030405",
    tasks: Mapping[str, str] | None = None,
    prompt: str = "question {}",
    **changes: Any,
) -> Path:
    """Writes the record of one run with its samples; returns the record's path."""
    run = description(method, **({"pretrained": MODEL} | changes))
    given = scores or SCORES[method]
    lines = {
        task: (metric, samples_of(given, metric, run, clusters=[f"image {i}" for i in range(10)], prompt=prompt))
        for task, metric in (tasks or METRICS).items()
    }
    digest = hashlib.sha256(repr((method, stamp, sorted(changes.items()))).encode()).hexdigest()[:8]
    path = write_run(folder / f"lmms_{method}_{digest}", lines, stamp=stamp)
    written = write_record(*import_run(path), folder)
    for rest in path.parent.iterdir():
        rest.unlink()
    path.parent.rmdir()
    return written


def reference(folder: Path) -> Path:
    """Vanilla, random and swiftvlm."""
    for number, method in enumerate(("vanilla", "random", "swiftvlm")):
        made(folder / "there", method, stamp=f"2026010{number + 1}_000000")
    return folder / "there"


def spoiled(path: Path, *place: str, value: Any) -> None:
    """Changes one field of a record file."""
    content = json.loads(path.read_text())
    target = content
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    path.write_text(json.dumps(content))


def samples_path(path: Path) -> Path:
    return path.with_name(json.loads(path.read_text())["samples_file"]["name"])


def resampled(path: Path, change: Any) -> None:
    """Changes the per-sample lines (a list of mappings, changed in place) and states hash and number rightly."""
    file = samples_path(path)
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    change(lines)
    packed = gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode(), mtime=0)
    file.write_bytes(packed)
    spoiled(path, "samples_file", "sha256", value=hashlib.sha256(packed).hexdigest())
    spoiled(path, "samples_file", "lines", value=len(lines))


def checked(*given: Path, there: Path | None = None) -> Submission:
    return check_submission(given, [there] if there else [], registered=REGISTERED, now=NOW)


def lines_of(submission: Submission) -> list[str]:
    return [refusal.line for refusal in submission.findings.refusals]
