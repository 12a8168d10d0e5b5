"""Latency of two states of this repository, side by side in one run.

    git worktree add ../before REVISION
    python scripts/compare_engines.py ../before . --methods vanilla,fastv,swiftvlm

Each state runs in a process of its own, with the same random weights and the same prompt; the two take turns, prefill
by prefill, in an order that changes every round. Printed is the paired ratio of the second to the first, as a median
with a 95 % interval by bootstrap over rounds, and the ratio of the first state to itself (two processes of it), which
must hold 1. Time is the CPU time of the process by default, since a shared machine disturbs it least.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

WORKER = """
import json, sys, time, torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from swiftvlm_eval import make_method, prune
asked = json.loads(sys.stdin.readline())
torch.set_num_threads(1)
torch.manual_seed(0)
side = asked["side"]
config = LlavaConfig(
    vision_config=CLIPVisionConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
                     image_size=14 * side, patch_size=14),
    text_config=LlamaConfig(vocab_size=1000, hidden_size=asked["hidden"], intermediate_size=asked["hidden"] * 11 // 4,
                num_hidden_layers=asked["layers"], num_attention_heads=8, max_position_embeddings=4096),
    image_token_id=999, vision_feature_layer=-2, vision_feature_select_strategy="default")
model = LlavaForConditionalGeneration(config).eval()
ids = torch.cat([torch.arange(35) + 1, torch.full((side * side,), 999), torch.arange(29) + 40])[None]
pixels = torch.randn(1, 3, 14 * side, 14 * side)
inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
clock = time.process_time if asked["clock"] == "cpu" else time.perf_counter
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    name = json.loads(line)
    with prune(model, make_method(name), budget=1 if name == "vanilla" else 1 / 3), torch.no_grad():
        start = clock()
        model(**inputs, use_cache=True)
        print(json.dumps(clock() - start), flush=True)
"""


class State:
    """A process that runs one state of the repository."""

    def __init__(self, tree: Path, shape: dict[str, Any]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.tree = tree
        if self.ask(shape) != "ready":
            raise RuntimeError(f"{tree}: did not start")

    def ask(self, question: Any) -> Any:
        """Sends one line and reads one."""
        given, got = self._pipes()
        given.write(json.dumps(question) + "\n")
        given.flush()
        line = got.readline()
        if not line:
            raise RuntimeError(f"{self.tree}: the process ended with status {self.process.wait()}")
        return json.loads(line)

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("no pipes")
        return self.process.stdin, self.process.stdout

    def close(self) -> None:
        """Ends the process."""
        self._pipes()[0].close()
        self.process.wait()


def interval(ratios: np.ndarray) -> str:
    """Median and its 95 % interval by bootstrap over rounds."""
    rng = np.random.default_rng(0)
    draws = np.median(rng.choice(ratios, (4000, len(ratios))), axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{np.median(ratios):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Runs the rounds and prints a line a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--methods", default="vanilla,fastv,swiftvlm")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--side", type=int, default=24, help="patches along one side")
    given = parser.parse_args()
    shape = {"clock": given.clock, "hidden": given.hidden, "layers": given.layers, "side": given.side}
    states = [State(tree, shape) for tree in (given.before, given.before, given.after)]
    for name in given.methods.split(","):
        times = np.zeros((given.rounds + 1, 3))
        for number in range(given.rounds + 1):
            for place in np.random.default_rng(number).permutation(3):
                times[number, place] = states[place].ask(name)
        warm = times[1:]
        print(
            f"{name}: after / before {interval(warm[:, 2] / warm[:, 0])}, "
            f"before / before {interval(warm[:, 1] / warm[:, 0])}",
            flush=True,
        )
    for state in states:
        state.close()


if __name__ == "__main__":
    main()
