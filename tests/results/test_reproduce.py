"""Commands made from records give the configurations of these records; nothing in a record gets out of its word."""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_runs import description, samples_of, write_run
from typer.testing import CliRunner

from swiftvlm_eval import make_method
from swiftvlm_eval.cli import app
from swiftvlm_eval.cli import runs as cli_runs
from swiftvlm_eval.models.prompts import SYSTEM_PROMPT
from swiftvlm_eval.pruning.budget import parse_budget
from swiftvlm_eval.results import RunRecord, import_run, load_records, read_record, reproduce
from swiftvlm_eval.results.reproduce import SYSTEM_PROMPT_SHA256

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "leaderboards" / "demo" / "records"


@pytest.fixture(scope="module")
def committed() -> list[RunRecord]:
    """One record of every method and its options."""
    records = [run.record for run in load_records([RECORDS])[0]]
    return list({json.dumps([each.method.name, each.method.options]): each for each in records}.values())


def changed(record: RunRecord, part: str, **fields: Any) -> RunRecord:
    """The record with other fields in one part, checked as a record from a file is."""
    content = json.loads(record.to_json())
    content[part] |= fields
    return RunRecord.model_validate_json(json.dumps(content))


def a_record(folder: Path, *, method: str = "fastv", **changes: Any) -> RunRecord:
    run = description(method, **{"options": {"layers": [2], "schedule": "exact"}, **changes})
    return import_run(write_run(folder, {"gqa": ("exact_match", samples_of([1.0, 0.0], "exact_match", run))}))[0]


def asked(monkeypatch: pytest.MonkeyPatch, line: str) -> dict[str, Any]:
    """What the command line asks the sweep for."""
    seen: dict[str, Any] = {}

    def run_sweep(model: str, out: Path, grid: Sequence[Any], tasks: list[str], **others: Any) -> list[Any]:
        seen.update(model=model, out=out, grid=list(grid), tasks=tasks, **others)
        return []

    monkeypatch.setattr(cli_runs, "run_sweep", run_sweep)
    name, *words = shlex.split(line, comments=True)
    assert name == "swiftvlm-eval"
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return seen


