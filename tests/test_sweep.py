"""The grid, the records it leaves, and what happens after an interruption."""

import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lmms.tiny_runs import checkpoint
from lmms_eval.api import task as lmms_task
from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
from lmms_eval.tasks import TaskManager

from swiftvlm_eval import lmms as lmms_module
from swiftvlm_eval.journal import Journal
from swiftvlm_eval.lmms import SwiftvlmLlava
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.methods import method_names
from swiftvlm_eval.pruning.methods.random import Random
from swiftvlm_eval.results import read_record
from swiftvlm_eval.sweep import Configuration, Sweep, make_grid, parse_methods, parse_shard
from swiftvlm_eval.sweep import running as sweep_module
from swiftvlm_eval.sweep.claims import Claim
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


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "/4", "1/", "a/b", "-1/4", "1/4/2", "", "1.0/4"])
def test_bad_shards(text: str) -> None:
    with pytest.raises(ValueError, match=rf"shard='{text}': allowed is K/N with K from 1 to N, such as 3/16"):
        parse_shard(text)


@pytest.mark.parametrize("parts", [1, 2, 3, 16, 100])
def test_shards_share_a_grid_without_gap_or_overlap(parts: int) -> None:
    grid = [Configuration("fastv", share / 100) for share in range(1, 41)]
    shards = [grid[parse_shard(f"{part}/{parts}")] for part in range(1, parts + 1)]
    assert sorted((cell for shard in shards for cell in shard), key=lambda cell: cell.budget) == grid
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert [cell.budget for cell in grid[parse_shard("3/16")]] == [0.03, 0.19, 0.35]


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


@pytest.mark.parametrize(
    ("error", "status"),
    [(BudgetError("budget=0.5 of 3 visual tokens: too few"), "refused"), (RuntimeError("out of memory"), None)],
)
def test_only_a_budget_that_an_image_forbids_is_refused_while_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str | None
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint().model, "generate", fails)
    grid = [Configuration("fastv", 0.5)]
    if status is None:
        with pytest.raises(RuntimeError, match="demo_gqa doc_id 0: out of memory"):
            list(make_sweep(tmp_path, "demo_gqa").run(grid))
    else:
        (outcome,) = make_sweep(tmp_path, "demo_gqa").run(grid)
        assert (outcome.status, outcome.record) == (status, None)
        assert "too few" in outcome.reason
    # either way nobody is kept from trying again
    assert Claim(tmp_path / "claims", make_sweep(tmp_path, "demo_gqa")._identity(grid[0])).take() is None


def test_every_seed_draws_its_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[int, list[list[int]]] = {0: [], 7: []}
    select = Random.select
    current = [0]

    def note(self: Random, signals: Any) -> Any:
        edit = select(self, signals)
        drawn[current[0]].append(edit.index.tolist())
        return edit

    monkeypatch.setattr(Random, "select", note)
    sweep = make_sweep(tmp_path, "demo_gqa")
    for seed in drawn:
        current[0] = seed
        (outcome,) = sweep.run([Configuration("random", 0.5, seed=seed)])
        assert outcome.record is not None and read_record(outcome.record).settings.seed == seed
    assert len(drawn[0]) == len(drawn[7]) == LIMIT
    assert all(one != other for one, other in zip(drawn[0], drawn[7], strict=True))


# what a run that lost something leaves


def test_a_lost_samples_file_makes_no_record(
    tmp_path: Path, generated: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """lmms-eval only warns when it cannot write the samples of a task."""
    grid = [Configuration("fastv", 0.5)]
    save = EvaluationTracker.save_results_samples

    def loses_one(self: EvaluationTracker, task_name: str, samples: Any) -> None:
        if task_name != "demo_refcoco":
            save(self, task_name, samples)

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationTracker, "save_results_samples", loses_one)
        with pytest.raises(RuntimeError, match=r"fastv 0\.5: documents are missing .*\(demo_refcoco 0 of 2\)"):
            list(make_sweep(tmp_path).run(grid))
    assert not list(tmp_path.rglob("*.record.json"))
    assert len(files(tmp_path / "partial")) == 1
    generated.clear()
    (again,) = make_sweep(tmp_path).run(grid)
    assert again.status == "done" and not generated
    assert len(list((tmp_path / "lmms_eval").rglob("*_results.json"))) == 1
    assert not files(tmp_path / "partial")


