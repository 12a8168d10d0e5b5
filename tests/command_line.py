"""Runs a command of ours as a user does, without a process of its own."""

from typer.testing import CliRunner

from swiftvlm_eval.cli import app


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output, and all that was said on one line.

    Raises:
        AssertionError: the command ended with a traceback.
    """
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, " ".join(done.output.split())
