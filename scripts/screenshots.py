"""Takes pictures of leaderboard pages as readers see them: wide and narrow, light and dark, with what opens opened.

For eyes, before a page is called done: `python scripts/screenshots.py leaderboards/demo/index.html --out shots`.
Needs selenium, a Chromium and its driver.
"""

import argparse
import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDTHS = {"wide": (1400, 900), "phone": (390, 844)}
# What is shown -> the state in the address.
VIEWS = {
    "first": "",
    "all": "budget=all",
    "score": "show=score&intervals=1",
    "grid": "view=budgets",
    "card": "card={row}",
}


@contextmanager
def browser(*arguments: str) -> Iterator[Any]:
    """Yields a headless Chromium that fetches nothing by itself.

    Raises:
        FileNotFoundError: There is no Chromium or no driver on this machine.
    """
    from selenium import webdriver

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        raise FileNotFoundError("no chromium and chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *quiet, *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield session
    finally:
        session.quit()


def look(session: Any, width: int, height: int, *, dark: bool = False, media: str = "screen") -> None:
    """Sets the size of the page (smaller than a window can be, too), the preferred theme, and the medium."""
    session.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 640},
    )
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": scheme})


def shoot(session: Any, path: Path, *, whole: bool = False) -> None:
    """Writes a PNG of what is in view, or of the whole page."""
    options: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole}
    if whole:
        size = session.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
    path.write_bytes(base64.b64decode(session.execute_cdp_cmd("Page.captureScreenshot", options)["data"]))


def take(page: Path, out: Path) -> list[Path]:
    """Writes all pictures of one page; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    with browser() as session:
        session.get(page.resolve().as_uri())
        boards = session.execute_script("return [...document.querySelectorAll('.board')].map((each) => each.id)")
        for slug in boards:
            for name, (width, height) in WIDTHS.items():
                for dark in (False, True):
                    look(session, width, height, dark=dark)
                    for view, state in VIEWS.items():
                        open_page(session, page, f"board={slug}&{state}")
                        path = out / f"{page.parent.name}-{slug}-{name}-{'dark' if dark else 'light'}-{view}.png"
                        shoot(session, path, whole=view == "first" and name == "phone")
                        made.append(path)
    return made


def open_page(session: Any, page: Path, state: str) -> None:
    """Loads a page in a state; `{row}` in it stands for the first pruned row of the board shown."""
    address = page.resolve().as_uri()
    session.get("about:blank")
    session.get(f"{address}#{state.replace('card={row}', '')}")
    if "{row}" in state:
        first = ".board:not([hidden]) tbody:not([data-budget=vanilla]) tr[data-ids]"
        row = session.execute_script("return document.querySelector(arguments[0]).dataset.ids", first)
        session.get("about:blank")
        session.get(f"{address}#{state.format(row=row)}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path, help="index.html of leaderboard folders")
    parser.add_argument("--out", required=True, type=Path, help="folder for the pictures")
    given = parser.parse_args()
    for page in given.pages:
        for path in take(page, given.out):
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
