"""Mending the tree so that each element has a Markdown form: code, tables, links around blocks.

Must not know Markdown's signs.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable

from bs4 import BeautifulSoup
from bs4.element import NavigableString, Tag

from finetune_trainer.dataset.cleaning.tree import above, all_below, first_below

HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_CELLS = frozenset({"td", "th"})
_NO_BLOCKS_INSIDE = HEADINGS | _CELLS | {"a", "pre"}
_TABLE_PARTS = frozenset({"thead", "tbody", "tfoot", "tr", "td", "th", "caption"})
_WRITTEN_IMAGE = re.compile(r"\s*<img\s([^<>]*?)\s*/?>\s*")
_SRC = re.compile(r"\bsrc=\"(https?://[^\"\s]+)\"")
_ALT = re.compile(r"\balt=\"(.*?)\"(?=\s+[\w-]+=|$)", re.DOTALL)
_MAX_SPAN = 100
_MAX_CELLS = 20_000


def mend_structure(soup: BeautifulSoup) -> None:
    """Change the tree in place."""
    tags: dict[str, list[Tag]] = {}
    written_images: list[NavigableString] = []
    for node in soup.descendants:
        if isinstance(node, Tag):
            tags.setdefault(node.name, []).append(node)
        elif isinstance(node, NavigableString) and "<img" in node:
            written_images.append(node)
    for text in written_images:
        _show_image(soup, text)
    for pre in tags.get("pre", ()):
        _mend_pre(soup, pre)
    for code in [*tags.get("code", ()), *tags.get("tt", ())]:
        _mend_code(code)
    inner_tables = _by_table(tags.get("table", ()))
    parts = _by_table(part for name in _TABLE_PARTS for part in tags.get(name, ()))
    for table in tags.get("table", ()):
        if id(table) in inner_tables or _is_layout(table):
            for part in (table, *parts.get(id(table), ())):
                part.name = "div"
        else:
            _fill_rowspans(table)
    if any(name in tags for name in HEADINGS):
        for link in tags.get("a", ()):
            _move_into_heading(link)


def _show_image(soup: BeautifulSoup, text: NavigableString) -> None:
    """A paragraph that is nothing but the text of an image's tag was meant to be the image; an editor escaped it."""
    written, paragraph = _WRITTEN_IMAGE.fullmatch(text), text.parent
    if written is None or paragraph is None or paragraph.name != "p" or len(paragraph.contents) > 1:
        return
    source, alt = _SRC.search(written.group(1)), _ALT.search(written.group(1))
    if source is not None:
        attributes = {"src": source.group(1), "alt": alt.group(1) if alt is not None else ""}
        text.replace_with(soup.new_tag("img", attrs=attributes))


def _mend_pre(soup: BeautifulSoup, pre: Tag) -> None:
    """Line breaks are lines; a poem is no code, and its links are to be read."""
    for line_break in list(all_below(pre, {"br"})):
        line_break.replace_with("\n")
    if "wp-block-verse" in (pre.get("class") or ()):
        pre.name = "p"
        for text in list(pre.find_all(string=lambda text: "\n" in (text or ""))):
            for number, line in enumerate(str(text).split("\n")):
                if number:
                    text.insert_before(soup.new_tag("br"))
                text.insert_before(NavigableString(line))
            text.extract()


def _mend_code(code: Tag) -> None:
    """Code of several lines is a block, whether or not somebody said `pre`."""
    code.name = "code"
    if first_below(code, {"br"}) is None or above(code, _NO_BLOCKS_INSIDE) is not None:
        return
    code.name = "pre"
    for line_break in list(all_below(code, {"br"})):
        following = line_break.next_sibling
        if isinstance(following, NavigableString) and following.startswith("\n"):
            following.replace_with(NavigableString(following[1:]))
        line_break.replace_with("\n")


def _own_rows(table: Tag) -> list[Tag]:
    return [row for row in all_below(table, {"tr"}) if above(row, {"table"}) is table]


def _cells(row: Tag) -> list[Tag]:
    return [cell for cell in row.children if isinstance(cell, Tag) and cell.name in _CELLS]


def _by_table(tags: Iterable[Tag]) -> dict[int, list[Tag]]:
    """Elements by the id of the nearest table around them: looked up once, for tables may be nested a thousand deep."""
    found: dict[int, list[Tag]] = {}
    for tag in tags:
        if (table := above(tag, {"table"})) is not None:
            found.setdefault(id(table), []).append(tag)
    return found


def _is_layout(table: Tag) -> bool:
    """Whether a table with no other in it only places things: it holds code in lines, or a single cell."""
    if table.get("role") == "presentation":
        return True
    if any("\n" in pre.get_text().strip() for pre in all_below(table, {"pre"})):
        return True
    return sum(len(_cells(row)) for row in _own_rows(table)) <= 1


def span_of(cell: Tag, name: str) -> int:
    """Columns or rows that a cell takes, at least 1."""
    value = str(cell.get(name) or "1").strip()
    return min(_MAX_SPAN, max(1, int(value))) if re.fullmatch(r"[0-9]{1,9}", value) else 1


def _fill_rowspans(table: Tag) -> None:
    """A cell that reaches over rows is repeated in each, so that a row can be read alone."""
    if not any(cell.has_attr("rowspan") for cell in all_below(table, _CELLS)):
        return
    reaching: dict[int, tuple[Tag, int]] = {}
    made = 0
    for row in _own_rows(table):
        column = 0
        waiting = _cells(row)
        while waiting or any(place >= column for place in reaching):
            if column in reaching:
                cell, rows_left = reaching.pop(column)
                width = span_of(cell, "colspan")
                repeated = copy.copy(cell)
                del repeated["rowspan"]
                if waiting:
                    waiting[0].insert_before(repeated)
                else:
                    row.append(repeated)
                made += 1
                if rows_left > 1 and made < _MAX_CELLS:
                    reaching[column] = (cell, rows_left - 1)
                column += width
            elif waiting:
                cell = waiting.pop(0)
                rows = span_of(cell, "rowspan")
                if rows > 1 and made < _MAX_CELLS:
                    reaching[column] = (cell, rows - 1)
                column += span_of(cell, "colspan")
            else:
                column = min(place for place in reaching if place >= column)


def _move_into_heading(link: Tag) -> None:
    """A link around a card with a heading is a link on the heading."""
    heading = first_below(link, HEADINGS)
    if heading is None or not link.get("href"):
        return
    inner = copy.copy(link)
    inner.clear()
    for child in list(heading.children):
        inner.append(child.extract())
    heading.append(inner)
    link.name = "div"
    link.attrs = {}
