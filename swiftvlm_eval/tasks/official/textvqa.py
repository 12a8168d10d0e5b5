"""TextVQA (arXiv:1904.08920) as LLaVA's scripts ask it: with the reference OCR tokens, the question as it is."""

from collections.abc import Mapping
from typing import Any

from swiftvlm_eval.tasks.hub import raise_deferred
from swiftvlm_eval.tasks.official.prompts import SHORT_ANSWER


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """Ask the question for a short answer, with the OCR tokens before the instruction.

    Raises:
        DatasetAccessError: The task's data could not be loaded.
    """
    raise_deferred(doc)
    return f"{doc['question']}\nReference OCR token: {', '.join(doc['ocr_tokens'])}\n{SHORT_ANSWER}"
