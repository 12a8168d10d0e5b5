"""Short names of a board's sections: `1/3` where the share is a plain fraction, `27 %` where it is not."""

from fractions import Fraction

from swiftvlm_eval.leaderboard.board import Section

_LARGEST_DENOMINATOR = 9
# As far as three printed decimals may be from the fraction that was meant.
_NEAR = 0.0006


def is_vanilla(section: Section) -> bool:
    """Whether the section holds the unpruned model."""
    return any(row.is_vanilla for row in section.rows)


def short_budget(share: float | None) -> str:
    """Returns the share of visual tokens as a plain fraction or in percent."""
    if share is None:
        return "not recorded"
    fraction = Fraction(share).limit_denominator(_LARGEST_DENOMINATOR)
    if fraction and abs(float(fraction) - share) < _NEAR:
        return str(fraction)
    return f"{100 * share:.3g} %"


def section_code(section: Section) -> str:
    """Returns what stands for a section in file names and addresses: thousandths of the visual tokens."""
    if is_vanilla(section):
        return "vanilla"
    budget = section.rows[0].budget
    return "unknown" if budget is None else f"{1000 * budget:03.0f}"


def section_heading(section: Section) -> str:
    """Returns `Budget 1/3: 48 of 144 visual tokens per layer`, or the title where it is another."""
    if is_vanilla(section) or section.rows[0].budget is None:
        return section.title
    short, (_, _, counts) = short_budget(section.rows[0].budget), section.title.partition(" (")
    return f"Budget {short}: {counts.rstrip(')')}" if counts else f"Budget {short}"
