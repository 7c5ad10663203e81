"""A summary as one HTML page that a person can open from a disk: figures inside, tables that sort, nothing fetched."""

import base64
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from hardware_profiles.files import replacing

_HERE = Path(__file__).parent
_KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
_ROWS_TO_FILTER = 20
# Whatever gets into the page, a browser loads nothing for it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_html(summary_markdown: str, figures: Sequence[Path], path: Path) -> None:
    """Write the page; equal text and figures give equal bytes.

    Args:
        summary_markdown: what it says. HTML in it is shown as text, a link elsewhere as its text.
        figures: PNG and SVG files. Each is embedded where the text has an image of its name; those that the text does
            not show come at the end.
        path: the file to write.

    Raises:
        ValueError: an image that is none of `figures`.
    """
    # HTML in a summary is not the summary's own: "js-default" escapes it. No plug-in makes links of addresses.
    markdown = MarkdownIt("js-default")
    tokens = markdown.parse(summary_markdown)
    inside = {figure.name: figure for figure in figures}
    shown = {_embed(token, inside) for token in _inline(tokens) if token.type == "image"}
    for token in _inline(tokens):
        if token.type in ("link_open", "link_close"):
            token.type, token.tag, token.attrs = "text", "", {}
    contents = _contents(tokens)
    _frame(tokens)
    body = markdown.renderer.render(tokens, markdown.options, {})
    rest = "".join(
        f'<p class="figure"><img src="{_data(figure)}" alt=""><em>{escape(figure.stem)}</em></p>\n'
        for figure in figures
        if figure.name not in shown
    )
    title = next((text for level, text, _ in contents if level == 1), path.stem)
    with replacing(path) as temporary:
        temporary.write_text(
            f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{(_HERE / "page.css").read_text()}</style>
</head>
<body>
<nav aria-label="Contents"><strong>Contents</strong>
{_list([entry for entry in contents if entry[0] > 1])}</nav>
<main>
{body}{rest}</main>
<script>
{(_HERE / "page.js").read_text()}</script>
</body>
</html>
""",
            encoding="utf-8",
        )


def _inline(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield from token.children or ()


def _data(figure: Path) -> str:
    return f"data:{_KINDS[figure.suffix]};base64,{base64.b64encode(figure.read_bytes()).decode()}"


def _embed(image: Token, figures: dict[str, Path]) -> str:
    """Put the figure that an image names into it; returns its name."""
    name = Path(unquote(str(image.attrs["src"]))).name
    if name not in figures:
        raise ValueError(f"the summary shows {image.attrs['src']}, which is none of its figures")
    image.attrs["src"] = _data(figures[name])
    return name


def _contents(tokens: Sequence[Token]) -> list[tuple[int, str, str]]:
    """Level, text and id of each heading, which gets that id."""
    found: list[tuple[int, str, str]] = []
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open":
            text = "".join(token.content for token in inline.children or () if token.type in ("text", "code_inline"))
            anchor = f"s{len(found)}"
            heading.attrs["id"] = anchor
            found.append((int(heading.tag[1:]), text, anchor))
    return found


def _list(contents: Sequence[tuple[int, str, str]]) -> str:
    """The headings as lists in lists."""
    lines = []
    depth = 1
    for level, text, anchor in contents:
        while depth < level:
            lines.append("<ul>")
            depth += 1
        while depth > level:
            lines.append("</ul>")
            depth -= 1
        lines.append(f'<li><a href="#{anchor}">{escape(text)}</a></li>')
    lines += ["</ul>"] * (depth - 1)
    return "".join(f"{line}\n" for line in lines)


def _frame(tokens: list[Token]) -> None:
    """Put a table into a box that scrolls, with a filter above a long one; mark a paragraph that is a figure."""
    rows = 0
    for i in range(len(tokens) - 1, -1, -1):
        token = tokens[i]
        if token.type == "table_close":
            rows = 0
            tokens.insert(i + 1, _html("</div>\n"))
        elif token.type == "tr_open":
            rows += 1
        elif token.type == "table_open":
            asks = (
                '<input class="filter" type="search" placeholder="show rows with &#8230;" aria-label="filter" hidden>\n'
            )
            tokens.insert(i, _html((asks if rows > _ROWS_TO_FILTER else "") + '<div class="wide">\n'))
        elif token.type == "paragraph_open" and (children := tokens[i + 1].children) and children[0].type == "image":
            token.attrs["class"] = "figure"


def _html(text: str) -> Token:
    return Token("html_block", "", 0, content=text)
