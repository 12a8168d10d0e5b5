import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from swiftvlm_eval.results import load_benchmarks, shipped_benchmarks
from swiftvlm_eval.results.benchmarks import TABLE, Benchmark

STOCK = {
    "gqa": "gqa/gqa.yaml",
    "sqa": "scienceqa/scienceqa_img.yaml",
    "mme": "mme/mme.yaml",
    "mmb": "mmbench/mmbench_en_dev_static.yaml",
    "pope": "pope/pope.yaml",
}


def columns_of(name: str) -> list[Benchmark]:
    """The columns of a named set."""
    table = shipped_benchmarks()
    return [table.benchmarks[key] for key in table.sets[name]]


def test_the_paper_has_nine_columns_in_its_order() -> None:
    table, columns = shipped_benchmarks(), columns_of("paper")
    assert [column.title for column in columns] == [
        *("RefCOCO", "RefCOCO+", "RefCOCOg"),
        *("TextVQA", "GQA", "SQA", "MME", "MMB", "POPE"),
    ]
    assert [column.group for column in columns] == ["localization"] * 3 + ["non_localization"] * 6
    assert table.sets["paper_next"] == ("refcoco", "textvqa", "gqa", "mmb")


def test_a_column_says_whose_protocol_it_has() -> None:
    assert {column.protocol for column in columns_of("paper")} == {"lmms_eval"}
    official = columns_of("paper_official")
    assert [column.key for column in official] == [
        f"{key}_official" for key in ("textvqa", "gqa", "sqa", "mme", "mmb", "pope")
    ]
    assert {column.protocol for column in official} == {column.group for column in official} == {"official"}
    assert all("official" in column.title for column in official)
    assert not {column.task for column in official} & {column.task for column in columns_of("paper")}


@pytest.mark.parametrize("key", STOCK)
def test_stock_tasks_have_the_metric_the_table_reads(key: str) -> None:
    spec = find_spec("lmms_eval")
    assert spec is not None and spec.origin is not None
    text = (Path(spec.origin).parent / "tasks" / STOCK[key]).read_text()
    content = yaml.safe_load(re.sub(r"!function (\S+)", r'"\1"', text))
    column = shipped_benchmarks().benchmarks[key]
    metrics = {metric["metric"]: metric["higher_is_better"] for metric in content["metric_list"]}
    assert content["task"] == column.task
    assert metrics[column.metric] is True


def test_columns_are_found_by_task() -> None:
    found = shipped_benchmarks().of_tasks({"pope", "gqa", "unheard_of"})
    assert [column.key for column in found] == ["gqa", "pope"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("scale: 100", "scale: 0", "scale"),
        ("group: localization", "group: somewhere", "group"),
        ("reduction: mme", "reduction: median", "reduction"),
        ("task: pope\n", "task: gqa\n    extra: 1\n", "extra"),
        ("sqa, mme, mmb, pope]", "sqa, mme, mmb, pop]", "pop"),
        ("benchmarks:", "columns:", "benchmarks"),
        ("group: official", "group: non_localization", "group non_localization mixes the protocols"),
        ("paper_next: [", "paper_next: [gqa_official, ", "sets.paper_next mixes the protocols"),
        ("protocol: official", "protocol: llava", "protocol"),
    ],
)
def test_a_wrong_table_is_refused_by_name_and_field(tmp_path: Path, old: str, new: str, reason: str) -> None:
    text = TABLE.read_text()
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=rf"(?s)mine.yaml.*{reason}"):
        load_benchmarks(path)
