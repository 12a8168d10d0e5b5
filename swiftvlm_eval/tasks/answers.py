"""What a scorer of a task is given for an answer."""

from collections.abc import Sequence

from swiftvlm_eval.grounding.boxes import MAX_ANSWER_CHARS


def answer_text(results: Sequence[object]) -> str:
    """Return the answer without white space around it, cut to `MAX_ANSWER_CHARS`; nothing where there is no text.

    Args:
        results: What lmms-eval hands to a scorer: the answer as the only element.
    """
    return results[0][:MAX_ANSWER_CHARS].strip() if results and isinstance(results[0], str) else ""
