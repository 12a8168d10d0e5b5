"""Runs every check of `checks.py` on one method and says which it fails."""

from collections.abc import Mapping
from typing import Any

from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.registry import make_method
from swiftvlm_eval.testing.checks import CHECKS, Subject


class MethodCheckError(AssertionError):
    """A method fails checks; the message has a line for each of them."""


def check_method(
    method: type[PruningMethod] | str, options: Mapping[str, Any] | None = None, *, raster: bool = True
) -> list[str]:
    """Runs a method on tiny random models and compares it with the stock model and with itself.

    Keep-all equals the stock model; executed rows equal the plan; caches hold these rows; a batch answers as its
    samples do, and in one go if the method is declared `vectorized`; eager and sdpa choose alike; the model is itself
    afterwards; only a method that declares so draws; half precision, several images, text alone, a second turn and
    beams work. It takes about a minute on one core and says nothing about what the method selects: write a slow
    version of it for that, and compare.

    Args:
        method: the class, or what `method=` takes: a name, `path/to/file.py:ClassName`, `package.module:ClassName`.
        options: with which a budget of two fifths of 144 tokens in 16 layers can be met; default the method's own.
        raster: whether kept tokens stay in the order of the image.

    Returns:
        Names of the checks, all passed.

    Raises:
        MethodCheckError: one or more failed.
        ValueError: no method, or an unknown option.
    """

    def build(own: Mapping[str, Any]) -> PruningMethod:
        return make_method(method, own) if isinstance(method, str) else method(**own)

    subject = Subject(build, dict(options or {}), raster)
    failed = []
    for check in CHECKS:
        try:
            check(subject)
        except Exception as error:  # whatever a foreign method does, the other checks still run
            reason = str(error).strip().splitlines() or [type(error).__name__]
            failed.append(f"  {check.__name__}: {type(error).__name__}: {reason[0]}")
    if failed:
        raise MethodCheckError(f"{subject.name} fails {len(failed)} of {len(CHECKS)} checks:\n" + "\n".join(failed))
    return [check.__name__ for check in CHECKS]
