"""The numbers of an analysis as rows for CSV files: long form, one number a cell, nothing rounded."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def to_csv(rows: Sequence[Row]) -> str:
    """Rows with equal keys as text; texts that a spreadsheet would take for a formula get an apostrophe.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("rows=[]: allowed is one or more")
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _safe(value) for key, value in row.items()} for row in rows)
    return stream.getvalue()


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def overlap_rows(labels: Sequence[str], tops: Sequence[float], found: Sequence[Row]) -> Iterator[Row]:
    """One row a document, method and share."""
    for document in found:
        for label, one in zip(labels, document["methods"], strict=True):
            for share, (held, top) in zip(tops, one["hits"], strict=True):
                yield {
                    "task": document["task"],
                    "doc_id": document["doc_id"],
                    "method": label,
                    "boundary": one["boundary"],
                    "num_visual": document["num_visual"],
                    "held": one["held"],
                    "mean_rows": one["mean_rows"],
                    "tflops": one["tflops"],
                    "top_share": share,
                    "top": top,
                    "top_held": held,
                    "overlap": held / top,
                }


def matrix_rows(summary: Row) -> Iterator[Row]:
    """One row a pair of layers, counted from 1."""
    for cell in summary["low_then_high"]:
        yield {key: cell[key] for key in ("early", "late", "mean", "low", "high", "documents")}


def drift_rows(labels: Sequence[str], found: Sequence[Row]) -> Iterator[Row]:
    """One row a document, method, re-entry, group size and arm."""
    for document in found:
        for label, stages in zip(labels, document["methods"], strict=True):
            for stage in stages:
                for row in stage["rows"]:
                    yield {
                        "task": document["task"],
                        "doc_id": document["doc_id"],
                        "method": label,
                        "boundary": stage["boundary"],
                        "waiting": stage["waiting"],
                        "groups": stage["groups"],
                        "arm": row["arm"],
                        "group_size": row["size"],
                        "tokens": row["tokens"],
                        "relative_l2": row["relative"],
                        "cosine": row["cosine"],
                    }
