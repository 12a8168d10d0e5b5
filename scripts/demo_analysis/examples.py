"""Chooses the three documents of the page by a rule, and draws them: python scripts/demo_analysis/examples.py."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swiftvlm_eval.results.store import load_records

DEMO = Path(__file__).resolve().parents[2] / "leaderboards" / "demo"
TASK, METRIC, BUDGET = "demo_refcoco", "acc@0.5", 1 / 3
CASES = {
    (False, True): "only SwiftVLM is right",
    (True, False): "only FastV is right",
    (False, False): "both are wrong",
}
"""Whether FastV and SwiftVLM are right -> heading."""


def choose(records: Path) -> dict[str, Any]:
    """The first document of every case, and how many there are of it.

    Args:
        records: with those of both methods at 1/3, at the checkpoint's own layers.
    """
    right = [_right(records, method) for method in ("fastv", "swiftvlm")]
    documents = []
    for case, heading in CASES.items():
        own = sorted(doc for doc in right[0] if (right[0][doc], right[1][doc]) == case)
        documents.append({"doc_id": own[0], "case": heading, "count": len(own)})
    return {"task": TASK, "of": len(right[0]), "documents": documents}


def _right(records: Path, method: str) -> Mapping[int, bool]:
    """Document -> whether the method's box is right."""
    runs, _ = load_records([records])
    (run,) = [
        run
        for run in runs
        if run.record.method.name == method
        and run.record.method.options["layers"] is None
        and abs((run.record.method.budget or 0) - BUDGET) < 1e-6
    ]
    return {line.doc_id: bool(line.scores[METRIC]) for line in run.samples() if line.task == TASK}


def draw(doc_id: int, out: Path) -> None:
    """Writes <doc_id>.png and <doc_id>.json."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        what = ["--model", "demo", "--task", TASK, "--doc", str(doc_id), "--methods", "fastv,swiftvlm"]
        how = ["--budget", "1/3", "--layout", "rows", "--out", str(pictures)]
        subprocess.run([sys.executable, "-m", "swiftvlm_eval.cli", "show", *what, *how], check=True)
        shutil.copy(pictures / "side_by_side.png", out / f"{doc_id}.png")
        shutil.copy(pictures / "show.json", out / f"{doc_id}.json")


if __name__ == "__main__":
    chosen, folder = choose(DEMO / "records"), DEMO / "examples"
    folder.mkdir(exist_ok=True)
    for one in chosen["documents"]:
        draw(one["doc_id"], folder)
    (folder / "chosen.json").write_text(json.dumps(chosen, indent=1) + "\n")
