"""Makes ``reference`` and ``tiny_models`` importable when only this folder is collected."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