def read_by_lmms_eval(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> list[argparse.Namespace]:
    """The arguments of each evaluation that `lmms_eval --config` starts."""
    import lmms_eval.__main__ as main

    started: list[argparse.Namespace] = []

    def start(args: argparse.Namespace) -> tuple[None, None]:
        started.append(args)
        return None, None

    monkeypatch.setattr(main, "cli_evaluate_single", start)
    (folder / "again.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["lmms_eval", "--config", str(folder / "again.yaml")])
    main.cli_evaluate()
    return started


def test_every_committed_record_gives_a_sweep_line_of_its_configuration(
    monkeypatch: pytest.MonkeyPatch, committed: list[RunRecord]
) -> None:
    assert len(committed) > 30
    for record in committed:
        seen = asked(monkeypatch, record.reproduce["sweep"])
        (cell,) = seen["grid"]
        method = make_method(cell.method, cell.options)
        settings = record.settings
        # through JSON, as in records: tuples are lists there
        assert json.loads(json.dumps(method.options)) == record.method.options
        assert (method.name, cell.seed) == (record.method.name, settings.seed)
        assert cell.budget == record.method.budget
        assert [parse_budget(text, 144) for text in seen["budgets"]] == [record.method.budget]
        assert (seen["model"], seen["tasks"]) == ("demo", sorted(record.tasks))
        assert (seen["batch_size"], seen["limit"], seen["revision"]) == (settings.batch_size, None, None)
        assert (seen["dtype"], seen["device"]) == (settings.dtype, settings.device)
        assert (seen["attn_implementation"], seen["image_mode"]) == (settings.attn_implementation, "pad")


def test_lmms_eval_reads_the_configuration_of_every_committed_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, committed: list[RunRecord]
) -> None:
    from lmms_eval.utils import simple_parse_args_string

    texts = [record.reproduce["lmms_eval"] for record in committed]
    together = yaml.safe_dump([yaml.safe_load(text) for text in texts])
    started = read_by_lmms_eval(monkeypatch, tmp_path, together)
    assert len(started) == len(committed)
    for args, record in zip(started, committed, strict=True):
        given = simple_parse_args_string(args.model_args)
        method = make_method(given.pop("method"))
        assert json.loads(json.dumps(method.options)) == record.method.options
        assert parse_budget(given.pop("budget"), 144) == record.method.budget
        assert given == {
            "pretrained": "demo",
            "seed": 0,
            "dtype": "float32",
            "attn_implementation": "sdpa",
            "image_mode": "pad",
            "device": "cpu",
        }
        assert (args.model, args.batch_size, args.limit) == ("swiftvlm_llava", 16, None)
        assert args.tasks.split(",") == sorted(record.tasks)
        assert args.log_samples and args.output_path == "results"


def test_a_line_with_a_small_limit_makes_a_record_of_the_same_configuration(
    tmp_path: Path, committed: list[RunRecord]
) -> None:
    """One real run, of two documents."""
    record = next(
        each for each in committed if each.method.options.get("layers") == [2] and each.method.name == "fastv"
    )
    content = json.loads(record.to_json())
    content["tasks"] = {"demo_gqa": content["tasks"]["demo_gqa"]}
    content |= {"status": "limited", "status_reasons": ["limit 2, offset 0"]}
    content["settings"]["limit"] = 2
    asked_for = RunRecord.model_validate_json(json.dumps(content))
    words = shlex.split(asked_for.reproduce["sweep"])[1:]
    result = CliRunner().invoke(app, [*words[:-1], str(tmp_path)])
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.glob("records/*/*.record.json")
    assert read_record(path).configuration == asked_for.configuration
    assert read_record(path).record_id == asked_for.record_id


def test_hub_checkpoints_revisions_and_lists_by_hand(tmp_path: Path) -> None:
    record = a_record(tmp_path, options={"layers": [2], "schedule": "exact", "scope": None, "flag": True})
    assert record.reproduce["sweep"] == (
        "swiftvlm-eval sweep --model llava-hf/llava-1.5-7b-hf --revision abc123 "
        "--methods 'fastv[flag=true;layers=2;schedule=exact]' --budgets 1/3 --seeds 0 --tasks gqa "
        "--batch-size 1 --dtype float16 --attn sdpa --image-mode pad --out results"
    )
    assert yaml.safe_load(record.reproduce["lmms_eval"]) == {
        "model": "swiftvlm_llava",
        "model_args": "pretrained=llava-hf/llava-1.5-7b-hf,revision=abc123,"
        "method=fastv[flag=true;layers=2;schedule=exact],budget=1/3,seed=0,dtype=float16,"
        "attn_implementation=sdpa,image_mode=pad",
        "tasks": "gqa",
        "batch_size": 1,
        "log_samples": True,
        "output_path": "results",
    }


@pytest.mark.parametrize(
    ("budget", "typed"), [(1.0, "1"), (1 / 3, "1/3"), (0.333, "0.333"), (640 / 2880, "2/9"), (0.123456789, None)]
)
def test_a_budget_is_typed_so_that_it_is_the_very_same_number(
    tmp_path: Path, budget: float, typed: str | None
) -> None:
    words = shlex.split(a_record(tmp_path, budget=budget, planned_mean=576.0 * budget).reproduce["sweep"])
    text = words[words.index("--budgets") + 1]
    assert text == (typed or text) and parse_budget(text) == budget


def test_methods_one_after_the_other_get_their_own_options_back(tmp_path: Path) -> None:
    for typed in ("visionzip+random[layers=16]", "visionzip+fastv[layers=2]+random[layers=16]"):
        method = make_method(typed)
        options = json.loads(json.dumps(method.options))
        record = a_record(tmp_path / typed[:20], method=method.name, options=options, schedule=method.schedule)
        words = shlex.split(record.reproduce["sweep"])
        again = make_method(words[words.index("--methods") + 1])
        assert (again.name, again.options) == (method.name, method.options)


def test_a_folder_must_be_put_in(tmp_path: Path) -> None:
    record = a_record(tmp_path, pretrained="local:my-llava-0123abcd")
    advice, line = record.reproduce["sweep"].splitlines()
    assert (
        advice == "# put in the path of the folder that was recorded as local:my-llava-0123abcd for /path/to/my-llava"
    )
    assert "--model /path/to/my-llava --methods" in line and "--revision" not in line
    assert record.reproduce["lmms_eval"].startswith(advice)
    assert "pretrained=/path/to/my-llava," in yaml.safe_load(record.reproduce["lmms_eval"])["model_args"]


def test_what_only_lmms_eval_can_do_has_no_sweep_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = a_record(tmp_path)
    generated = changed(record, "settings", gen_kwargs={"temperature": 0, "max_new_tokens": 8})
    (args,) = read_by_lmms_eval(monkeypatch, tmp_path, generated.reproduce["lmms_eval"])
    assert args.gen_kwargs == "max_new_tokens=8,temperature=0"
    for fields in ({"gen_kwargs": {"temperature": 0}}, {"offset": 3}, {"limit": 0.5}):
        assert set(changed(record, "settings", **fields).reproduce) == {"lmms_eval"}
    limited = changed(record, "settings", limit=20.0).reproduce
    assert "--limit 20 " in limited["sweep"] and yaml.safe_load(limited["lmms_eval"])["limit"] == 20
    offset = yaml.safe_load(changed(record, "settings", offset=3).reproduce["lmms_eval"])
    assert offset["offset"] == 3 and "limit" not in offset


def test_another_model_class_gets_its_arguments_back(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", None)
    config = {"model_args": "pretrained=llava-hf/llava-1.5-7b-hf,dtype=float16,attn=sdpa"}
    path = write_run(tmp_path, {"gqa": ("exact_match", lines)}, model="llava_hf", config=config)
    (found,) = import_run(path)[0].reproduce.items()
    assert found[0] == "lmms_eval"
    assert yaml.safe_load(found[1]) == {
        "model": "llava_hf",
        "model_args": "pretrained=llava-hf/llava-1.5-7b-hf,attn=sdpa,dtype=float16",
        "tasks": "gqa",
        "log_samples": True,
        "output_path": "results",
    }


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("model", {"pretrained": None}),
        ("model", {"pretrained": "demo; rm -rf ~"}),
        ("model", {"pretrained": "demo,trust_remote_code=True"}),
        ("model", {"pretrained": "--help"}),
        ("model", {"pretrained": "local:a\nrm -rf ~-0123abcd"}),
        ("model", {"pretrained": "local:../../x-0123abcd"}),
        ("model", {"revision": "main\n$(id)"}),
        ("model", {"revision": "1e999", "pretrained": "1e5"}),
        ("method", {"budget": None}),
        ("method", {"name": "fastv,all"}),
        ("method", {"name": "../x.py:Own"}),
        ("method", {"source_sha256": "00"}),
        ("method", {"options": {"scope": "all];pdrop["}}),
        ("method", {"options": {"scope": "\u202eevil"}}),
        ("method", {"options": {"layers": [[2]]}}),
        ("method", {"options": {"layers": []}}),
        ("method", {"options": {"first.layers": [2]}}),
        ("settings", {"system_prompt_sha256": "ffffffffffff"}),
        ("settings", {"seed": -1}),
        ("settings", {"batch_size": 0}),
        ("settings", {"dtype": "float16 --device cuda"}),
    ],
)
def test_a_record_that_does_not_tell_enough_or_tells_too_much_gives_no_command(
    tmp_path: Path, part: str, fields: dict[str, Any]
) -> None:
    record = a_record(tmp_path)
    assert set(record.reproduce) == {"sweep", "lmms_eval"}
    assert changed(record, part, **fields).reproduce == {}


