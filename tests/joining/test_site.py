"""A site: complete, valid, the same bytes for the same records, harmless texts, and nobody else's files."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from command_line import run
from submitted_runs import made, reference, samples_path, spoiled

from swiftvlm_eval.joining import schema, site
from swiftvlm_eval.joining.feed import MOST_ENTRIES, feed, moment
from swiftvlm_eval.joining.schema import PublishedLeaderboard, json_schema
from swiftvlm_eval.joining.site import build_site
from swiftvlm_eval.leaderboard.compute.paper_table import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
PAPER = SHIPPED / "swiftvlm-table2.yaml"
COMMITTED = Path(schema.__file__).with_name("leaderboard.schema.json")
ATOM = "{http://www.w3.org/2005/Atom}"


@pytest.fixture
def whole() -> None:
    """Marks a test whose pages are drawn."""


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds; the pages of one test are whole."""
    if "whole" not in request.fixturenames:

        def pages(boards: Any, papers: Any, problems: Any, **_: Any) -> dict[str, bytes]:
            slugs = [board.slug for board in (*boards, *(paper.board for paper in papers))]
            return {"index.html": b"<title>", "index.md": b"#"} | {f"{slug}.json": b"{}" for slug in slugs}

        monkeypatch.setattr(site, "pages", pages)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def leaderboard(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "leaderboard.json").read_text())
    return loaded


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        row["label"]: row
        for board in leaderboard(folder)["boards"]
        if board["measured"]
        for section in board["sections"]
        for row in section["rows"]
    }


def validate(content: dict[str, Any]) -> str:
    """By jsonschema against the committed file where it is installed, else by the typed models."""
    try:
        import jsonschema
    except ImportError:
        PublishedLeaderboard.model_validate_json(json.dumps(content))
        return "pydantic"
    validator = jsonschema.validators.validator_for(json.loads(COMMITTED.read_text()))
    validator(json.loads(COMMITTED.read_text())).validate(content)
    return "jsonschema"


@pytest.mark.usefixtures("whole")
def test_a_site_has_pages_records_data_schema_and_feed(tmp_path: Path) -> None:
    """By hand: fastv answers 6 of 10 where vanilla answers 9, so 60.0 and 66.7 %."""
    there = reference(tmp_path)
    mine = made(there, "fastv", stamp="20260201_000000")
    out = tmp_path / "site"
    report = build_site([there], out, published=[PAPER])
    files = contents(out)
    assert {
        "index.html",
        "index.md",
        "org-model.json",
        "leaderboard.json",
        "leaderboard.schema.json",
        "feed.xml",
    } <= set(files)
    assert sorted(str(path.relative_to(out)) for path in report.files) == [
        name for name in sorted(files) if not Path(name).name.startswith(".")
    ]
    assert files["leaderboard.schema.json"] == COMMITTED.read_bytes()
    fastv = rows(out)["fastv"]
    assert fastv["scores"]["demo_gqa"]["score"] == pytest.approx(60.0)
    assert fastv["scores"]["demo_gqa"]["relative"] == pytest.approx(100 * 6 / 9)
    (record,) = fastv["records"]
    assert record["file"] == f"records/{mine.name}" and files[record["file"]] == mine.read_bytes()
    assert record["sha256"] == hashlib.sha256(mine.read_bytes()).hexdigest()
    assert files[record["samples"]] == samples_path(mine).read_bytes()
    assert leaderboard(out)["updated"] == record["created"] == "2026-01-31T16:00:00Z"  # midnight in Singapore
    assert [board["measured"] for board in leaderboard(out)["boards"]] == [True, False]


def test_the_data_fits_the_schema_and_the_schema_is_the_committed_one(tmp_path: Path) -> None:
    build_site([reference(tmp_path)], tmp_path / "site", published=[PAPER])
    content = leaderboard(tmp_path / "site")
    validate(content)
    assert json_schema() == COMMITTED.read_text()
    content["boards"][0]["sections"][0]["rows"][0]["surprise"] = 1
    with pytest.raises(Exception, match="surprise"):
        validate(content)


def test_every_field_of_the_schema_is_explained_or_plain() -> None:
    said = json.loads(json_schema())
    plain = {"title", "key", "metric", "caption", "notes", "rows", "benchmarks", "sections", "boards"}
    plain |= {"format", "schema_version"}
    for model in (each for each in (said, *said["$defs"].values()) if "properties" in each):
        assert model["description"]
        assert {n for n, f in model["properties"].items() if "description" not in f and "$ref" not in f} <= plain


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    there = reference(tmp_path)
    again = tmp_path / "other" / "place"
    shutil.copytree(there, again)
    build_site([there], tmp_path / "one", published=[PAPER])
    build_site(sorted(again.glob("*.record.json"), reverse=True), tmp_path / "two", published=[PAPER])
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    build_site([there], tmp_path / "one", published=[PAPER])
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_second_site_forgets_what_is_gone(tmp_path: Path) -> None:
    there = reference(tmp_path)
    gone = made(there, "fastv")
    build_site([there], tmp_path / "site")
    samples_path(gone).unlink()
    gone.unlink()
    build_site([there], tmp_path / "site")
    assert not [name for name in contents(tmp_path / "site") if "fastv" in name]


@pytest.mark.parametrize("place", ["notes.txt", "records/mine.txt", ".git", "index.html", "records/x.record.json"])
def test_foreign_files_are_refused_and_stay(tmp_path: Path, place: str) -> None:
    there, out = reference(tmp_path), tmp_path / "site"
    foreign = out / place
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    with pytest.raises(ValueError, match=f"holds {foreign.name}, which is not of a site made here"):
        build_site([there], out)
    assert contents(out) == {place: b"mine"}


