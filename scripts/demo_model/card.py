"""The model card: `card.json` holds the facts, README.md is rendered from it, curves.png shows the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

from swiftvlm_eval.demo import DATA_NAMES

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend must be chosen first)

CURVES = (
    ("box_plain", "box, one of a kind"),
    ("box_relation", "box, among look-alikes"),
    ("number", "read a number"),
    ("word", "read a word"),
    ("colour", "colour"),
    ("colour_relation", "colour, with relation"),
    ("shape", "shape"),
    ("count", "count"),
    ("adversarial", "absent, adversarial"),
    ("yes", "present"),
)


WINDOWS = 15
"""Windows of the running mean that fit into a stage."""


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts in `folder`/card.json."""
    facts: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return facts


def write_facts(facts: dict[str, Any], folder: Path) -> None:
    """Writes card.json under `folder`."""
    (folder / "card.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


def training_minutes(curves: Path) -> float:
    """Minutes of training in the CSV of the loop; what a killed run lost after its last saved state is not in it."""
    seconds = pd.read_csv(curves)["seconds"]  # start anew with each stage and each process
    passed = seconds.diff()
    return float(passed.where(passed >= 0, seconds).sum()) / 60


def render_card(facts: dict[str, Any], tables: dict[str, str], orders: str) -> str:
    """README.md of the demo model.

    Args:
        facts: `parameters`, `bytes`, `stages` (name, steps, images, learning_rate), `scores` as given by
            `evaluation.evaluate`, `torch`, `transformers`, `seed`, `hardware` and `minutes` of the training,
            `observed` (lines of Markdown on what the tables show),
            `history` (sentences on how the run that made the checkpoint differed from the schedule; may be empty),
            `earlier` (`commit` of the records of an earlier checkpoint, its `unpruned` grounding score in percent).
        tables: Markdown tables of what the methods cost this model, by heading.
        orders: Markdown table of the methods' order on the earlier checkpoint and on this one.
    """
    score_lines = [
        f"| {name} | {row['n']} | {row['accuracy']:.1%} | {row['low']:.1%} to {row['high']:.1%} |"
        for name, row in ((name, facts["scores"][name]) for name in DATA_NAMES)
    ]
    stage_lines = [
        f"| {stage['name']} | {stage['steps']} | {stage['steps'] * stage['images']:,} | {stage['learning_rate']:g} |"
        for stage in facts["stages"]
    ]
    return _TEMPLATE.format(
        orders=orders,
        observed="\n".join(facts["observed"]),
        earlier_commit=facts["earlier"]["commit"],
        earlier_score=f"{facts['earlier']['unpruned']:.1f} %",
        score=f"{facts['scores']['demo_refcoco']['accuracy']:.1%}".replace("%", " %"),
        parameters=f"{facts['parameters'] / 1e6:.2f}",
        megabytes=f"{facts['bytes'] / 1e6:.1f}",
        minutes=round(facts["minutes"]),
        scores="\n".join(score_lines),
        tables="\n\n".join(f"### {heading}\n\n{table}" for heading, table in tables.items()),
        stages="\n".join(stage_lines),
        history="\n".join(["", *facts["history"], ""]) if facts["history"] else "",
        **{name: facts[name] for name in ("torch", "transformers", "seed", "hardware")},
    )


def draw_curves(curves: Path, picture: Path) -> None:
    """Loss of each kind of answer over the pictures seen, from the CSV the training loop writes; running means."""
    losses = pd.read_csv(curves).pivot_table(index=["stage", "images"], columns="name", values="loss")
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), sharey=True, layout="constrained")
    for axis, stage in zip(axes, ("words", "boxes", "joint"), strict=True):
        points = losses.loc[stage]
        smooth = points.rolling(max(1, len(points) // WINDOWS), min_periods=1).mean()
        for number, (name, label) in enumerate(CURVES):
            if name in smooth and smooth[name].notna().any():
                axis.plot(smooth.index / 1000, smooth[name], label=label, color=f"C{number}", linewidth=1.2)
        axis.set(title=f"stage: {stage}", xlabel="thousand pictures", yscale="log", ylim=(0.003, 8))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("loss per answer token (nats)")
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    figure.savefig(picture, dpi=90)
    plt.close(figure)


_TEMPLATE = """# The demo model

A tiny LLaVA (`LlavaForConditionalGeneration`) with the architecture of LLaVA-1.5 (arXiv 2310.03744), trained from
nothing on synthetic scenes, so that everything in this project can be tried on a laptop in minutes. Numbers made
with it are the demo model's and say nothing about LLaVA.

| | |
|---|---|
| Parameters | {parameters} M, {megabytes} MB as float16 safetensors |
| Vision tower | CLIP style with CLS, 4 layers of width 128, 168 pixels, patches of 14; 144 tokens of layer -2 |
| Projector | two linear layers with GELU |
| Decoder | Llama, 12 layers of width 128, 4 heads |
| Tokenizer | byte-level BPE; a word of the generator, a coordinate or a fixed sentence of the prompts is one token |
| Prompt | LLaVA-1.5's vicuna_v1 with its system sentence; images padded to a square |
| License | Apache-2.0 |
| Origin | scenes, questions, weights and pictures are all generated by this repository; no third-party image or text |

Every method prunes after its paper's layers, scaled from a decoder of 32 layers to these 12: FastV's and random's 2
become 1. The rows `fastv (layers=2)` and `random (layers=2)` below keep the papers' number as it is.

## What it answers

Scenes of three to six coloured shapes, some with a printed number or word, in square, landscape and portrait images.
Colours, shapes, sizes and places are drawn independently; in three scenes of four, two or three objects look alike, so
that their boxes need a relation ("left red circle"). Every question has exactly one right answer.

* `demo_refcoco`: the box of a referring expression, as fractions of the padded square; right when IoU >= 0.5
* `demo_textvqa`: the number or word printed on an object
* `demo_gqa`: colour, shape or number of objects
* `demo_pope`: whether a coloured shape is there; half yes, absent ones random, popular or adversarial as in POPE

What cheap answers reach: the commonest one 7 % in reading, 14 % in attributes, 50 % in existence; saying yes wherever
the colour and the shape both occur, on whatever objects, 85 % in existence.

Held-out test split (scenes from a stream that training never draws from), greedy decoding, float32, no pruning; Wilson
intervals, which take questions about one image as independent:

| benchmark | questions | right | 95 % interval |
|---|---|---|---|
{scores}

## What pruning costs it

The whole benchmark at budgets 1/3, 2/9 and 1/9, in whatever order the methods come out; nothing was tuned for one of
them.
A cell holds the score and, below it, percent of vanilla with its 95 % interval (paired Bayesian bootstrap over images,
whose ends allow for one event that was not seen). **Bold**: best of the budget; ≈: may still be the best; off budget:
executed more than half a token more or less than asked, and takes no part. More, with plots, is on
[the leaderboard](../../leaderboards/demo/demo.md); `make leaderboard` renders both from the committed records.

{tables}

### What these tables show

{observed}

### The order of the methods depends on the training run

This model is a test bench: it shows that methods run, what they keep and whether a change breaks them. It is no
evidence of how they rank on LLaVA. Two trainings of the same architecture, scored on the same test split, rank them
differently. The table has percent of vanilla in grounding at budget 1/3, on an earlier checkpoint (grounding
{earlier_score} without pruning; commit {earlier_commit} holds it and its records; `fastv` and `random` cut after layer
2 there, and `sparsevlm_v1` was not run) and on the present one ({score}). The intervals cover the documents of the
split; they say nothing of what another training would give.

{orders}

## Training

```
torchrun --nproc_per_node 2 scripts/train_demo_model.py --threads 1 --out runs/demo_model   # two CPU cores
python scripts/train_demo_model.py --out runs/demo_model                                    # one process, or a GPU
python scripts/train_demo_model.py --evaluate                                               # the table above again
```

One seed ({seed}), four stages, bfloat16 autocast, {minutes} minutes on {hardware} (torch {torch}, transformers
{transformers}); a GPU is used when there is one. A run continues where it stopped. Scenes are drawn while training and
never repeat within a stage.

| stage | steps | pictures | peak learning rate |
|---|---|---|---|
{stages}
{history}
1. **tower**: colour, shape, label and box of what each patch shows, and, on the CLS token, a multi-label loss over
   what is in the picture. The CLS token is trained because pruning methods such as VisionZip rank patches by its
   attention, which would otherwise mean nothing. The projector learns to write a fixed code of each patch.
2. **words**: the decoder learns to answer in words from those codes, computed from the scene. At first, attention from
   the answer straight to the image is held back, so that the words of the question learn to look things up.
3. **boxes**: the same with boxes among the answers.
4. **joint**: everything on the answers, from pixels; the tower's losses stay on with a small weight.

No pruning method was used or looked at in training.

![loss of each kind of answer](curves.png)

Running means over a fifteenth of a stage. A coordinate's target is spread over its neighbours, so that its loss cannot
fall below 1.42 nats.

The data under `data/` is made by the same generator:
`swiftvlm_eval.demo.data.generate_split("test", 170, 0, out_dir)`.
"""
