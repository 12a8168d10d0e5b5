"""The installed commands: a missing extra is named in one line.

The package alone is the library (`prune`, methods, pictures); commands need the extra `eval`, which brings lmms-eval.
"""

import sys
from typing import NoReturn


def main() -> None:
    """Runs `swiftvlm-eval`."""
    try:
        from swiftvlm_eval.cli import main as run
    except ModuleNotFoundError as error:
        _missing("swiftvlm-eval", error)
    run()


def lmms_eval_main() -> None:
    """Runs lmms-eval's own command line, with our models and tasks."""
    try:
        from lmms_eval.cli.dispatch import main as run
    except ModuleNotFoundError as error:
        _missing("lmms_eval", error)
    run()


def _missing(command: str, error: ModuleNotFoundError) -> NoReturn:
    """Ends with what to install.

    Raises:
        ModuleNotFoundError: a module of our own is missing, which no extra brings.
    """
    name = (error.name or "").partition(".")[0]
    if name in ("", "swiftvlm_eval"):
        raise error
    sys.exit(f"{command}: needs the package {name}, which is not here: pip install 'swiftvlm-eval[eval]'")
