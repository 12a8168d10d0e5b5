"""The grid, the records it leaves, and what happens after an interruption."""

import gzip
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lmms.tiny_runs import checkpoint
from lmms_eval.api import task as lmms_task
from lmms_eval.tasks import TaskManager

from swiftvlm_eval import lmms as lmms_module
from swiftvlm_eval.journal import Journal
from swiftvlm_eval.lmms import SwiftvlmLlava
from swiftvlm_eval.pruning.methods import method_names
from swiftvlm_eval.results import read_record
from swiftvlm_eval.sweep import Configuration, Sweep, make_grid, parse_methods
from swiftvlm_eval.sweep import running as sweep_module
from swiftvlm_eval.sweep.documents import Documents

LIMIT = 2
NO_COUNTS = b'{"key": "task/1/ab", "text": "yes", "counts": null}\n'


@pytest.fixture(autouse=True, scope="module")
def our_folder_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexing the stock tasks takes seconds and no test here needs them."""
    whole = TaskManager.__init__

    def ours(self: TaskManager, *args: Any, **kwargs: Any) -> None:
        whole(self, *args, **{**kwargs, "include_defaults": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskManager, "__init__", ours)
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        lmms_task._resolve_hf_datasets_cache_dir.cache_clear()
        yield
    lmms_task._resolve_hf_datasets_cache_dir.cache_clear()


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Documents that a model really answered."""
    documents: list[str] = []
    real = SwiftvlmLlava._generate

    def note(self: SwiftvlmLlava, batch: Any) -> Any:
        documents.extend(f"{request.args[-2]}/{request.args[-3]}" for request in batch)
        return real(self, batch)

    monkeypatch.setattr(SwiftvlmLlava, "_generate", note)
    return documents


def make_sweep(out: Path, *tasks: str, **options: Any) -> Sweep:
    return Sweep(checkpoint(), documents(*tasks), out, **{"limit": LIMIT, **options})


@cache
def documents(*tasks: str) -> Documents:
    return Documents(tasks or ("demo_gqa", "demo_refcoco"))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# the grid


def test_methods_are_read_with_their_options() -> None:
    assert parse_methods("vanilla, fastv[layers=3; scope=visual],random") == [
        ("vanilla", {}),
        ("fastv", {"layers": "3", "scope": "visual"}),
        ("random", {}),
    ]


def test_all_is_every_method_vanilla_first() -> None:
    names = [name for name, _ in parse_methods("all")]
    assert names[0] == "vanilla" and sorted(names) == method_names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"methods='': allowed are all, .*fastv"),
        (" , ", "allowed are all"),
        ("fastv[layers=3", r"methods='fastv\[layers=3': options are written as name\[option=value"),
        ("fastv[layers]", "options are written as"),
        ("fastv[colour=red]", r"option colour='red': fastv has no such option"),
        ("fastvv", r"method='fastvv': unknown; allowed are .*Did you mean 'fastv'"),
        ("fastv[scope=some]", "option scope='some' of fastv"),
    ],
)
def test_bad_methods(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_methods(text)


def test_the_grid_holds_vanilla_once_and_seeds_for_random_only() -> None:
    grid = make_grid(parse_methods("vanilla,fastv,random"), ["192", "1/3", "0.5"], seeds=(0, 7))
    cells = [(cell.method, round(cell.budget, 4), cell.seed) for cell in grid]
    # 192 of 576 is one third: the same cell
    assert cells == [
        ("vanilla", 1.0, 0),
        ("fastv", 0.3333, 0),
        ("fastv", 0.5, 0),
        ("random", 0.3333, 0),
        ("random", 0.3333, 7),
        ("random", 0.5, 0),
        ("random", 0.5, 7),
    ]


@pytest.mark.parametrize("budget", ["0", "577", "x", "-1", ""])
def test_bad_budgets(budget: str) -> None:
    with pytest.raises(ValueError, match=f"budget='{budget}': allowed is a share"):
        make_grid([("fastv", {})], ["192", budget])


def test_labels_tell_cells_apart() -> None:
    assert Configuration("fastv", 1 / 3).label == "fastv 0.333"
    assert Configuration("random", 0.5, {"layers": "3"}, seed=2).label == "random[layers=3] 0.5 seed 2"


# runs


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="tasks=no_such: unknown to lmms-eval"):
        Documents(["demo_gqa", "no_such"])


