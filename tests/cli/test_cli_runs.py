"""Bad input to the commands that run a model: one message with field and value, status 1, nothing lost."""

from pathlib import Path

import pytest
from command_line import run
from fake_runs import description, samples_of, write_run
from tiny_checkpoint import in_memory

from swiftvlm_eval import sweep
from swiftvlm_eval.cli import demo
from swiftvlm_eval.cli.demo import forget
from swiftvlm_eval.cli.sweeping import exit_status, say_budgets
from swiftvlm_eval.results import import_run, write_record
from swiftvlm_eval.sweep import Configuration, Outcome


def stored(out: Path, pretrained: str) -> list[Path]:
    lines = samples_of([1.0, 0.0], "exact_match", description("fastv", pretrained=pretrained))
    results = write_run(out / "lmms_eval", {"gqa": ("exact_match", lines)})
    write_record(*import_run(results), out / "records")
    return sorted(path for path in out.rglob("*") if path.is_file())


def test_a_mistyped_method_deletes_nothing(tmp_path: Path) -> None:
    files = stored(tmp_path, "demo")
    status, _, output = run("demo", "--fresh", "--out", str(tmp_path), "--methods", "swiftvm")
    assert status == 1 and "'swiftvm': unknown" in output
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files


def test_records_of_another_model_are_not_forgotten(tmp_path: Path) -> None:
    files = stored(tmp_path, "llava-hf/llava-1.5-7b-hf")
    with pytest.raises(ValueError, match="holds what is not a record of the demo model"):
        forget(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files


def test_results_of_the_demo_model_are_forgotten(tmp_path: Path) -> None:
    stored(tmp_path, "demo")
    (tmp_path / "partial").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("command", [["sweep", "--model", "demo"], ["demo"], ["demo-data"]])
def test_a_folder_that_cannot_be_made_is_named_before_any_work(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").write_text("")
    status, _, output = run(*command, "--out", str(tmp_path / "file" / "deep"))
    assert status == 1 and "file/deep cannot be made or written" in output


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seeds", "x", "seeds='x': allowed are comma-separated whole numbers from 0"),
        ("--seeds", "", "seeds='': allowed are"),
        ("--tasks", " , ", "tasks=' , ': names at least one"),
        ("--budgets", "nan", "budget='nan'"),
        ("--budgets", "1/3,1e10000000", "budget='1e10000000'"),
        ("--budgets", "1.5", "is a slip"),
        ("--budgets", "2880/640", "more than the whole"),
        ("--methods", "", "methods='': allowed are all"),
        ("--batch-size", "0", "batch_size='0': allowed are whole numbers from 1, and auto"),
        ("--batch_size", "8.5", "batch_size='8.5': allowed are whole numbers from 1, and auto"),
        ("--shard", "17/16", "shard='17/16': allowed is K/N with K from 1 to N"),
    ],
)
def test_a_bad_option_is_named_before_the_model_is_loaded(
    tmp_path: Path, option: str, value: str, message: str
) -> None:
    status, _, output = run("sweep", "--model", str(tmp_path / "none"), "--out", str(tmp_path / "out"), option, value)
    assert status == 1 and message in output


@pytest.mark.parametrize(("family", "why"), [("llava", "images are 16"), ("llava_next", "depend on the image")])
def test_a_count_for_another_family_is_refused_before_weights_are_read(tmp_path: Path, family: str, why: str) -> None:
    in_memory(family, grid=4, layers=12).model.config.save_pretrained(tmp_path / "model")  # a config and nothing else
    options = ("--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--tasks", "demo_gqa")
    status, _, output = run("sweep", *options, "--methods", "fastv", "--budgets", "1/3,192")
    assert status == 1 and "budget='192': allowed is a share" in output and why in output and "640/2880" in output


def test_the_demo_refuses_counts_for_576_tokens(tmp_path: Path) -> None:
    status, _, output = run("demo", "--out", str(tmp_path), "--budgets", "192")
    assert status == 1 and "budget='192': allowed is a share" in output and "images are 144" in output


def test_budgets_are_said_once_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    say_budgets(["1/3", "50%", "1"], 144)
    say_budgets(["640/2880"], None)
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "budget 1/3: 0.3333 (48.0 of 144 visual tokens a layer on average)",
        "budget 50%: 0.5 (72.0 of 144 visual tokens a layer on average)",
        "budget 640/2880: 0.2222 (of each image's own visual tokens, a layer on average)",
    ]


def test_the_exit_status_says_whether_every_configuration_has_its_record(tmp_path: Path) -> None:
    def outcomes(*statuses: str) -> list[Outcome]:
        record = tmp_path / "x.record.json"
        cell = Configuration("fastv", 0.5)
        return [Outcome(cell, status, record if status in ("done", "kept") else None) for status in statuses]

    assert exit_status(outcomes("done", "kept")) == 0 == exit_status([])
    assert exit_status(outcomes("done", "refused")) == 1 == exit_status(outcomes("claimed", "kept"))


def test_the_demo_reads_its_grid_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    parse = sweep.parse_methods
    monkeypatch.setattr(sweep, "parse_methods", lambda text: read.append(text) or parse(text))

    def stop(_: str, __: Path, grid: list[Configuration], *___: object, **____: object) -> None:
        raise ValueError(f"{len(grid)} configurations")

    monkeypatch.setattr(demo, "run_sweep", stop)
    status, _, output = run("demo", "--out", str(tmp_path), "--methods", "vanilla,fastv")
    assert status == 1 and "3 configurations" in output
    assert read == ["vanilla,fastv"]


def test_generated_data_is_where_it_was_asked_for(tmp_path: Path) -> None:
    status, _, output = run("demo-data", "--split", "val", "--count", "2", "--out", str(tmp_path / "neu ü"))
    assert status == 0 and output.count("wrote") == 4
    assert len(list((tmp_path / "neu ü").glob("*.parquet"))) == 4
    status, _, output = run("demo-data", "--split", "tset", "--out", str(tmp_path / "other"))
    assert status == 2 and "'tset' is not one of 'train', 'val', 'test'" in output
