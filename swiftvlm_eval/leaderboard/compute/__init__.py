"""From records to the values of a board: entries, units, statistics, scores, times."""
