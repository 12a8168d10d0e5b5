"""What a row costs, in words and units that people read: operations in M, G or T, and the ratio to vanilla."""

from swiftvlm_eval.leaderboard.board import Board, Row

# The first of these that a board has stands for cost: what was executed, or what a paper counts.
COSTS = ("executed_tflops", "paper_tflops")
FLOPS = frozenset(COSTS)
_UNITS = ((1.0, "T"), (1e3, "G"), (1e6, "M"), (1e9, "k"))


def cost_attribute(board: Board) -> str | None:
    """Returns the attribute that stands for cost on a board; None if fewer than two rows have one."""
    counted = {name: sum(row.figures.get(name) is not None for row in board.rows) for name in COSTS}
    return next((name for name in COSTS if counted[name] > 1), None)


def cost_ratio(board: Board, row: Row) -> float | None:
    """Returns a row's cost over vanilla's; None where either is missing."""
    name, vanilla = cost_attribute(board), board.vanilla
    if name is None or vanilla is None:
        return None
    ours, base = row.figures.get(name), vanilla.figures.get(name)
    return None if ours is None or not base else ours / base


def flops_unit(board: Board) -> tuple[float, str]:
    """Returns what to multiply figures in T by, and the unit: the largest in which the largest figure is 1 or more."""
    name = cost_attribute(board) or COSTS[0]
    largest = max((row.figures.get(name) or 0.0 for row in board.rows), default=0.0)
    return next(((factor, unit) for factor, unit in _UNITS if largest * factor >= 1), _UNITS[0])
