"""The two sentences that LLaVA's question files (arXiv:2310.03744) end with."""

SHORT_ANSWER = "Answer the question using a single word or phrase."
OPTION_LETTER = "Answer with the option's letter from the given choices directly."


def option_lines(options: list[str]) -> str:
    """Write options as `A. text`, each on a line of its own."""
    return "\n".join(f"{chr(ord('A') + number)}. {option}" for number, option in enumerate(options))
