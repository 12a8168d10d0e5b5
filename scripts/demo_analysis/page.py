"""The whole page: prose with places for numbers, and the numbers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from demo_analysis.ablation import ablation_values
from demo_analysis.inside import drift_values, overlap_values
from demo_analysis.layers import layers_values
from swiftvlm_eval.leaderboard.render.text import markdown


def analysis_page(demo: Path, table_of_paper: Path) -> str:
    """The page in Markdown.

    Args:
        demo: leaderboards/demo, with `layers`, `ablation`, `overlap`, `drift` and `examples`.
        table_of_paper: published table 3.
    """
    here = FileSystemLoader(Path(__file__).parent)
    # Markdown, not HTML: what comes from results is escaped where it is read.
    environment = Environment(loader=here, autoescape=False, undefined=StrictUndefined, trim_blocks=True)
    parts = {
        "layers": layers_values(demo / "layers"),
        "ablation": ablation_values(demo / "ablation" / "records", table_of_paper),
        "overlap": overlap_values(demo / "overlap"),
        "drift": drift_values(demo / "drift"),
        "examples": examples_values(demo / "examples"),
    }
    # No dicts: in a template `part.clear` would be a method of the dict, which is always true.
    told = {name: SimpleNamespace(**values) for name, values in parts.items()}
    text: str = environment.get_template("analysis.md.j2").render(**told)
    return text.rstrip() + "\n"


def examples_values(folder: Path) -> dict[str, Any]:
    """What is said of the pictures of single documents."""
    chosen = json.loads((folder / "chosen.json").read_text())
    documents = []
    for one in chosen["documents"]:
        facts = json.loads((folder / f"{one['doc_id']}.json").read_text())
        overlaps = "; ".join(f"{each['method']}: IoU with the true box {each['iou']:.2f}" for each in facts["methods"])
        documents.append({**one, "question": markdown(facts["question"]), "overlaps": overlaps})
    return {"of": chosen["of"], "documents": documents}
