"""Share of a pruned prefill that goes to the selection, and how it grows with the visual tokens.

    git worktree add ../before REVISION
    python scripts/benchmarks/selection_share.py ../before . --methods swiftvlm,sparsevlm --sides 24,48

Every state runs in a process of its own, with the same weights; the states take turns, prefill by prefill. Time is
that of the processor on one thread: the selection is what the engine does at its boundaries, and the whole is the
decoder's prefill, as `efficiency/parts.py` of this state defines them. Printed are the medians over rounds,
and the exponent p of N^p between the first and the last size.
"""

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any


def worker(given: argparse.Namespace) -> None:
    """Answers every line, a method and a side, with the seconds of [selection, prefill]."""
    import torch

    from benchmarks.small_llava import prompts, small_llava
    from swiftvlm_eval import make_method, prune

    torch.set_num_threads(1)
    parts = _parts()
    models: dict[int, Any] = {}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        name, side = json.loads(line)
        if side not in models:
            models[side] = small_llava(side, hidden=given.hidden, layers=given.layers, heads=given.heads)
        model = models[side]
        with prune(model, make_method(name), budget=1 / 3) as session, torch.no_grad():
            with parts.watched(model, session, time.process_time) as spans:
                model(**prompts(side, 1), use_cache=True)
        print(json.dumps([spans.took[parts.SELECTION], spans.took[parts.DECODER]]), flush=True)


def _parts() -> Any:
    """The package's definition of the parts, read from beside this script: an earlier state may have none."""
    path = Path(__file__).resolve().parents[2] / "swiftvlm_eval" / "efficiency" / "parts.py"
    spec = importlib.util.spec_from_file_location("parts", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(tree: Path, given: argparse.Namespace) -> subprocess.Popen[str]:
    """The process of one state; the scripts are these."""
    scripts = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{tree.resolve()}:{scripts}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", "--hidden", str(given.hidden), "--heads", str(given.heads)]
    command += ["--layers", str(given.layers)]
    made = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ask(made, None)
    return made


def ask(process: subprocess.Popen[str], question: Any) -> Any:
    """Sends a line, unless there is nothing to ask, and reads the next answer."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("no pipes")
    if question is not None:
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
    for line in process.stdout:
        if line.startswith(("[", '"ready')):
            return json.loads(line)
    raise RuntimeError(f"the process ended with status {process.wait()}")


def main() -> None:
    """Prints a line a method and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", type=Path, nargs="*", help="states of the repository, the earlier one first")
    parser.add_argument("--methods", default="swiftvlm,sparsevlm,sparsevlm_v1")
    parser.add_argument("--sides", default="24,48", help="patches along one side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given)
        return
    states = [start(tree, given) for tree in given.trees or [Path(__file__).resolve().parents[2]]]
    sides = [int(side) for side in given.sides.split(",")]
    for name in given.methods.split(","):
        took: dict[tuple[int, int], float] = {}
        for side in sides:
            rounds = [[ask(state, [name, side]) for state in states] for _ in range(given.rounds + 1)][1:]
            shares = []
            for place in range(len(states)):
                took[place, side] = median(one[place][0] for one in rounds)
                shares.append(median(one[place][0] / one[place][1] for one in rounds))
            told = " -> ".join(
                f"{share:.1%} ({took[place, side] * 1000:.1f} ms)" for place, share in enumerate(shares)
            )
            print(f"{name:16s} N = {side * side:5d}: {told}", flush=True)
        if len(sides) > 1:
            growth = math.log((sides[-1] / sides[0]) ** 2)
            grown = [math.log(took[place, sides[-1]] / took[place, sides[0]]) / growth for place in range(len(states))]
            print(f"{name:16s} grows as " + " -> ".join(f"N^{power:.2f}" for power in grown), flush=True)
    for state in states:
        state.kill()


if __name__ == "__main__":
    main()
