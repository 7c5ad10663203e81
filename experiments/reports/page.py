"""A summary as one self-contained HTML page: figures inside, tables that sort, nothing fetched."""

import base64
from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token

from hardware_profiles.files import replacing

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined
)
_KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
_ROWS_TO_FILTER = 20
_FILTER = '<input class="filter" type="search" placeholder="show rows with &#8230;" aria-label="filter" hidden>\n'


def write_page(summary_markdown: str, figures: Sequence[Path], path: Path) -> None:
    """Write the page; equal text and figures give equal bytes.

    HTML in the text is shown as text, and a link elsewhere as its text. Figures are PNG and SVG files, each embedded
    where the text has an image of its name, else at the end; a ValueError for an image that is none of them.
    """
    # "js-default" escapes HTML in the summary, and makes no links of addresses.
    markdown = MarkdownIt("js-default")
    tokens = markdown.parse(summary_markdown)
    others = {figure.name: figure for figure in figures}
    inside = dict(others)
    for token in chain.from_iterable(block.children or () for block in tokens):
        if token.type == "image":
            name = Path(unquote(str(token.attrs["src"]))).name
            if name not in inside:
                raise ValueError(f"the summary shows {token.attrs['src']}, which is none of its figures")
            token.attrs["src"] = _data(inside[name])
            others.pop(name, None)
        elif token.type in ("link_open", "link_close"):
            token.type, token.tag, token.attrs = "text", "", {}
    headings: list[dict[str, Any]] = []
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(token.content for token in inline.children or () if token.type in ("text", "code_inline"))
            opening.attrs["id"] = f"s{len(headings)}"
            headings.append({"level": int(opening.tag[1:]), "text": text, "anchor": opening.attrs["id"]})
    _frame(tokens)
    page = _TEMPLATES.get_template("page.html.jinja").render(
        title=next((heading["text"] for heading in headings if heading["level"] == 1), path.stem),
        headings=[heading for heading in headings if heading["level"] > 1],
        body=markdown.renderer.render(tokens, markdown.options, {}),
        others=[(figure.stem, _data(figure)) for figure in others.values()],
    )
    with replacing(path) as temporary:
        temporary.write_text(page + "\n", encoding="utf-8")


def _data(figure: Path) -> str:
    return f"data:{_KINDS[figure.suffix]};base64,{base64.b64encode(figure.read_bytes()).decode()}"


def _frame(tokens: list[Token]) -> None:
    """Put each table into a box that scrolls, with a filter above a long one; mark a paragraph that is a figure."""
    rows = 0
    for i in range(len(tokens) - 1, -1, -1):
        token = tokens[i]
        if token.type == "table_close":
            rows = 0
            tokens.insert(i + 1, Token("html_block", "", 0, content="</div>\n"))
        elif token.type == "tr_open":
            rows += 1
        elif token.type == "table_open":
            box = (_FILTER if rows > _ROWS_TO_FILTER else "") + '<div class="wide">\n'
            tokens.insert(i, Token("html_block", "", 0, content=box))
        elif token.type == "paragraph_open" and (children := tokens[i + 1].children) and children[0].type == "image":
            token.attrs["class"] = "figure"