def test_a_record_for_every_cell_and_a_second_call_that_runs_nothing(tmp_path: Path, generated: list[str]) -> None:
    grid = make_grid([("vanilla", {}), ("fastv", {"layers": "2"})], ["0.5"])
    first = list(make_sweep(tmp_path).run(grid))
    assert [outcome.status for outcome in first] == ["done", "done"]
    assert sorted(generated) == sorted(["demo_gqa/0", "demo_gqa/1", "demo_refcoco/0", "demo_refcoco/1"] * 2)
    for outcome, cell in zip(first, grid, strict=True):
        assert outcome.record is not None
        record = read_record(outcome.record)
        assert (record.method.name, record.method.budget) == (cell.method, cell.budget)
        assert set(record.tasks) == {"demo_gqa", "demo_refcoco"}
        assert record.status == "limited" and record.settings.limit == LIMIT
        for task in record.tasks.values():
            assert (task.answered, task.failed, task.expected) == (LIMIT, 0, LIMIT)
            assert task.execution is not None and task.execution.mean_visual_tokens == pytest.approx(
                16 if cell.method == "vanilla" else 8, abs=0.5
            )
    fastv = record  # the last one
    assert fastv.method.options["layers"] in ([2], (2,))
    assert fastv.model.lmms_eval_model == "swiftvlm_llava" and fastv.model.pretrained == "tiny"
    assert not (tmp_path / "partial").exists() or not files(tmp_path / "partial")

    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    generated.clear()
    second = list(make_sweep(tmp_path).run(grid))
    assert [outcome.status for outcome in second] == ["kept", "kept"]
    assert [outcome.record for outcome in second] == [outcome.record for outcome in first]
    assert not generated
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_another_setting_is_another_cell(tmp_path: Path) -> None:
    base = Configuration("fastv", 0.5)
    sweep = make_sweep(tmp_path)
    others = [
        sweep._identity(Configuration("fastv", 0.25)),
        sweep._identity(Configuration("fastv", 0.5, {"layers": "2"})),
        sweep._identity(Configuration("fastv", 0.5, seed=1)),
        make_sweep(tmp_path, "demo_gqa")._identity(base),
        make_sweep(tmp_path, batch_size=2)._identity(base),
        make_sweep(tmp_path, limit=None)._identity(base),
    ]
    assert len({sweep._identity(base), *others}) == 7
    assert make_sweep(tmp_path, "demo_refcoco", "demo_gqa")._identity(base) == sweep._identity(base)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the model fail after so many answers; `interrupted(-1)` heals it."""
    state = SimpleNamespace(left=-1)
    model = checkpoint().model
    real = model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        if state.left == 0:
            raise KeyboardInterrupt
        state.left -= 1
        return real(*args, **kwargs)

    monkeypatch.setattr(model, "generate", generate)

    def after(answers: int) -> None:
        state.left = answers

    return after


def test_an_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, generated: list[str], interrupted: Callable[[int], None]
) -> None:
    grid = [Configuration("fastv", 0.5)]
    (whole,) = make_sweep(tmp_path / "whole").run(grid)
    asked = list(generated)
    generated.clear()

    interrupted(3)
    with pytest.raises(KeyboardInterrupt):
        list(make_sweep(tmp_path / "parts").run(grid))
    assert not (tmp_path / "parts/records").exists() or not files(tmp_path / "parts/records")
    (partial,) = (tmp_path / "parts/partial").iterdir()
    assert len(partial.read_text().splitlines()) == 3
    # a kill in the middle of a line
    with partial.open("a") as stream:
        stream.write('{"key": "demo_refcoco/1/0')

    interrupted(-1)
    generated.clear()
    (resumed,) = make_sweep(tmp_path / "parts").run(grid)
    assert resumed.status == "done"
    assert generated == asked[3:] and len(generated) == 1
    assert not files(tmp_path / "parts/partial")
    assert whole.record is not None and resumed.record is not None
    assert answers(resumed.record) == answers(whole.record)
    one, other = read_record(whole.record), read_record(resumed.record)
    assert {name: task.metrics for name, task in one.tasks.items()} == {
        name: task.metrics for name, task in other.tasks.items()
    }
    assert one.status == other.status and one.method == other.method


def test_answers_of_other_code_are_not_mixed_in(
    tmp_path: Path, generated: list[str], interrupted: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = [Configuration("fastv", 0.5)]
    for module in (sweep_module, lmms_module):
        monkeypatch.setattr(module, "commit", lambda: "0" * 40)
    interrupted(3)
    with pytest.raises(KeyboardInterrupt):
        list(make_sweep(tmp_path).run(grid))
    for module in (sweep_module, lmms_module):
        monkeypatch.setattr(module, "commit", lambda: "1" * 40)
    interrupted(-1)
    generated.clear()
    (resumed,) = make_sweep(tmp_path).run(grid)
    assert len(generated) == 2 * LIMIT
    assert resumed.record is not None and read_record(resumed.record).software.commit == "1" * 40
    assert not files(tmp_path / "partial")


def answers(record: Path) -> list[tuple[Any, ...]]:
    """(task, document, answer, visual rows) of a record's per-sample file."""
    (path,) = record.parent.glob("*samples*")
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert len(lines) == 2 * LIMIT
    return [(line["task"], line["doc_id"], line["prediction"], line["output_tokens"]) for line in lines]


