"""The embedded model keeps what its card promises, and every method prunes it as planned."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_runs import evaluate, our_tasks

from swiftvlm_eval import make_method, method_names, prune
from swiftvlm_eval.demo import checkpoint_path
from swiftvlm_eval.lmms import SwiftvlmLlava
from swiftvlm_eval.models.checkpoint import Checkpoint, load_checkpoint
from swiftvlm_eval.models.prompts import vicuna_v1
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.results import shipped_benchmarks

RECORDS = Path(__file__).parents[2] / "leaderboards" / "demo" / "records"
CARD = json.loads((checkpoint_path().parent / "card.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def demo() -> Checkpoint:
    return load_checkpoint("demo", device="cpu", dtype="float32", attn_implementation="sdpa")


def test_vanilla_scores_as_on_the_card() -> None:
    """The card's numbers come from a loop of the trainer's; the record's from lmms-eval with our model class."""
    record = json.loads(next(RECORDS.glob("demo--vanilla--*.record.json")).read_text(encoding="utf-8"))
    table = shipped_benchmarks()
    for benchmark in (table.benchmarks[key] for key in table.sets["demo"]):
        score = record["tasks"][benchmark.task]["metrics"][benchmark.metric]
        assert score["value"] == pytest.approx(CARD["scores"][benchmark.task]["accuracy"], abs=0.01)
        assert score["n"] == CARD["scores"][benchmark.task]["n"] >= 500


def test_vanilla_answers_as_its_committed_record_says(demo: Checkpoint) -> None:
    with gzip.open(next(RECORDS.glob("demo--vanilla--*.samples.jsonl.gz")), "rt", encoding="utf-8") as lines:
        committed = {(line["task"], line["doc_id"]): line["prediction"] for line in map(json.loads, lines)}
    model = SwiftvlmLlava(checkpoint=demo, method="vanilla", batch_size=32, device="cpu")
    samples = evaluate(model, "demo", manager=our_tasks(), limit=60, log_samples=True)["samples"]
    answers = {(task, line["doc_id"]): line["filtered_resps"][0] for task, own in samples.items() for line in own}
    assert len(answers) == 4 * 60
    assert answers == {key: committed[key] for key in answers}


@pytest.mark.parametrize("budget", ["1/3", "2/9"])
@pytest.mark.parametrize("name", [name for name in method_names() if name != "vanilla"])
def test_every_method_prunes_as_planned(name: str, budget: str, demo: Checkpoint) -> None:
    image = Image.new("RGB", (200, 140), (30, 90, 200))
    inputs = demo.encode([vicuna_v1("Is there a red circle in the image?")], [[image]])
    share = 1 / 3 if budget == "1/3" else 2 / 9
    try:
        make_method(name).plan(144, 12, share)
    except BudgetError:  # rightly: the layers before the first cut alone cost more
        assert make_method(name).boundaries(12, share)[0] / 12 > share
        return
    with prune(demo.model, make_method(name), budget=budget) as session, torch.inference_mode():
        demo.model(**inputs, logits_to_keep=1)
    trace = session.traces[0]
    assert trace.num_visual == 144
    if not trace.plan.adaptive or name == "downsample":
        assert tuple(trace.rows_per_layer) == trace.plan.rows_per_layer
    if not trace.plan.adaptive:
        assert abs(trace.mean_visual_tokens - 144 * share) <= 0.5
