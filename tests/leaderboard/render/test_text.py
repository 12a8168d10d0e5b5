import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftvlm_eval.leaderboard.render.text import interval, markdown, number, spreadsheet


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(None, 1, "-"), (1.25, 1, "1.2"), (-0.04, 1, "0.0"), (-0.06, 1, "-0.1"), (1509.4, 0, "1509"), (0.0, 2, "0.00")],
)
def test_numbers_have_fixed_decimals_and_no_minus_zero(value: float | None, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_half_an_interval_is_none() -> None:
    assert interval(1.0, 2.0, 1) == "[1.0, 2.0]"
    assert interval(None, 2.0, 1) == ""


@given(st.text())
def test_no_text_breaks_out_of_a_table_cell(text: str) -> None:
    escaped = markdown(text)
    assert "\n" not in escaped and "\r" not in escaped
    assert "<" not in escaped and ">" not in escaped
    assert not re.search(r"(?<!\\)(?:\\\\)*[|*_`\[\]~]", escaped.replace("\\\\", ""))


@pytest.mark.parametrize("sign", "=+-@\t\r\n")
def test_no_text_is_a_formula(sign: str) -> None:
    assert spreadsheet(f"{sign}1") == f"'{sign}1".replace("'\t", "'").replace("'\r", "'").replace("'\n", "'")
    assert spreadsheet(f" {sign}=1") in ("'=1", f"'{sign}=1")
    assert spreadsheet(f"a{sign}1") == " ".join(f"a{sign}1".split())