@pytest.mark.parametrize("lost", [1, LIMIT])
def test_documents_that_lmms_eval_leaves_out_make_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    save = EvaluationTracker.save_results_samples

    def cuts(self: EvaluationTracker, task_name: str, samples: Any) -> None:
        save(self, task_name, samples[lost:])

    monkeypatch.setattr(EvaluationTracker, "save_results_samples", cuts)
    with pytest.raises(RuntimeError, match=rf"\(demo_gqa {LIMIT - lost} of 2\), so there is no record"):
        list(make_sweep(tmp_path, "demo_gqa").run([Configuration("vanilla", 1.0)]))


def test_results_that_cannot_be_written_make_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older results file in the folder does not stand in."""
    sweep, grid = make_sweep(tmp_path, "demo_gqa"), [Configuration("vanilla", 1.0)]
    (outcome,) = make_sweep(tmp_path / "other", "demo_gqa").run(grid)
    (older,) = (tmp_path / "other/lmms_eval").rglob("*_results.json")
    written: list[str] = []

    def writes_an_older_one(self: EvaluationTracker, results: Any, samples: Any, datetime_str: str) -> None:
        self.date_id = datetime_str
        written.append(datetime_str)
        folder = Path(str(self.output_path))
        folder.mkdir(parents=True)
        (folder / "20991231_235959_results.json").write_bytes(older.read_bytes())

    monkeypatch.setattr(EvaluationTracker, "save_results_aggregated", writes_an_older_one)
    with pytest.raises(RuntimeError, match="lmms-eval wrote no results file"):
        list(sweep.run(grid))
    assert written and not list((tmp_path / "records").rglob("*"))


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    """A kill right after the aggregate was written, and others while a record was."""
    grid = [Configuration("fastv", 0.5)]
    sweep = make_sweep(tmp_path, "demo_gqa")
    identity = sweep._identity(grid[0])
    lmms_eval, records = tmp_path / "lmms_eval" / identity, tmp_path / "records" / identity
    for left in (
        lmms_eval / "model" / "20200101_000000_results.json",
        records / ".x.record.json.1.part",
        records / "x.samples.jsonl.gz",
    ):
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_text("{}")
    (done,) = sweep.run(grid)
    assert done.record is not None
    assert len(list(lmms_eval.rglob("*_results.json"))) == 1
    assert sorted(path.name for path in records.iterdir()) == sorted(
        [done.record.name, done.record.name.replace(".record.json", ".samples.jsonl.gz")]
    )
    # a kill between the record and the end
    (tmp_path / "partial").mkdir(exist_ok=True)
    for stale in (f"{identity}-00000000.jsonl", f"{identity}-00000000.1.jsonl", "other-00000000.jsonl"):
        (tmp_path / "partial" / stale).write_text("")
    (records / ".x.samples.jsonl.gz.2.part").write_text("")
    (kept,) = sweep.run(grid)
    assert (kept.status, kept.record) == ("kept", done.record)
    assert files(tmp_path / "partial") == ["other-00000000.jsonl"]
    assert len(list(records.iterdir())) == 2


# many hands


def test_what_another_process_runs_is_left_to_it(tmp_path: Path, generated: list[str]) -> None:
    first, second = Configuration("fastv", 0.5), Configuration("vanilla", 1.0)
    sweep = make_sweep(tmp_path, "demo_gqa")
    other = Claim(tmp_path / "claims", sweep._identity(first))
    assert other.take() is None
    outcomes = sweep.run([first, second])
    done, claimed = outcomes
    assert (done.configuration, done.status) == (second, "done")
    assert (claimed.configuration, claimed.status, claimed.record) == (first, "claimed", None)
    assert claimed.reason == f"run by process {os.getpid()} on {socket.gethostname()}, since 0 min"
    assert generated == ["demo_gqa/0", "demo_gqa/1"]
    other.release(done=False)
    assert [outcome.status for outcome in sweep.run([first, second])] == ["done", "kept"]
    assert not files(tmp_path / "claims")


def test_a_record_that_appeared_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first look and the claim, and between the first pass and the second."""
    grid = [Configuration("fastv", 0.5)]
    (whole,) = make_sweep(tmp_path / "whole", "demo_gqa").run(grid)
    assert whole.record is not None
    sweep = make_sweep(tmp_path / "shared", "demo_gqa")
    take, found = Claim.take, whole.record.parent

    def another_is_done(self: Claim) -> str | None:
        shutil.copytree(found, tmp_path / "shared/records" / found.name)
        return take(self)

    monkeypatch.setattr(Claim, "take", another_is_done)
    (outcome,) = sweep.run(grid)
    assert outcome.status == "kept" and outcome.record is not None
    assert not files(tmp_path / "shared/claims")

    def another_is_nearly_done(self: Claim) -> str:
        shutil.copytree(found, tmp_path / "later/records" / found.name)
        return "run by another process"

    monkeypatch.setattr(Claim, "take", another_is_nearly_done)
    (outcome,) = make_sweep(tmp_path / "later", "demo_gqa").run(grid)
    assert outcome.status == "kept" and outcome.record is not None