def test_a_hostile_task_or_model_class_gives_no_command(tmp_path: Path) -> None:
    record = a_record(tmp_path)
    content = json.loads(record.to_json())
    content["tasks"] = {"gqa; id": content["tasks"]["gqa"]}
    assert RunRecord.model_validate_json(json.dumps(content)).reproduce == {}
    assert changed(record, "model", lmms_eval_model="x\nmodel: y").reproduce == {}


def test_hidden_arguments_of_another_model_class_are_missing(tmp_path: Path) -> None:
    lines = samples_of([1.0], "exact_match", None)
    for argument in ("api_key=abc", "adapter=/somewhere/lora"):
        config = {"model_args": f"pretrained=llava-hf/llava-1.5-7b-hf,{argument}"}
        path = write_run(tmp_path / argument[:3], {"gqa": ("exact_match", lines)}, model="llava_hf", config=config)
        assert import_run(path)[0].reproduce == {}


def test_several_runs_of_a_row_are_several_commands_or_none(tmp_path: Path) -> None:
    record = a_record(tmp_path)
    local = changed(record, "model", pretrained="local:mine-0123abcd")
    made = reproduce([record, local])
    advice, one, other = made["sweep"].splitlines()
    assert advice.startswith("# put in") and "--model llava-hf/" in one and "--model /path/to/mine" in other
    assert [each["tasks"] for each in yaml.safe_load(made["lmms_eval"])] == ["gqa", "gqa"]
    assert set(reproduce([record, changed(record, "settings", offset=1)])) == {"lmms_eval"}
    assert reproduce([record, changed(record, "model", pretrained=None)]) == {}


def test_the_system_sentence_meant_is_that_of_the_models() -> None:
    import hashlib

    assert hashlib.sha256(SYSTEM_PROMPT.encode()).hexdigest()[:12] == SYSTEM_PROMPT_SHA256


def test_records_are_written_and_named_as_before(committed: list[RunRecord]) -> None:
    for record in committed:
        assert "reproduce" not in json.loads(record.to_json())
        assert (RECORDS / f"{record.stem}.record.json").is_file()
