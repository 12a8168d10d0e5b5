"""Makes the embedded demo model: data, training, checkpoint, held-out numbers and card, in one command.

torchrun --nproc_per_node 2 scripts/train_demo_model.py --threads 1 --out runs/demo_model   # two CPU cores, 2 hours
python scripts/train_demo_model.py --out runs/demo_model                                    # one process, or a GPU
python scripts/train_demo_model.py --evaluate                 # only the numbers of the embedded checkpoint
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from demo_model.card import draw_curves, read_facts, training_minutes, write_facts
from demo_model.evaluation import evaluate
from demo_model.export import export_checkpoint
from demo_model.loop import build_learner, train
from demo_model.parallel import rank_and_world
from demo_model.stages import STAGES
from demo_model.tokenizer import build_tokenizer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from torch import distributed

from swiftvlm_eval.demo import checkpoint_path
from swiftvlm_eval.demo.data import generate_split

TEST_IMAGES = 170
NEXT = """The card's facts are in swiftvlm_eval/demo/card.json. Its page shows the methods on this checkpoint, too:
  METHODS='all,fastv[layers=2],random[layers=2],dart[layers=2],vlmpruner[layers=2],ivcprune[layers=2]'
  METHODS="$METHODS,fastervlm[positions=keep],pdrop[positions=keep]"
  swiftvlm-eval sweep --model demo --methods "$METHODS" --budgets 1/3,2/9,1/9 \\
      --tasks demo --batch-size 16 --out SWEEP
puts new records under SWEEP/records for leaderboards/demo/records; `make leaderboard` then renders card and boards."""
console = Console()


def main(
    out: Annotated[Path, typer.Option(help="Folder of the training state and curves.")] = Path("runs/demo_model"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first weights.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    only_evaluate: Annotated[bool, typer.Option("--evaluate", help="Measure the embedded checkpoint only.")] = False,
) -> None:
    """Trains the demo model (or continues), embeds it in the package and writes its card."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    package = checkpoint_path().parent
    if not only_evaluate:
        generate_split("test", TEST_IMAGES, 0, package / "data")
        tokenizer = build_tokenizer()
        if distributed.is_torchelastic_launched():
            distributed.init_process_group("gloo")
        learner = build_learner(tokenizer, seed, device)
        rank = rank_and_world()[0]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=rank > 0) as progress:
            train(learner, STAGES, out, Display(progress))
        if rank > 0:
            return
        export_checkpoint(learner.model, tokenizer, checkpoint_path())
        shutil.copyfile(out / "curves.csv", package / "curves.csv")
        draw_curves(package / "curves.csv", package / "curves.png")
    scores = evaluate(checkpoint_path(), device)
    write_facts(read_facts(package) | {"scores": scores} if only_evaluate else facts(scores, seed, device), package)
    console.print_json(data=scores)
    console.print(NEXT)


class Display:
    """A bar for each stage, and above them the losses of every part and kind of answer each time they are reported."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars = {stage.name: progress.add_task(stage.name, total=stage.steps) for stage in STAGES}

    def __call__(self, stage: str, step: int, means: dict[str, tuple[float, float]]) -> None:
        """Takes a report of the training loop."""
        for earlier in STAGES:
            self._progress.update(self._bars[earlier.name], completed=step if earlier.name == stage else earlier.steps)
            if earlier.name == stage:
                break
        losses = (f"{name} {loss:.3f}" for name, (loss, _) in means.items())
        self._progress.console.print(f"[bold]{stage}[/bold] {step}", *losses)


def facts(scores: dict[str, dict[str, float | int]], seed: int, device: torch.device) -> dict[str, Any]:
    """What the card says of a run that has just ended, read from the embedded checkpoint, curves and schedule."""
    weights = checkpoint_path() / "model.safetensors"
    with safe_open(weights, "pt") as tensors:
        parameters = sum(tensors.get_tensor(name).numel() for name in tensors.keys())  # noqa: SIM118
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    return {
        "parameters": parameters,
        "bytes": weights.stat().st_size,
        "scores": scores,
        "history": [],
        "observed": [],
        "seed": seed,
        "stages": [asdict(stage) for stage in STAGES],
        "earlier": read_facts(checkpoint_path().parent)["earlier"],
        "hardware": where,
        "minutes": round(training_minutes(checkpoint_path().parent / "curves.csv"), 1),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    typer.run(main)