def note(folder: Path, **changes: Any) -> Path:
    started = (datetime.now(UTC) - timedelta(hours=3, minutes=12)).isoformat()
    path = folder / "cell.json"
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": 4711, "started": started} | changes))
    return path


def test_the_claim_of_a_dead_process_of_this_host_is_taken_over(tmp_path: Path) -> None:
    left = note(tmp_path)
    (tmp_path / "cell.lock").write_text("")
    claim = Claim(tmp_path, "cell")
    assert claim.take() is None
    assert json.loads(left.read_text())["pid"] == os.getpid()
    claim.release(done=False)
    assert not left.exists()
    left.write_text('{"host": "no')  # a kill in the middle of a note
    assert claim.take() is None


def test_the_claim_of_another_host_is_shown(tmp_path: Path) -> None:
    left = note(tmp_path, host="node7")
    claim = Claim(tmp_path, "cell")
    expected = (
        f"run by process 4711 on node7, since 3 h 12 min; if that process is gone, delete {tmp_path.name}/cell.json"
    )
    assert claim.take() == expected
    assert claim.take() == expected and left.exists()
    left.unlink()
    assert claim.take() is None


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from swiftvlm_eval.sweep.claims import Claim\n"
        "claim = Claim(Path(sys.argv[1]), 'cell'); print(claim.take(), os.getpid(), flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().split() == ["None", str(other.pid)]
        claim = Claim(tmp_path, "cell")
        assert claim.take() == f"run by process {other.pid} on {socket.gethostname()}, since 0 min"
        other.kill()
        other.wait()
    assert claim.take() is None


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


def test_answers_of_every_process_are_found_whatever_their_number_now(tmp_path: Path) -> None:
    path, report = tmp_path / "cell-code.jsonl", {"visual_tokens": 16, "run": {"seed": 3, "world_size": 2}}
    for process in range(2):
        journal = Journal(path, process, 2)
        journal.add(request(process), f"answer {process}", {"swiftvlm": report, "input_tokens": 5})
    (tmp_path / "cell-code.1.jsonl").open("a").write('{"key": "ta')  # cut off by a kill
    Journal(tmp_path / "cell-other.jsonl").add(request(2), "of other code", {})
    assert files(tmp_path) == ["cell-code.1.jsonl", "cell-code.jsonl", "cell-other.jsonl"]
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    for process, count in [(0, 1), (0, 3), (2, 3)]:
        journal = Journal(path, process, count)
        assert len(journal) == 2 and journal.find(request(2)) is None
        for number in range(2):
            text, counts = journal.find(request(number)) or ("", {})
            assert text == f"answer {number}" and counts["input_tokens"] == 5
            # an answer is part of the run that ends now
            assert counts["swiftvlm"] == {"visual_tokens": 16, "run": {"seed": 3, "world_size": count}}
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    Journal(path, 1, 2).add(request(5), "after the cut", {})
    assert len(Journal(path)) == 3
    Journal(path).close()
    assert files(tmp_path) == ["cell-other.jsonl"]


def test_closing_removes_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.jsonl")
    journal.close()
    journal.add(request(), "a", {})
    journal.close()
    assert not files(tmp_path)
