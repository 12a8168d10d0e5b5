"""What torch.compile does with a pruned prefill: graphs, breaks, seconds of compiling, and the time that it gains.

    python scripts/benchmarks/compiled.py --methods stock,swiftvlm --backend eager      # counts alone, no compiler
    python scripts/benchmarks/compiled.py --methods stock,swiftvlm --backend inductor

Every decoder layer is compiled by itself, since between two boundaries the engine calls one layer after the other on
states of one length. A graph is counted once however often it runs; rows of another length may need one more, unless
lengths are symbols (`--dynamic`). Times are of the processor on one thread, compiled and not in turn.
"""

import argparse
import time
from contextlib import nullcontext
from statistics import median
from typing import Any

import torch
from torch._dynamo.utils import counters

from benchmarks.small_llava import prompts, small_llava
from swiftvlm_eval import make_method, prune


def run(model: Any, name: str, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, float]:
    """Logits and seconds of one prefill."""
    budget = 1 if name == "vanilla" else 1 / 3
    with torch.no_grad(), nullcontext() if name == "stock" else prune(model, make_method(name), budget=budget):
        start = time.process_time()
        logits = model(**inputs, use_cache=True, logits_to_keep=1).logits
        return logits, time.process_time() - start


def longer(value: torch.Tensor) -> torch.Tensor:
    """The last text token once more; pixels are as they were."""
    return torch.cat([value, value[:, -1:]], dim=1) if value.dim() == 2 else value


def compare(name: str, given: argparse.Namespace) -> str:
    """A line on one method."""
    torch._dynamo.reset()
    counters.clear()
    plain, compiled = (
        small_llava(given.side, hidden=given.hidden, layers=given.layers, heads=given.heads) for _ in range(2)
    )
    for layer in compiled.model.language_model.layers:
        layer.compile(backend=given.backend, dynamic=given.dynamic)
    inputs = prompts(given.side, 1)
    expected, _ = run(plain, name, inputs)
    logits, first = run(compiled, name, inputs)
    run(compiled, name, inputs)
    rounds = [(run(plain, name, inputs)[1], run(compiled, name, inputs)[1]) for _ in range(given.rounds)]
    stats, frames = counters["stats"], counters["frames"]
    graphs, breaks = stats["unique_graphs"], sum(counters["graph_break"].values())
    run(compiled, name, {key: longer(value) for key, value in inputs.items()})
    before, after = (1000 * median(times) for times in zip(*rounds, strict=True))
    return (
        f"{name}: {graphs} graphs, {stats['unique_graphs']} after a longer prompt, {breaks} breaks, "
        f"{frames['total'] - frames['ok']} frames left to Python; first prefill {first:.1f} s; prefill "
        f"{before:.1f} -> {after:.1f} ms, paired ratio "
        f"{median(one[1] / one[0] for one in rounds):.3f}; "
        f"largest difference of logits {float((logits - expected).abs().max()):.1e}"
    )


def main() -> None:
    """Prints a line a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="stock,vanilla,swiftvlm")
    parser.add_argument("--backend", choices=("eager", "inductor"), default="inductor")
    parser.add_argument("--dynamic", action="store_true", help="lengths are symbols; one graph for all stages")
    parser.add_argument("--limit", type=int, default=64, help="graphs that one function may have")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", type=int, default=16, help="patches along one side")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--layers", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch._dynamo.config.recompile_limit = given.limit
    for name in given.methods.split(","):
        print(compare(name, given), flush=True)


if __name__ == "__main__":
    main()
