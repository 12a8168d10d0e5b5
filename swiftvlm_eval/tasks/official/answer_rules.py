"""How LLaVA's evaluation scripts (arXiv:2310.03744) read an answer. Each rule is kept as it is, its oddities included.

All of them expect an answer without white space around it.
"""

import re
from typing import Literal

LETTERS = "ABCDE"
_NEGATIONS = frozenset({"No", "no", "not"})
_STATEMENT = re.compile(r"The answer is ([A-Z])\.")
_PREFIX_CHARS = 4


def says_yes(answer: str) -> bool:
    """Read a POPE answer: no if the first sentence has the word No, no or not, and otherwise yes.

    The first sentence ends at the first period; commas are dropped; words are separated by single spaces and nothing
    else. So `NO`, `isn't`, an empty and an unrelated answer are all a yes.
    """
    words = answer.partition(".")[0].replace(",", "").split(" ")
    return _NEGATIONS.isdisjoint(words)


def gqa_answer(answer: str) -> str:
    """Read a GQA answer: without the periods at its end, in lower case. Nothing else is normalised."""
    return answer.rstrip(".").lower()


def option_letter(answer: str, options: int) -> str | None:
    """Read the option that a multiple-choice answer names (ScienceQA).

    The whole answer is a letter A to E; or it starts with one of them, a period and a space; or it holds `The answer
    is X.` exactly once. A bare `A.` is none of these.

    Args:
        answer: The answer.
        options: How many options the question has.

    Returns:
        The letter; None where there is none, or one beyond the options.
    """
    if answer in tuple(LETTERS):
        letter = answer
    elif answer[:1] in tuple(LETTERS) and answer[1:3] == ". ":
        letter = answer[0]
    else:
        stated = _STATEMENT.findall(answer)
        if len(stated) != 1:
            return None
        letter = stated[0]
    return letter if letter in tuple(LETTERS[:options]) else None


def mme_answer(answer: str) -> Literal["yes", "no", "other"]:
    """Read an MME answer: whether its first four characters, in lower case, hold yes, or else no."""
    start = answer.lower()[:_PREFIX_CHARS]
    return "yes" if "yes" in start else "no" if "no" in start else "other"
