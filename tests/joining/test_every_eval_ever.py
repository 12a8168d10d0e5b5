"""The export: numbers by hand, a pruned model never under the model's plain name, and the package's own validator."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from fake_runs import description, samples_of, write_run
from submitted_runs import made, spoiled

from swiftvlm_eval.joining.every_eval_ever import export_records
from swiftvlm_eval.results import import_run, load_records, shipped_benchmarks

TABLE = shipped_benchmarks()


def export(folder: Path, out: Path, **changes: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Content by path below `out`, and what was left out."""
    runs, _ = load_records([folder])
    said = {"organization": "Group", "relationship": "third_party"} | changes
    files, problems = export_records(runs, out, TABLE, **said)
    return {str(path.relative_to(out)): json.loads(path.read_text()) for path in files}, [p.reason for p in problems]


def test_scores_bounds_and_errors_are_those_of_the_record(tmp_path: Path) -> None:
    """By hand: 6 of 10 right is 0.6; the standard error of the sample is sqrt(0.6 * 0.4 / 9) = 0.163299."""
    made(tmp_path / "in", "fastv")
    files, left_out = export(tmp_path / "in", tmp_path / "out")
    ((path, content),) = files.items()
    assert left_out == [] and path.startswith("data/swiftvlm-eval/org/model/")
    assert content["retrieved_timestamp"] == content["evaluation_timestamp"] == "1767294245"  # 2026-01-01T19:04:05Z
    result = next(each for each in content["evaluation_results"] if "demo grounding" in each["evaluation_name"])
    assert result["score_details"]["score"] == pytest.approx(0.6)
    uncertainty = result["score_details"]["uncertainty"]
    assert (
        uncertainty["standard_error"]["value"] == pytest.approx(0.163299, abs=1e-6)
        and uncertainty["num_samples"] == 10
    )
    metric = result["metric_config"]
    assert (metric["min_score"], metric["max_score"], metric["lower_is_better"]) == (0, 1, False)
    assert result["score_details"]["details"]["mean_visual_tokens_per_layer"] == "192"


def test_a_pruned_model_says_so_and_vanilla_does_not(tmp_path: Path) -> None:
    made(tmp_path / "in", "fastv")
    made(tmp_path / "in", "vanilla")
    files, _ = export(tmp_path / "in", tmp_path / "out")
    names = sorted(content["model_info"]["name"] for content in files.values())
    assert names == ["org/model", "org/model (visual tokens reduced to 33.3 % by fastv)"]
    for content in files.values():
        pruned = "fastv" in content["model_info"]["name"]
        assert all(("by fastv" in each["evaluation_name"]) is pruned for each in content["evaluation_results"])


def test_scales_of_other_benchmarks(tmp_path: Path) -> None:
    lines = samples_of([100.0] * 4, "mme_perception_score", description("vanilla"))
    write_run(tmp_path / "in", {"mme": ("mme_perception_score", lines)}, values={"mme": 1500.0})
    runs = [import_run(path)[0] for path in (tmp_path / "in").glob("*_results.json")]
    from swiftvlm_eval.joining.every_eval_ever import exported

    _, content = exported(runs[0], TABLE, organization="g", relationship="other")
    (result,) = content["evaluation_results"]
    assert (result["metric_config"]["max_score"], result["metric_config"]["metric_unit"]) == (2000, "points")
    assert result["source_data"]["source_type"] == "hf_dataset" and result["source_data"]["samples_number"] == 4


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("model", "pretrained"), "local:mine-01234567", "model.pretrained=local:mine-01234567"),
        (("model", "pretrained"), "../x", "model.pretrained=../x"),
        (("model", "pretrained"), "a/..", "model.pretrained=a/.."),
        (("model", "pretrained"), "data/x", "model.pretrained=data/x"),
        (("model", "pretrained"), None, "model.pretrained=None"),
        (("origin", "created"), None, "origin.created=None"),
    ],
)
def test_what_has_no_place_is_left_out_by_name(tmp_path: Path, place: tuple[str, ...], value: Any, said: str) -> None:
    spoiled(made(tmp_path / "in", "fastv"), *place, value=value)
    files, left_out = export(tmp_path / "in", tmp_path / "out")
    assert files == {} and said in left_out[0]
    assert not (tmp_path / "out").exists()


def test_limited_runs_are_left_out(tmp_path: Path) -> None:
    path = made(tmp_path / "in", "fastv")
    spoiled(path, "status", value="limited")
    spoiled(path, "status_reasons", value=["limit 1"])
    assert export(tmp_path / "in", tmp_path / "out") == ({}, ["not exported: status=limited; allowed is complete"])


def test_equal_records_give_equal_files_and_others_replace_nothing(tmp_path: Path) -> None:
    made(tmp_path / "in", "fastv")
    first, _ = export(tmp_path / "in", tmp_path / "out")
    assert export(tmp_path / "in", tmp_path / "out")[0] == first
    with pytest.raises(ValueError, match="already there with other content"):
        export(tmp_path / "in", tmp_path / "out", organization="Somebody else")
    with pytest.raises(ValueError, match="relationship='friend': allowed are first_party"):
        export(tmp_path / "in", tmp_path / "out", relationship="friend")
    with pytest.raises(ValueError, match="organization=' '"):
        export(tmp_path / "in", tmp_path / "out", organization=" ")


def test_the_command_exports_or_says_why_not(tmp_path: Path) -> None:
    made(tmp_path / "in", "fastv")
    arguments = ["export", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--organization", "Group"]
    status, out, _ = run(*arguments)
    assert status == 0 and out.startswith("wrote 1 files below")
    spoiled(next((tmp_path / "in").glob("*.record.json")), "model", "pretrained", value="local:x-00000000")
    status, _, said = run(*arguments)
    assert status == 1 and "not exported: model.pretrained=local:x-00000000" in said


def test_the_packages_own_validator_passes_every_file(tmp_path: Path) -> None:
    interpreter = os.environ.get("EEE_PYTHON")
    if not interpreter:
        pytest.skip("every_eval_ever needs an environment of its own (docs/joining.md): EEE_PYTHON names its Python")
    hostile = "a|b\u202e<script>"
    made(tmp_path / "in", "fastv")
    made(tmp_path / "in", "vanilla")
    made(tmp_path / "in", "pdrop", options={"mode": hostile}, device=hostile)
    made(tmp_path / "in", "fastv", pretrained="demo")
    files, _ = export(tmp_path / "in", tmp_path / "out")
    done = subprocess.run(
        [interpreter, "-m", "every_eval_ever", "validate", "--format", "json", *files],
        cwd=tmp_path / "out", capture_output=True, text=True, check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0 and len(files) == 4, done.stdout + done.stderr
    assert '"valid": false' not in done.stdout and '"warnings": [{' not in done.stdout
    # and it can fail
    spoilt = tmp_path / "out" / next(iter(files))
    content = json.loads(spoilt.read_text())
    del content["model_info"]
    spoilt.write_text(json.dumps(content))
    command = [interpreter, "-m", "every_eval_ever", "validate", str(spoilt.relative_to(tmp_path / "out"))]
    assert subprocess.run(command, cwd=tmp_path / "out", capture_output=True, check=False).returncode == 1
