"""The page of a report: self-contained, its tables sort, and text of users does nothing."""

import base64
import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.reports.columns import Column, bullets, code, plain
from experiments.reports.columns import table as table_of
from experiments.reports.page import write_page

ROWS = [
    ["`kairos`", "1.23 [1.10, 1.40]", "-12.3 % [-20.1, -3.0]", "1,234"],
    ["`static`", "10.5 [9.00, 12.0]", "+3.4 % [-1.0, +8.0]", "987"],
    ["`shortest-ttft`", "0.90 [0.85, 0.99]", "none", "12,000"],
]
HEADER = ["policy", "ratio", "change", "TTFT P95 (ms)"]
HOSTILE = "<script>alert(1)</script> [x](http://example.org) ![y](http://example.org/y.png) a|b `c` *d* &amp;"
PNG = b"\x89PNG\r\n\x1a\n"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells are given."""
    columns = [Column[Sequence[str]](name, lambda row, at=at: row[at]) for at, name in enumerate(header)]
    return table_of(columns, rows)


class Page(HTMLParser):
    """The contents of a page: its tags with their attributes, its visible text, the cells of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        if tag in ("th", "td", "style", "script"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += data
        if not self._inside or self._inside[-1] in ("th", "td"):
            self.text += data


@pytest.fixture
def figures(tmp_path: Path) -> list[Path]:
    found = []
    for name in ("shown.png", "not shown.png"):
        found.append(tmp_path / name)
        found[-1].write_bytes(PNG + name.encode())
    return found


def summary() -> str:
    return "\n\n".join(
        [
            "# A page",
            "## First",
            table(HEADER, ROWS),
            f"![a picture](<figures/shown.png>)\n*Figure 1. {plain('What is seen.')}*",
            "### Deeper",
            bullets([plain(HOSTILE), code(HOSTILE)]),
            table(["load", "note"], [[f"{load}", plain(HOSTILE)] for load in range(30)]),
            "## Last",
            "The end.",
        ]
    )


@pytest.fixture
def page(figures: list[Path], tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    write_page(summary(), figures, path)
    return path


def test_nothing_is_fetched(page: Path) -> None:
    text = page.read_text()
    for _, attributes in Page(text).tags:
        for name, value in attributes.items():
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                assert value is not None
                assert value.startswith(("data:image/png;base64,", "#"))
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|\bimport\b", text)


def test_every_figure_is_in_the_page_with_its_bytes(page: Path, figures: list[Path]) -> None:
    sources = [attributes["src"] for tag, attributes in Page(page.read_text()).tags if tag == "img"]
    contents = {base64.b64decode(str(source).partition("base64,")[2]) for source in sources}
    assert contents == {path.read_bytes() for path in figures}


def test_tables_have_the_cells_of_the_text(page: Path) -> None:
    first, second = Page(page.read_text()).tables
    assert first == [HEADER, *([cell.strip("`") for cell in row] for row in ROWS)]
    assert second == [["load", "note"], *([f"{load}", HOSTILE] for load in range(30))]


def test_text_of_users_is_shown_and_does_nothing(page: Path) -> None:
    found = Page(page.read_text())
    assert found.text.count(HOSTILE) == 32
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert [tag for tag, _ in found.tags].count("img") == 2


def test_a_link_elsewhere_is_its_text_only(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page('[here](https://example.org "title") <https://example.org/a> [there](javascript:alert(1))', [], path)
    found = Page(path.read_text())
    assert "here" in found.text
    assert not [tag for tag, _ in found.tags if tag == "a"]


def test_the_contents_lead_to_every_heading(page: Path) -> None:
    found = Page(page.read_text())
    ids = [attributes["id"] for tag, attributes in found.tags if tag in ("h2", "h3")]
    targets = [attributes["href"] for tag, attributes in found.tags if tag == "a"]
    assert targets == [f"#{one}" for one in ids]
    assert len(ids) == 3


def test_the_same_twice_is_the_same_bytes(page: Path, figures: list[Path], tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    write_page(summary(), figures, again)
    assert again.read_bytes() == page.read_bytes()


def test_an_image_that_is_no_figure_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other"):
        write_page("![x](other.png)", [], tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))).filter(lambda text: text.strip() != ""))
def test_any_text_comes_through_as_it_was_given(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "page.html"
    write_page(table(["x", "y"], [[plain(text), code(text)]]), [], path)
    line = " ".join(text.split())
    assert Page(path.read_text()).tables == [[["x", "y"], [line, line]]]


def browse(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's HTML after its scripts ran, and what they wrote to the console."""
    assert BROWSER is not None
    # No sandbox: containers often do not let a browser make one. The other flags keep it off the network.
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    quiet = ["--disable-component-update", "--disable-sync", "--disable-quic", "--enable-logging=stderr"]
    command = [BROWSER, *flags, *quiet, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")
def test_a_browser_opens_the_page_and_a_click_sorts(page: Path, tmp_path: Path) -> None:
    shown, console = browse(page, tmp_path / "profile")
    assert console == []
    assert Page(shown).tables == Page(page.read_text()).tables

    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("</body>", "<script>nothing.there()</script></body>"))
    assert len(browse(broken, tmp_path / "profile")[1]) == 1

    # What a person does, column by column, and what is in the table then.
    clicks = """<script>
        const orders = [];
        const body = document.querySelector("table").tBodies[0];
        for (const column of [0, 1, 2, 3, 3]) {
            document.querySelectorAll("th")[column].click();
            orders.push([...body.rows].map((row) => row.cells[0].textContent));
        }
        document.title = JSON.stringify(orders);
        const box = document.querySelector("input.filter");
        box.value = "29 script";
        box.dispatchEvent(new Event("input"));
    </script></body>"""
    clicked = tmp_path / "clicked.html"
    clicked.write_text(page.read_text().replace("</body>", clicks))
    shown, console = browse(clicked, tmp_path / "profile")
    assert console == []
    kairos, static, shortest = (row[0].strip("`") for row in ROWS)
    orders = re.search(r"<title>(.*)</title>", shown)
    assert orders is not None
    assert orders[1] == (
        f'[["{kairos}","{shortest}","{static}"],["{shortest}","{kairos}","{static}"],["{kairos}","{static}","{shortest}"],'
        f'["{static}","{kairos}","{shortest}"],["{shortest}","{kairos}","{static}"]]'
    )
    rows = [attributes for tag, attributes in Page(shown).tags if tag == "tr"][-30:]
    assert ["hidden" not in attributes for attributes in rows] == [False] * 29 + [True]
