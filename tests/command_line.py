"""Runs a command of ours as a user does, without a process of its own."""

from typer.testing import CliRunner

from swiftvlm_eval.cli import app


def run(*arguments: str, columns: int = 200) -> tuple[int, str, str]:
    """Exit status, standard output, and all that was said on one line, in a terminal of so many columns.

    Raises:
        AssertionError: the command ended with a traceback.
    """
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns)})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, " ".join(done.output.split())
