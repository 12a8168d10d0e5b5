"""What is known of the registered methods, for the reader of a row: read from `methods.yaml`.

The file is written from the methods' classes by `make leaderboard`, since pages are made without torch.
"""

import re
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


class MethodFacts(BaseModel):
    """One registered method, in its class's words.

    Attributes:
        name: Registered name.
        title: As its paper writes it.
        source: Paper, or what it is if no paper proposes it.
        summary: What it does, in half a sentence.
        code: Its authors' code and licence.
        servable: Whether a serving engine can be handed its rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    source: str
    summary: str
    code: str
    servable: bool

    @property
    def arxiv(self) -> str | None:
        """Number of its paper on arXiv; None if it has none there."""
        found = _ARXIV.fullmatch(self.source)
        return found.group(1) if found else None


@cache
def method_facts() -> dict[str, MethodFacts]:
    """Reads `methods.yaml`: facts by registered name."""
    path = Path(__file__).with_name("methods.yaml")
    facts = (MethodFacts.model_validate(each) for each in yaml.safe_load(path.read_text(encoding="utf-8")))
    return {each.name: each for each in facts}
