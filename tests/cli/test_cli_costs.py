"""`flops` and `latency` as a user starts them."""

import json
from pathlib import Path

import pytest
from command_line import run

TINY = "64,128,4,4"


def test_a_checkpoint_is_counted_with_its_own_visual_tokens() -> None:
    status, output, _ = run("flops", "--model", "demo", "--methods", "vanilla,random", "--budgets", "1/3", "--json")
    vanilla, random = json.loads(output)
    assert status == 0 and vanilla["mean_visual_tokens"] == 144
    # 12 layers of width 128 and an MLP of 344, 144 + 70 rows: 4 n d^2 + 2 n^2 d + 3 n d m each.
    rows, width, mlp = 144 + 70, 128, 344
    by_hand = 12 * (4 * rows * width**2 + 2 * rows**2 * width + 3 * rows * width * mlp) / 1e12
    assert vanilla["tflops"] == pytest.approx(by_hand)
    assert random["mean_visual_tokens"] == pytest.approx(48, abs=0.5)
    assert run("flops", "--model", "demo", "--methods", "vanilla", "--visual-tokens", "576")[0] == 0


def test_layers_selection_and_the_papers_count_are_columns_of_their_own() -> None:
    command = ("flops", "--methods", "swiftvlm", "--budgets", "192")
    status, output, _ = run(*command)
    heading, row = (next(line for line in output.splitlines() if key in line) for key in ("method", "exact"))
    assert status == 0
    assert (
        heading.index("layers T") < heading.index("selection T") < heading.index("total T") < heading.index("paper T")
    )
    for number in ("1.7201", "0.0196", "1.7396", "1.7503"):
        assert number in row
    (counted,) = json.loads(run(*command, "--json")[1])
    # queries of three stages; keys of all 576 tokens at the second and the third
    assert counted["selection_tflops"]["queries"] == pytest.approx(3 * 4096**2 / 1e12)
    assert counted["selection_tflops"]["keys"] == pytest.approx(2 * 576 * 4096**2 / 1e12)
    assert set(counted["overhead_tflops"]) == {"merging", "scoring"}


def test_a_budget_that_cannot_be_met_is_said_and_counts_as_failure() -> None:
    status, output, _ = run("flops", "--methods", "swiftvlm", "--budgets", "1%")
    assert status == 1 and "feasible" in output


def test_a_count_is_read_for_576_visual_tokens_only() -> None:
    status, output, _ = run("flops", "--methods", "random", "--budgets", "192, 192/576,33%", "--json")
    assert status == 0
    assert [row["mean_visual_tokens"] for row in json.loads(output)] == pytest.approx([192, 192, 190.08], abs=0.5)
    for model in (["--visual-tokens", "2880"], ["--model", "demo"]):
        status, _, said = run("flops", "--methods", "random", "--budgets", "192", *model)
        assert status == 1 and "budget='192': allowed is a share" in said and "640/2880" in said
    assert run("flops", "--methods", "random", "--budgets", "640/2880", "--visual-tokens", "2880")[0] == 0


@pytest.mark.parametrize("shape", ["10,10,10,3", "64,64,4,4,3", "12,64,4,4"])
@pytest.mark.parametrize("command", ["flops", "latency"])
def test_heads_that_do_not_divide_are_refused(command: str, shape: str) -> None:
    status, _, said = run(command, "--methods", "random", "--shape", shape)
    assert status == 1 and f"shape='{shape}': hidden must be a multiple" in said


def test_latency_measures_every_contender_beside_the_stock_model() -> None:
    options = ("--shape", TINY, "--rounds", "3", "--dtype", "float32", "--output-tokens", "2", "--json")
    status, output, _ = run("latency", "--methods", "random", "--budgets", "192", "--device", "cpu", *options)
    stock, again, kept, pruned = json.loads(output)
    assert status == 0
    assert [row["contender"] for row in (stock, again, kept)] == ["stock", "stock again", "engine, nothing pruned"]
    assert stock["prefill_speedup"] == [1.0, 1.0, 1.0] and stock["mean_visual_tokens"] == 576
    assert pruned["mean_visual_tokens"] == pytest.approx(192, abs=0.5) and pruned["implied_speedup"] > 1.5
    for row in (stock, again, kept, pruned):
        assert row["prefill_ms"] > 0 and row["decode_ms"] > 0
        middle, low, high = row["prefill_speedup"]
        assert low <= middle <= high
        assert row["of_implied"] == pytest.approx(middle / row["implied_speedup"])


def test_a_latency_file_tells_rows_machine_and_what_was_not_measured(tmp_path: Path) -> None:
    out = tmp_path / "latency.json"
    options = ("--shape", TINY, "--rounds", "3", "--dtype", "float32", "--output-tokens", "1", "--device", "cpu")
    methods = ("--methods", "random,fastv[layers=3]", "--budgets", "0.7", "--threads", "1", "--clock", "cpu")
    status, output, said = run("latency", *methods, *options, "--out", str(out))
    told = json.loads(out.read_text())
    assert status == 1 and "not measured: fastv" in said and "random" in output
    assert [row["contender"] for row in told["rows"]][3:] == ["random 0.7"]
    assert list(told["refused"]) == ["fastv[layers=3] 0.7"]
    assert told["machine"]["threads"] == 1 and told["settings"]["clock"] == "cpu"
    assert told["settings"]["workload"]["shape"]["num_layers"] == 4 and told["steady"] in (True, False)
    assert "torch" in told["versions"] and "commit" in told
    before = out.read_bytes()
    status, _, said = run("latency", *methods, *options, "--out", str(out))
    assert status == 1 and "is there already" in said and out.read_bytes() == before
