"""Commands that make a record again, from what the record says.

The text is for people who paste it into a shell, and everything in a record may have been written by a stranger. So
names must look like names: what does not is not quoted and hoped for, the record then gives no commands.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from swiftvlm_eval.results.record import RunRecord

OUTPUT = "results"
# The start of the SHA-256 of the system sentence that commands use; another one cannot be had from its hash.
SYSTEM_PROMPT_SHA256 = "1fa69e2371b7"
# What a command line takes; a family with one image mode of its own has it by default.
_IMAGE_MODES = ("pad", "hf_default")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96})?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,127}", re.ASCII)
_LOCAL = re.compile(r"local:(?P<name>[\w.+-]+)-[0-9a-f]{8}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_][\w.+-]{0,119}", re.ASCII)
_METHOD = re.compile(r"\w{1,60}(\+\w{1,60}){0,7}", re.ASCII)
_VALUE = re.compile(r"[\w.+:/-]{1,120}", re.ASCII)
_LARGEST_DENOMINATOR = 1000


class _NotEnough(Exception):
    """The record does not tell enough, or tells it in words that no command takes."""


@dataclass(frozen=True)
class _Run:
    """What both commands say.

    Attributes:
        model: Checkpoint as typed: a hub id, `demo`, or the place of a folder.
        advice: What to put in before the commands can run; empty if nothing.
        arguments: Further model arguments as typed, by the name that lmms-eval's `--model_args` has for them.
    """

    model: str
    advice: str
    arguments: Mapping[str, str] = field(default_factory=dict)


def reproduce(records: Sequence["RunRecord"]) -> dict[str, str]:
    """Returns the commands that make runs again, by kind.

    * `sweep`: shell lines of `swiftvlm-eval sweep`, one a run;
    * `lmms_eval`: YAML text for `lmms_eval --config FILE`, a list of configurations where there are several runs.

    A checkpoint that was a folder is named `/path/to/<its name>`; a comment says that its path must be put in.

    Args:
        records: The runs; those behind one row, for instance.

    Returns:
        The kinds that every one of the records tells enough for: `sweep` takes no generation arguments, offsets and
        shares of documents, and nothing can be said of unnamed checkpoints, methods from outside the package, other
        system sentences, and names that no command takes.
    """
    made: dict[str, list[tuple[str, Any]]] = {"sweep": [], "lmms_eval": []}
    for record in records:
        try:
            run = _run(record)
            made["lmms_eval"].append((run.advice, _configuration(record, run)))
            made["sweep"].append((run.advice, shlex.join(_sweep(record, run))))
        except _NotEnough:
            continue
    whole = {kind: found for kind, found in made.items() if found and len(found) == len(records)}
    texts = {}
    for kind, found in whole.items():
        advice = "".join(f"# {line}\n" for line in dict.fromkeys(line for line, _ in found if line))
        contents = [content for _, content in found]
        if kind == "sweep":
            texts[kind] = advice + "\n".join(contents)
        else:
            texts[kind] = advice + _yaml(contents)
    return texts


def _yaml(configurations: Sequence[dict[str, Any]]) -> str:
    content = configurations[0] if len(configurations) == 1 else list(configurations)
    text: str = yaml.safe_dump(content, sort_keys=False, width=10_000)
    return text


def _run(record: "RunRecord") -> _Run:
    settings, method = record.settings, record.method
    if settings.system_prompt_sha256 not in (None, SYSTEM_PROMPT_SHA256) or method.source_sha256 is not None:
        raise _NotEnough
    model, advice = _checkpoint(record.model.pretrained)
    arguments: dict[str, str] = {}
    if record.model.revision is not None and not advice:
        arguments["revision"] = _text(record.model.revision, _REVISION)
    if method.name is None:
        return _Run(model, advice, arguments | _given(method.options))
    if method.budget is None:
        raise _NotEnough
    arguments |= {"method": _method(method.name, method.options, method.schedule), "budget": _share(method.budget)}
    if settings.seed is not None:
        arguments["seed"] = str(_from(settings.seed, 0))
    for name in ("dtype", "attn_implementation"):
        if (value := getattr(settings, name)) is not None:
            arguments[name] = _text(value, _WORD)
    if settings.image_mode in _IMAGE_MODES:
        arguments["image_mode"] = settings.image_mode
    if settings.device == "cpu":
        arguments["device"] = "cpu"
    return _Run(model, advice, arguments)


def _checkpoint(pretrained: str | None) -> tuple[str, str]:
    """Returns a checkpoint as typed, and what to put in first."""
    if pretrained is None:
        raise _NotEnough
    if found := _LOCAL.fullmatch(pretrained):
        place = f"/path/to/{found['name']}"
        return place, f"put in the path of the folder that was recorded as {pretrained} for {place}"
    return _text(pretrained, _HUB_ID), ""


def _given(options: Mapping[str, Any]) -> dict[str, str]:
    """Model arguments of a run that does not describe itself; folders and secrets in them were not recorded."""
    given = options.get("model_args", {})
    if not isinstance(given, Mapping) or set(options) - {"model_args"}:
        raise _NotEnough
    arguments = {_text(name, _WORD): _text(value, _VALUE) for name, value in given.items()}
    if any(value == "hidden" or "local:" in value for value in arguments.values()):
        raise _NotEnough
    return arguments


def _method(name: str, options: Mapping[str, Any], schedule: Any) -> str:
    """Returns a method with its options as typed; of several one after the other, each with its own."""
    parts = _text(name, _METHOD).split("+")
    if len(parts) == 1 and schedule is not None:
        options = {"schedule": schedule, **options}
    # of three methods the first two are one: first.first, first.then, then
    last = len(parts) - 1
    prefixes = [""] if not last else ["first." * last, *("first." * (last - k) + "then." for k in range(1, last + 1))]
    found, used = [], set()
    for part, prefix in zip(parts, prefixes, strict=True):
        own = {key: key.removeprefix(prefix) for key in options if key.startswith(prefix)}
        own = {key: option for key, option in own.items() if "." not in option}
        used |= set(own)
        typed = [f"{_text(o, _WORD)}={_option(options[k])}" for k, o in sorted(own.items()) if options[k] is not None]
        found.append(f"{part}[{';'.join(typed)}]" if typed else part)
    if set(options) - used:
        raise _NotEnough
    return "+".join(found)


def _option(value: Any) -> str:
    """Returns an option as typed: lists of numbers or words with colons."""
    if isinstance(value, list):
        if not value or any(isinstance(part, list | dict | bool) or part is None for part in value):
            raise _NotEnough
        return ":".join(_option(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    return _text(repr(value) if isinstance(value, int | float) else value, _VALUE)


def _share(budget: float) -> str:
    """Returns a budget as people type it, `2/9`, where that is the very same number."""
    fraction = Fraction(budget).limit_denominator(_LARGEST_DENOMINATOR)
    if float(fraction) != budget:
        return repr(budget)
    return min(repr(budget), str(fraction), key=len)


def _configuration(record: "RunRecord", run: _Run) -> dict[str, Any]:
    """Returns what `lmms_eval --config` reads."""
    settings = record.settings
    for name in ("revision", "pretrained"):
        if _reads_as_number({"pretrained": run.model, **run.arguments}.get(name, "")):
            raise _NotEnough  # lmms-eval would make a number of it
    content: dict[str, Any] = {
        "model": _text(record.model.lmms_eval_model, _WORD),
        "model_args": ",".join(f"{key}={value}" for key, value in {"pretrained": run.model, **run.arguments}.items()),
        "tasks": _tasks(record),
    }
    if settings.batch_size is not None:
        content["batch_size"] = _from(settings.batch_size, 1)
    if settings.limit is not None:
        content["limit"] = int(settings.limit) if settings.limit.is_integer() else settings.limit
    if settings.offset:
        content["offset"] = settings.offset
    if settings.gen_kwargs is not None:
        content["gen_kwargs"] = _generation(settings.gen_kwargs)
    return content | {"log_samples": True, "output_path": OUTPUT}


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.lower() in ("true", "false")
    return True


def _generation(arguments: Any) -> str:
    if not isinstance(arguments, Mapping) or not arguments:
        raise _NotEnough
    return ",".join(f"{_text(key, _WORD)}={_option(value)}" for key, value in sorted(arguments.items()))


def _sweep(record: "RunRecord", run: _Run) -> list[str]:
    """Returns the words of `swiftvlm-eval sweep`."""
    settings, arguments = record.settings, run.arguments
    if record.method.name is None or settings.offset or settings.gen_kwargs is not None:
        raise _NotEnough
    words = ["swiftvlm-eval", "sweep", "--model", run.model]
    options = {
        "revision": arguments.get("revision"),
        "methods": arguments["method"],
        "budgets": arguments["budget"],
        "seeds": arguments.get("seed"),
        "tasks": _tasks(record),
        "batch-size": None if settings.batch_size is None else str(_from(settings.batch_size, 1)),
        "dtype": arguments.get("dtype"),
        "device": arguments.get("device"),
        "attn": arguments.get("attn_implementation"),
        "image-mode": arguments.get("image_mode"),
    }
    if settings.limit is not None:
        if not settings.limit.is_integer():
            raise _NotEnough
        options["limit"] = str(_from(int(settings.limit), 1))
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", value]
    return [*words, "--out", OUTPUT]


def _tasks(record: "RunRecord") -> str:
    if not record.tasks:
        raise _NotEnough
    return ",".join(_text(task, _WORD) for task in sorted(record.tasks))


def _from(value: int, least: int) -> int:
    if value < least:
        raise _NotEnough
    return value


def _text(value: Any, form: re.Pattern[str]) -> str:
    """Returns a word that is what it looks like, in a shell, in YAML and between commas."""
    if not isinstance(value, str) or not form.fullmatch(value):
        raise _NotEnough
    return value