def test_a_budget_out_of_reach_is_refused_and_the_others_run(tmp_path: Path, generated: list[str]) -> None:
    grid = [Configuration("fastv", 0.01), Configuration("fastv", 0.5, {"layers": "99"}), Configuration("random", 0.5)]
    budget, layers, done = make_sweep(tmp_path, "demo_gqa").run(grid)
    assert (budget.status, budget.record) == ("refused", None)
    # one token from layer 1 of 12: (16 + 11) / 12
    assert "budget=0.01 of 16 visual tokens" in budget.reason and "is 2.2 to 16 tokens" in budget.reason
    assert layers.status == "refused" and "layers=[99]: allowed are" in layers.reason
    assert done.status == "done" and done.record is not None and done.record.is_file()
    assert generated == ["demo_gqa/0", "demo_gqa/1"]


# the journal


def request(doc_id: int = 0, prompt: str = "Why?", **generation: Any) -> SimpleNamespace:
    return SimpleNamespace(args=(prompt, generation, None, doc_id, "task", "test"))


def test_the_journal_finds_the_same_request_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    journal = Journal(path)
    assert journal.find(request()) is None and not path.exists()
    journal.add(request(max_new_tokens=4, until=["\n"]), "ja\n\u2028 §", {"input_tokens": 3})
    for found in (journal, Journal(path)):
        assert len(found) == 1
        assert found.find(request(until=["\n"], max_new_tokens=4)) == ("ja\n\u2028 §", {"input_tokens": 3})
        others: list[dict[str, Any]] = [{"doc_id": 1}, {"prompt": "Who?"}, {"max_new_tokens": 5}, {"until": []}]
        for other in others:
            same: dict[str, Any] = {"max_new_tokens": 4, "until": ["\n"]}
            assert found.find(request(**{**same, **other})) is None


@pytest.mark.parametrize(
    "broken",
    [b'{"key": "task/1/ab', b"not json\n", b"[1, 2]\n", b'{"key": "k"}\n', b"\x00\x00\xff\n", NO_COUNTS],
    ids=["cut", "text", "list", "incomplete", "bytes", "no-counts"],
)
def test_a_broken_line_costs_that_line(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    journal = Journal(path)
    journal.add(request(0), "first", {"output_tokens": 1})
    sound = path.read_bytes()
    path.write_bytes(sound + broken)
    again = Journal(path)
    assert len(again) == 1 and again.find(request(0)) == ("first", {"output_tokens": 1})
    again.add(request(1), "second", {"output_tokens": 2})
    last = Journal(path)
    assert (len(last), last.find(request(0)), last.find(request(1))) == (
        2,
        ("first", {"output_tokens": 1}),
        ("second", {"output_tokens": 2}),
    )
    assert path.read_bytes().startswith(sound)


def test_closing_removes_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.jsonl")
    journal.close()
    journal.add(request(), "a", {})
    journal.close()
    assert not files(tmp_path)
