"""The embedded demo: a tiny trained LLaVA on synthetic scenes, and the data of its four benchmarks.

Only paths are offered here; torch and transformers are not imported.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["DATA_NAMES", "checkpoint_path", "data_path"]

DATA_NAMES = ("demo_refcoco", "demo_textvqa", "demo_gqa", "demo_pope")

_HERE = Path(__file__).resolve().parent


def checkpoint_path() -> Path:
    """Folder of the demo checkpoint, for `from_pretrained`."""
    return _HERE / "checkpoint"


def data_path(name: str) -> Path:
    """Parquet file of an embedded benchmark, such as "demo_refcoco".

    Raises:
        ValueError: There is no benchmark of this name.
    """
    if name not in DATA_NAMES:
        raise ValueError(f"name is {name!r}; allowed: {', '.join(DATA_NAMES)}")
    return _HERE / "data" / f"{name}.parquet"
