"""What the commands say of themselves arrives whole: no markup eats it, no narrow terminal cuts it."""

import inspect
import re
import shlex
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest
from command_line import run
from typer.main import get_command

from swiftvlm_eval.cli import app
from swiftvlm_eval.cli.examples import EXAMPLES

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
    assert status == 0
    for text in texts(command):
        assert re.sub(r"[\s\b]+", "", text) in re.sub(r"\s+", "", output)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_not_cut_in_a_common_terminal(command: str) -> None:
    output = run(command, "--help", columns=80)[1]
    assert "…" not in output and max(map(len, output.splitlines())) <= 80


def test_help_of_the_methods_names_the_form_of_options() -> None:
    assert "name[option=value;option=value]" in run("sweep", "--help")[2]


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_the_list_of_methods_cuts_nothing(columns: int) -> None:
    status, output, _ = run("methods", columns=columns)
    assert status == 0 and "…" not in output
    assert max(map(len, output.splitlines())) <= columns


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_two_examples_that_can_be_copied(command: str) -> None:
    shown = [line.strip() for line in run(command, "--help", columns=80)[1].splitlines()]
    begin = shown.index("Examples:")
    assert len(EXAMPLES[str(command)]) == 2
    for what, lines in EXAMPLES[str(command)]:
        for line in (f"# {what}", *lines):
            assert line.strip() in shown[begin:], "cut or changed"


@pytest.mark.parametrize("command", [name for name in EXAMPLES if name in COMMANDS])
def test_every_option_of_an_example_exists_and_takes_its_value(command: str) -> None:
    hints = get_type_hints(COMMANDS[command])
    for _, lines in EXAMPLES[command]:
        ours = "\n".join(lines).replace("\\\n", " ").splitlines()[-1]
        program, name, *words = shlex.split(ours)
        assert (program, name) == ("swiftvlm-eval", command)
        for place, word in enumerate(words):
            if word.startswith("--"):
                hint = hints[options(command)[word]]
                assert get_origin(hint) is not Literal or words[place + 1] in get_args(hint)


def options(command: str) -> dict[str, str]:
    """Option as typed -> the function's argument."""
    parameters = get_command(app).commands[command].params  # type: ignore[attr-defined]
    return {option: parameter.name for parameter in parameters for option in parameter.opts}


def test_a_value_from_a_list_is_listed_in_the_help() -> None:
    shown = run("sweep", "--help", columns=200)[1]
    for choices in (
        "auto|float16|bfloat16|float32",
        "sdpa|eager|flash_attention_2|flash_attention_3",
        "pad|hf_default",
    ):
        assert choices in shown
    assert "columns|rows" in run("show", "--help", columns=200)[1]
    assert "auto|small|clip-l" in run("latency", "--help", columns=200)[1]


@pytest.mark.parametrize("alias", ["--output_path", "--batch_size", "--tasks", "--limit", "--model", "--device"])
def test_options_have_the_names_that_lmms_eval_gives_them(alias: str) -> None:
    assert alias in options("sweep")


@pytest.mark.parametrize("command", [name for name in COMMANDS if "--out" in run(str(name), "--help")[1]])
def test_a_folder_for_output_is_also_called_as_in_lmms_eval(command: str) -> None:
    shown = run(command, "--help", columns=200)[1]
    assert "--output_path" in shown


def test_the_list_of_commands_is_not_cut() -> None:
    output = run("--help", columns=80)[1]
    assert output.count("...") == 1  # of the usage
    assert max(map(len, output.splitlines())) <= 80
    for command in COMMANDS:
        assert f"  {command}  " in output
