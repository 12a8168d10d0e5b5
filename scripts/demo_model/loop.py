"""The training loop: schedule, optimiser, curves as CSV, and checkpoints to resume from."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from demo_model.answers import COORDINATES, AnswerLoss, Tally
from demo_model.batches import Packer, draw_batch
from demo_model.model import build_model, draw_retrieval_start
from demo_model.parallel import average_gradients, rank_and_world, share_of_batch
from demo_model.patches import PatchCode
from demo_model.stages import Learner, Stage, stage_loss, trained_parameters, vision_parameters
from demo_model.tower import TowerHeads

LOG_EVERY = 25
SAVE_EVERY = 100
FINAL_SHARE = 0.05
"""Learning rate at the end of a stage, as a share of its peak."""

Report = Callable[[str, int, dict[str, tuple[float, float]]], None]


def build_learner(tokenizer: PreTrainedTokenizerFast, seed: int, device: torch.device) -> Learner:
    """Untrained model, read-outs and tables on a device."""
    torch.manual_seed(seed)
    packer, code = Packer(tokenizer), PatchCode(seed)
    model = build_model(tokenizer, seed)
    if device.type == "cpu":  # the fused kernel's backward pass in bfloat16 takes three times as long there
        model.model.vision_tower.set_attn_implementation("eager")
    coordinates = code.coordinate(torch.arange(COORDINATES) / (COORDINATES - 1))
    draw_retrieval_start(model, tokenizer, code.words(), coordinates, code.text)
    return Learner(
        model=model.to(device),
        heads=TowerHeads().to(device),
        packer=packer,
        answers=AnswerLoss(tokenizer, packer).to(device),
        code=code.to(device),
        device=device,
    )


def train(learner: Learner, stages: tuple[Stage, ...], folder: Path, report: Report) -> None:
    """Runs the stages one after the other; continues from `folder/state.pt` where there is one.

    Args:
        learner: What to train; its weights are replaced by those of the saved state.
        stages: The schedule; a saved state must have been made with stages of the same names.
        folder: Gets `state.pt` and `curves.csv`.
        report: Called with stage name, step and means since the last call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / "state.pt"
    state = torch.load(state_file, map_location=learner.device, weights_only=True) if state_file.exists() else None
    done = -1
    if state is not None:
        learner.model.load_state_dict(state["model"])
        learner.heads.load_state_dict(state["heads"])
        done = [stage.name for stage in stages].index(state["stage"])
        if rank_and_world()[0] == 0:
            _rewind_curves(folder / "curves.csv", state["stage"], state["step"])
    for number, stage in enumerate(stages):
        if number >= done:
            resumed = state if number == done else None
            _run_stage(learner, stage, folder, report, resumed)


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then half a cosine down to `FINAL_SHARE` of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / stage.steps))
    return stage.learning_rate * min(1.0, (step + 1) / stage.warmup) * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)


def _run_stage(
    learner: Learner, stage: Stage, folder: Path, report: Report, resumed: dict[str, object] | None
) -> None:
    parameters = trained_parameters(learner, stage)
    optimiser = _optimiser(parameters, set(vision_parameters(learner)), stage.vision_scale)
    first = 0
    if resumed is not None:
        optimiser.load_state_dict(resumed["optimiser"])  # type: ignore[arg-type]
        first = int(resumed["step"])  # type: ignore[call-overload]
    tally, started = Tally(), time.monotonic()
    for step in range(first, stage.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["scale"] * learning_rate(stage, step)
        scenes, questions = draw_batch("train", stage.seed, *share_of_batch(step, stage.images), stage.mix, stage.skip)
        with torch.autocast(learner.device.type, torch.bfloat16):
            loss = stage_loss(learner, stage, step, scenes, questions, tally)
        optimiser.zero_grad()
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        last = step + 1 == stage.steps
        if rank_and_world()[0] > 0:  # one process writes; its losses stand for all
            continue
        if last or (step + 1) % LOG_EVERY == 0:
            means = tally.flush()
            _append_curves(folder / "curves.csv", stage, step + 1, time.monotonic() - started, means)
            report(stage.name, step + 1, means)
        if last or (step + 1) % SAVE_EVERY == 0:
            _save(learner, stage, step + 1, optimiser, folder / "state.pt")


def _optimiser(
    parameters: list[torch.nn.Parameter], vision: set[torch.nn.Parameter], vision_scale: float
) -> torch.optim.Optimizer:
    """AdamW; norms and biases do not decay, and the vision side's learning rate is scaled."""
    groups = []
    for seen in (False, True):
        for matrix in (False, True):
            chosen = [p for p in parameters if (p in vision) == seen and (p.dim() > 1) == matrix]
            decay, scale = 0.02 if matrix else 0.0, vision_scale if seen else 1.0
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def _save(learner: Learner, stage: Stage, step: int, optimiser: torch.optim.Optimizer, path: Path) -> None:
    """Writes to a temporary name first: an interrupted save leaves the previous state."""
    temporary = path.with_suffix(".partial")
    state = {
        "model": learner.model.state_dict(),
        "heads": learner.heads.state_dict(),
        "optimiser": optimiser.state_dict(),
        "stage": stage.name,
        "step": step,
    }
    torch.save(state, temporary)
    temporary.replace(path)


def _rewind_curves(path: Path, stage: str, step: int) -> None:
    """Drops the lines that an interrupted run wrote after its last saved state; they will be written again."""
    with path.open(newline="") as file:
        lines = list(csv.reader(file))
    later = [i for i, line in enumerate(lines) if line[0] == stage and int(line[1]) > step]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines[: later[0]] if later else lines)


def _append_curves(path: Path, stage: Stage, step: int, seconds: float, means: dict[str, tuple[float, float]]) -> None:
    """One line per name: stage, step, images seen in the stage, seconds in this process, name, loss, share right."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["stage", "step", "images", "seconds", "name", "loss", "right"])
        for name, (loss, right) in means.items():
            images = step * stage.images
            writer.writerow([stage.name, step, images, f"{seconds:.1f}", name, f"{loss:.4f}", f"{right:.4f}"])