def test_a_linked_folder_of_records_is_refused(tmp_path: Path) -> None:
    there, out = reference(tmp_path), tmp_path / "site"
    (tmp_path / "elsewhere").mkdir()
    out.mkdir()
    (out / "records").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="holds records, which"):
        build_site([there], out)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    there = reference(tmp_path)
    (tmp_path / "site").write_text("mine")
    with pytest.raises(ValueError, match="site"):
        build_site([there], tmp_path / "site")


def test_samples_that_do_not_belong_are_not_published(tmp_path: Path) -> None:
    there = reference(tmp_path)
    mine = made(there, "fastv")
    (tmp_path / "secret.txt").write_text("secret")
    other = made(there, "pdrop")
    samples_path(mine).write_bytes(b"changed")
    spoiled(other, "samples_file", "name", value="../secret.txt")
    report = build_site([there], tmp_path / "site")
    reasons = [problem.reason for problem in report.problems if problem.reason.startswith("samples not published")]
    assert len(reasons) == 2
    assert b"secret" not in b"".join(contents(tmp_path / "site" / "records").values()).replace(b"../secret.txt", b"")
    assert rows(tmp_path / "site")["fastv"]["records"][0]["samples"] is None


def test_a_board_called_leaderboard_does_not_replace_the_data(tmp_path: Path) -> None:
    made(tmp_path / "in", "vanilla", pretrained="leaderboard")
    report = build_site([tmp_path / "in"], tmp_path / "site")
    validate(leaderboard(tmp_path / "site"))
    assert any(problem.file == "leaderboard.json" for problem in report.problems)


def entries(folder: Path) -> list[ElementTree.Element]:
    return list(ElementTree.parse(folder / "feed.xml").getroot().iter(f"{ATOM}entry"))


def test_the_feed_is_newest_first_and_follows_atom(tmp_path: Path) -> None:
    """RFC 4287: a feed has id, title, updated and author; an entry id, title, updated and a link."""
    there = reference(tmp_path)
    build_site([there], tmp_path / "site", address="https://host.example/boards")
    root = ElementTree.parse(tmp_path / "site" / "feed.xml").getroot()
    assert root.tag == f"{ATOM}feed" and root.find(f"{ATOM}author/{ATOM}name") is not None
    found = entries(tmp_path / "site")
    assert ["swiftvlm" in (entry.findtext(f"{ATOM}title") or "") for entry in found] == [True, False, False]
    for part in (root, *found):
        assert all(part.findtext(f"{ATOM}{name}") for name in ("id", "title", "updated"))
        links = [str(link.get("href")) for link in part.findall(f"{ATOM}link")]
        assert links and all(link.startswith("https://host.example/boards/") for link in links)
    ids = [entry.findtext(f"{ATOM}id") for entry in found]
    assert len(set(ids)) == 3
    times = [str(entry.findtext(f"{ATOM}updated")) for entry in found]
    assert times == sorted(times, reverse=True) and root.findtext(f"{ATOM}updated") == times[0]


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "]]>", "&xxe;", "a\x00b\x0bc", "\ud800", "\u202e</title>"]
)
def test_hostile_names_stay_text_in_the_feed(tmp_path: Path, text: str) -> None:
    made(tmp_path / "in", "vanilla", pretrained="m")
    other = made(tmp_path / "in", "fastv", pretrained="m", options={"a": 1})
    made(tmp_path / "in", "fastv", pretrained="m", options={"a": 2})
    content = other.read_text().replace('"a": 1', f'"a": {json.dumps(text)}')
    if text != "\ud800":
        other.write_text(content)
    build_site([tmp_path / "in"], tmp_path / "site")
    root = ElementTree.parse(tmp_path / "site" / "feed.xml").getroot()
    assert {element.tag.removeprefix(ATOM) for element in root.iter()} == {
        *("feed", "title", "id", "updated", "author", "name", "link", "entry", "summary")
    }
    validate(leaderboard(tmp_path / "site"))


def test_the_feed_is_bounded(tmp_path: Path) -> None:
    build_site([reference(tmp_path)], tmp_path / "site")
    board = PublishedLeaderboard.model_validate_json((tmp_path / "site" / "leaderboard.json").read_bytes()).boards[0]
    section = board.sections[0]
    row = section.rows[0]
    many = [
        row.model_copy(update={"records": (row.records[0].model_copy(update={"sha256": f"{number:064x}"}),)})
        for number in range(MOST_ENTRIES + 20)
    ]
    full = board.model_copy(update={"sections": (section.model_copy(update={"rows": tuple(many)}),)})
    assert feed([full]).count(b"<entry>") == MOST_ENTRIES
    assert b"<updated>1970-01-01T00:00:00Z</updated>" in feed([])


def test_times_are_those_of_utc() -> None:
    assert moment("2026-01-01T02:00:00+02:00") == "2026-01-01T00:00:00Z"
    assert [moment(text) for text in (None, "", "yesterday", "2026-01-01T00:00:00", "9999-99-99")] == [None] * 5


def test_the_command_writes_a_site_or_says_why_not(tmp_path: Path) -> None:
    there, out = reference(tmp_path), tmp_path / "site"
    status, _, said = run("leaderboard", str(there), "--site", str(out))
    assert status == 0 and f"open {out / 'index.html'}" in said and (out / "feed.xml").is_file()
    for arguments, reason in (
        (["--site", str(out), "--out", str(out)], "allowed is one of --out and --site"),
        ([], "out=None, site=None: allowed is one of --out and --site"),
        (["--out", str(tmp_path / "x"), "--address", "https://a/"], "allowed with --site alone"),
        (["--site", str(out), "--address", "javascript:x"], "allowed is https://host/path/"),
    ):
        status, _, said = run("leaderboard", str(there), *arguments)
        assert status == 1 and reason in said
