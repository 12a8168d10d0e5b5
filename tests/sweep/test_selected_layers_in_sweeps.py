"""A sweep with `layers=auto:FILE`: records hold the boundaries, and another model's file is refused by name."""

import json
from pathlib import Path
from typing import Any

from lmms.tiny_runs import checkpoint
from small_sweeps import make_sweep

from swiftvlm_eval.models.weights import content_digest
from swiftvlm_eval.results import read_record
from swiftvlm_eval.sweep.configurations import make_grid, parse_methods


def write(path: Path, **model: Any) -> str:
    own = {"name": "tiny", "content": content_digest(checkpoint().model), "dtype": "float32", "num_layers": 12}
    by_stages = [{"layers": [3], "boundaries": [3], "objective": 1.0}]
    facts = {"format": "swiftvlm-eval layer choice 1", "model": own | model, "by_stages": by_stages}
    path.write_text(json.dumps(facts), encoding="utf-8")
    return f"auto:{path}"


def test_records_hold_the_boundaries_of_the_model(tmp_path: Path) -> None:
    right, wrong = write(tmp_path / "right.json"), write(tmp_path / "wrong.json", content="0" * 16)
    typed = f"fastv[layers={right}],fastv[layers={wrong}],swiftvlm[layers={right}]"
    grid = make_grid(parse_methods(typed), ["1/2"], visual_tokens=16)
    done, refused, short = make_sweep(tmp_path / "out", "demo_gqa").run(grid)
    assert done.status == "done" and done.record is not None and done.configuration.options == {"layers": "3"}
    record = read_record(done.record)
    assert record.method.options["layers"] == [3]
    assert "right.json" not in done.record.read_text(encoding="utf-8")
    assert refused.status == "refused" and "run select-layers on it" in refused.reason
    assert short.status == "refused" and "swiftvlm has 3; run select-layers with --stages 3" in short.reason
    # the file is gone, and the record still counts
    (again,) = make_sweep(tmp_path / "out", "demo_gqa").run(make_grid([("fastv", {"layers": "3"})], ["1/2"]))
    assert again.status == "kept"
