"""What the commands say of themselves arrives whole: no markup eats it, no narrow terminal cuts it."""

import inspect
import re
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from command_line import run

from swiftvlm_eval.cli import app

COMMANDS = {command.name: command.callback for command in app.registered_commands}


def texts(command: str) -> list[str]:
    """The help texts as they stand in the source: the docstring's and every option's."""
    callback = COMMANDS[command]
    assert callback is not None
    hints = get_type_hints(callback, include_extras=True).values()
    found = [info.help for hint in hints if get_origin(hint) is Annotated for info in get_args(hint)[1:]]
    return [inspect.getdoc(callback) or "", *(text for text in found if text)]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_all_that_is_written(command: str) -> None:
    status, output, _ = run(command, "--help", columns=400)
    shown = re.sub(r"[\s│╭╰─╮╯]+", " ", output)
    assert status == 0
    for text in texts(command):
        assert " ".join(text.replace("\\[", "[").split()) in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_not_cut_in_a_common_terminal(command: str) -> None:
    assert "…" not in run(command, "--help", columns=80)[1]


def test_help_of_the_methods_names_the_form_of_options() -> None:
    assert "name[option=value;option=value]" in run("sweep", "--help")[2]


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_the_list_of_methods_cuts_nothing(columns: int) -> None:
    status, output, _ = run("methods", columns=columns)
    assert status == 0 and "…" not in output
    assert max(map(len, output.splitlines())) <= columns
