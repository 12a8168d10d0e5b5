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


MEASURED = ("--shape", TINY, "--rounds", "3", "--output-tokens", "2", "--device", "cpu", "--part-rounds", "1")


def test_latency_measures_every_contender_beside_the_stock_model() -> None:
    status, output, _ = run("latency", "--methods", "random", "--budgets", "192", *MEASURED, "--json")
    stock, again, kept, pruned = json.loads(output)
    assert status == 0
    assert [row["contender"] for row in (stock, again, kept)] == ["stock", "stock again", "engine, nothing pruned"]
    assert stock["mean_visual_tokens"] == 576 and stock["share"] == 1
    assert pruned["mean_visual_tokens"] == pytest.approx(192, abs=0.5) and pruned["implied_speedup"] > 1.5
    assert pruned["cache_bytes"] < stock["cache_bytes"] and pruned["peak_bytes"] < stock["peak_bytes"]
    for row in (stock, again, kept, pruned):
        assert row["prefill_ms"] > 0 and row["decode_ms"] > 0
        assert row["tails_ms"]["prefill"]["count"] == 3 and row["tails_ms"]["prefill"]["p90"] is None
        assert set(row["parts_ms"]) == {"tower", "projector", "selection", "decoder", "other"}
        if row["prefill_speedup"] is not None:  # the machine was quiet
            middle, low, high = row["prefill_speedup"]
            assert low <= middle <= high and row["of_implied"] == pytest.approx(middle / row["implied_speedup"])


def test_a_latency_record_is_shown_by_the_leaderboard(tmp_path: Path) -> None:
    options = (*MEASURED, "--threads", "1", "--clock", "cpu", "--batch-size", "2", "--image-size", "336x336")
    methods = ("--methods", "random,fastv[layers=3]", "--budgets", "0.7")
    status, output, said = run("latency", *methods, *options, "--out", str(tmp_path / "times"))
    assert status == 1 and "not measured: fastv" in said and "random" in output and "selection %" in output
    (path,) = (tmp_path / "times").iterdir()
    told = json.loads(path.read_text())
    assert [each["label"] for each in told["contenders"]][3:] == ["random 0.7"]
    assert list(told["refused"]) == ["fastv[layers=3] 0.7"]
    assert told["machine"]["threads"] == 1 and told["settings"]["clock"] == "cpu" and told["settings"]["rounds"] == 3
    assert told["model"]["num_layers"] == 4 and told["model"]["family"] == "llava_next"
    assert told["workload"]["batch_size"] == 2 and told["workload"]["image_size"] == [336, 336]
    assert told["settings"]["dtype"] == "float32", "of a CPU, if nothing is said"
    assert "torch" in told["software"]["versions"] and told["peak_method"] == "cpu_allocator_events"
    status, _, _ = run("leaderboard", str(tmp_path / "times"), "--out", str(tmp_path / "pages"))
    page = (tmp_path / "pages" / "latency.md").read_text()
    assert status == 0 and "random 0.7" in page and "fastv\\[layers=3\\] 0.7" in page


def busy(*_: object, **__: object) -> tuple[float, float, float]:
    return 1.2, 1.1, 1.3


def test_a_busy_machine_is_said_and_leaves_no_plot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The intervals are set; the record's own check of the medians is left to its tests."""
    from swiftvlm_eval.leaderboard.compute import latency
    from swiftvlm_eval.results import latency_record

    monkeypatch.setattr(latency, "paired_ratio", busy)
    monkeypatch.setattr(latency_record.math, "isclose", lambda *_, **__: True)
    plot = tmp_path / "plot.svg"
    status, output, said = run("latency", "--methods", "random", *MEASURED, "--plot", str(plot))
    words = " ".join(said.split())
    assert status == 1 and not plot.exists() and "no plot" in words
    assert "differs from itself (prefill 1.20 [1.10, 1.30], decode 1.20 [1.10, 1.30])" in words
    assert "1.20" not in output, "no speed-up is given"


def quiet(*_: object, **__: object) -> tuple[float, float, float]:
    return 1.0, 0.9, 1.1


def test_a_plot_of_several_budgets_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from swiftvlm_eval.leaderboard.compute import latency
    from swiftvlm_eval.results import latency_record

    monkeypatch.setattr(latency, "paired_ratio", quiet)
    monkeypatch.setattr(latency_record.math, "isclose", lambda *_, **__: True)
    plot = tmp_path / "new" / "plot.png"
    command = ("latency", "--methods", "random", "--budgets", "1/3,2/3", *MEASURED, "--plot", str(plot))
    assert run(*command)[0] == 0 and plot.read_bytes().startswith(b"\x89PNG")
    status, _, said = run(*command)
    assert status == 1 and "is there already" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--out", "latency.json"), "out='latency.json': allowed is a folder"),
        (("--plot", "plot.txt"), "plot='plot.txt': allowed is a file that ends in .png or .svg"),
        (("--budgets", "0.3333,0.33333"), "allowed are such that differ in three digits; random 0.333 is there twice"),
        (("--methods", "vanilla"), "methods='vanilla': allowed are methods beside vanilla"),
        (("--image-size", "672x672", "--budgets", "192"), "budget='192': allowed is a share"),
        (("--shape", "llava-2"), "shape='llava-2': allowed are llava-1.5-7b"),
        (("--device", "sun"), "device='sun': not on this machine"),
    ],
)
def test_what_latency_does_not_do_is_said_at_once(
    options: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swiftvlm_eval.efficiency import latency

    monkeypatch.setattr(latency, "measure", lambda *_, **__: pytest.fail("measured"))
    status, _, printed = run("latency", "--shape", TINY, "--methods", "random", *options)
    assert status == 1 and said in " ".join(printed.split())


def test_what_does_not_fit_the_memory_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from swiftvlm_eval.efficiency import latency, memory

    monkeypatch.setattr(latency, "measure", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setattr(memory, "available_bytes", lambda _: 2**30)
    status, _, said = run("latency", "--shape", "llava-1.5-7b", "--device", "cpu", "--dtype", "float16")
    words = " ".join(said.split())
    assert (
        status == 1
        and "shape llava-1.5-7b, dtype float16, batch_size 1: needs 13.5 GiB" in words
        and "1.0 GiB" in words
    )


def test_a_gpu_has_no_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from swiftvlm_eval.models import checkpoint

    for device, word in (
        ("cuda", "clock='cpu': allowed with device=cuda is wall"),
        ("mps", "allowed are cpu and cuda"),
    ):
        monkeypatch.setattr(checkpoint, "resolve_device", lambda _, device=device: torch.device(device))
        status, _, said = run("latency", "--shape", TINY, "--methods", "random", "--clock", "cpu")
        assert status == 1 and word in " ".join(said.split())
