"""Tables and text in Markdown: one cell per column and row, and users' text stays as it was given."""

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from experiments.reports.columns import Column, bullets, code, plain, table

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))).filter(lambda text: text.strip() != "")


@given(st.lists(st.tuples(st.integers(0, 99), st.floats(0, 1)), min_size=1))
def test_a_table_has_one_cell_per_column_and_row(rows: list[tuple[int, float]]) -> None:
    columns = [
        Column[tuple[int, float]]("policy", lambda row: f"p{row[0]}", left=True),
        Column[tuple[int, float]]("share (%)", lambda row: f"{100 * row[1]:.1f}"),
    ]
    header, marks, *lines = table(columns, rows).splitlines()
    assert header == "| policy | share (%) |"
    assert marks == "| --- | ---: |"
    assert lines == [f"| p{count} | {100 * share:.1f} |" for count, share in rows]


def test_a_table_without_rows_is_left_out() -> None:
    assert table([Column[int]("x", str)], []) == ""


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert table([Column[str]("a|b", lambda row: row)], ["c|d"]).splitlines() == ["| a\\|b |", "| ---: |", "| c\\|d |"]


@given(TEXT)
def test_plain_text_and_code_are_shown_as_given(text: str) -> None:
    line = " ".join(text.split())
    for marked in (f"x {plain(text)} x", f"x {code(text)} x"):
        paragraph = MarkdownIt("js-default").parse(marked)[1]
        shown = "".join(token.content for token in paragraph.children or () if token.type in ("text", "code_inline"))
        assert shown == f"x {line} x"


def test_a_name_with_an_underscore_needs_no_escape() -> None:
    assert plain("kv_bytes_moved of *all*") == r"kv_bytes_moved of \*all\*"
    assert bullets(["a", "b"]) == "- a\n- b"
