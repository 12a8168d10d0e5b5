"""Which columns a mean is taken over: those of a group, or all of a board that shows exactly one named set."""

from collections.abc import Mapping

from swiftvlm_eval.leaderboard.columns import column_table
from swiftvlm_eval.results.benchmarks import BenchmarkTable, Group, Kind


def mean_members(
    kinds: Mapping[str, Kind | None], table: BenchmarkTable, ours: Mapping[str, str] | None = None
) -> dict[Group, tuple[str, ...]]:
    """Returns the column keys of every mean that has any.

    Args:
        kinds: Group of each column that has percentages of vanilla, by column key.
        table: The benchmark columns; a set of it whose name is a mean's is one where the board shows all of it alone.
        ours: Key of our column by column key, where they differ (published boards).
    """
    members: dict[Group, tuple[str, ...]] = {}
    standing = {(ours or {}).get(key, key) for key in kinds}
    for group in column_table().groups:
        if group in table.sets:
            keys = tuple(kinds) if standing == set(table.sets[group]) else ()
        else:
            keys = tuple(key for key, kind in kinds.items() if kind == group)
        if keys:
            members[group] = keys
    return members
