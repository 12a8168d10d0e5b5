"""Reads the letter out of an MMBench answer the way lmms-eval 0.7.3 does without a judge (`mmbench_en_dev_static`).

lmms-eval only scores whole circular questions, at the end of a run; intervals and paired tests need the rows. Its
rule, quirks included: a lone letter, else the one option whose text is in the answer, else the best-placed letter.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

_OPTIONS = "ABCD"
_LETTERS = "ABCDE"
_AROUND = (
    *(("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ").")),
    *((":", ""), (":", ","), (":", "."), (":", ")"), (":", ").")),
)
_PHRASES = (
    *("the answer is", "answer is", "the correct answer is", "correct answer is", "the best answer is"),
    *("best answer is", "the correct option is", "correct option is", "the best option is", "best option is"),
    *("the choice is", "choice is", "the correct choice is", "correct choice is", "i choose", "i select", "i pick"),
    *("my answer is", "my choice is", "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
# How a letter is written, best evidence first; the number is lmms-eval's.
_START, _END, _PHRASE, _FALLBACK = 10, 9, 7, 0
_WRITTEN = ((6, "({})"), (5, "{}."), (4, "{}:"), (3, "{})"), (2, "{} "))


def answer_letter(row: Mapping[str, object]) -> str:
    """Returns the letter that a row's answer stands for, "" if lmms-eval finds none.

    Args:
        row: lmms-eval's `gpt_eval_score` of one document: `prediction`, and the option texts under `A` to `D`; an
            option that is missing, None or NaN is none (the text "nan" is one, as in lmms-eval).
    """
    answer = str(row["prediction"])
    options = {letter: str(row[letter]) for letter in _OPTIONS if letter in row and not _is_nan(row[letter])}
    return _lone_letter(answer) or _lone_option(answer, options) or _best_letter(answer, sorted(options) or "ABCDEFGH")


def _is_nan(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _lone_letter(answer: str) -> str:
    words = answer.split()
    # lmms-eval takes an A in more than three words for the article.
    if not ("A" in words and len(words) > 3):
        found = [letter for letter in _LETTERS if letter in words]
        if len(found) == 1:
            return found[0]
    for before, after in _AROUND:
        found = [letter for letter in _LETTERS if before + letter + after in words]
        if len(found) == 1:
            return found[0]
    return ""


def _lone_option(answer: str, options: Mapping[str, str]) -> str:
    found = [letter for letter, text in options.items() if text.lower() in answer.lower()]
    return found[0] if len(found) == 1 else ""


def _best_letter(answer: str, letters: Sequence[str]) -> str:
    """Takes the best-placed letter; among equally well placed ones the last, then the first of the alphabet."""
    if not answer.strip():
        return ""
    text = answer.strip()
    for sign in ",.!?;:'\"":
        text = text.strip(sign)
    text = f" {text} "
    found = list(_placed(text, letters))
    found = found or [(_FALLBACK, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(found, key=lambda each: each[:2])[2] if found else ""


def _placed(text: str, letters: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yields (evidence, position, letter), in lmms-eval's order."""
    for evidence, form in _WRITTEN:
        for letter in letters:
            if form.format(letter) in text:
                yield evidence, text.rfind(form.format(letter)), letter
    for phrase in _PHRASES:
        place = text.lower().find(phrase)
        for letter in letters if place != -1 else ():
            position = text.find(letter, place + len(phrase))
            if position != -1:
                yield _PHRASE, position, letter
    stripped = text.strip()
    for letter in letters:
        if stripped.startswith(letter) and not stripped[1:2].isalpha():
            yield _START, 0, letter
        if stripped.endswith(letter) and not stripped[-2:-1].isalpha():
            yield _END, len(text) - 1, letter
