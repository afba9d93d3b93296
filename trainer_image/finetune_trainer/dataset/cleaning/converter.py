"""From a mended tree to Markdown: markdownify without escapes, with code verbatim and tables that hold together.

Must not know which elements are machinery, nor where links lead.
"""

from __future__ import annotations

import re
import unicodedata

from bs4 import BeautifulSoup
from bs4.element import NavigableString, PageElement, PreformattedString, Tag
from markdownify import ATX, MarkdownConverter

from finetune_contract.sections import lines_and_code
from finetune_trainer.dataset.cleaning.structure import HEADINGS, span_of
from finetune_trainer.dataset.cleaning.tree import all_below, first_below

_BLOCKS = HEADINGS | frozenset(
    "address article aside blockquote body br caption center dd details div dl dt fieldset figcaption figure footer "  # noqa: SIM905
    "header hgroup hr legend li main ol p pre section summary table tbody td tfoot th thead tr ul".split()
)
"""Blanks at their edges are no text."""
_INLINE_ONLY = HEADINGS | {"td", "th"}
_VERBATIM = frozenset({"pre", "code", "kbd", "samp"})
_BLANKS = re.compile(r"[\t \n\f]+")
_LANGUAGE = re.compile(r"^(?:language|lang|highlight-source)-([\w+#.-]+)$")
_BRUSH = re.compile(r"brush:\s*([\w+#.-]+)")
_CODE_MARK = re.compile(r"^(.*?)\x01(\d{1,9})\x01(.*)$")
_ONLY_MARKS = re.compile(r"[\s>*+-]*(?:\d+\.\s*)?")
_UNESCAPED_BAR = re.compile(r"(?<!\\)\|")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad\x00\x02-\x08\x0e-\x1b\x7f]")
_ODD_BLANK = re.compile("[\u00a0\x0b\x0c\x1c-\x1f\x85]")
_FENCE = re.compile(r"^((?:[ \t]*(?:[>*+-]|\d{1,9}[.)]))*[ \t]*)(?:`{3,}(?=[^`\n]*$)|~{3,})", re.MULTILINE)
_LINE_START = re.compile(r"^(?=.)", re.MULTILINE)


def to_markdown(soup: BeautifulSoup) -> str:
    """Markdown of a tree; changes nothing in it."""
    converter = _PostConverter()
    prose = _tidy(str(converter.convert_soup(soup)))
    if converter.code_blocks or _ends_in_code(prose):
        prose = _FENCE.sub(r"\1``", prose)  # somebody's words: they would swallow code and headings
    return _insert_code(prose, converter.code_blocks)


def normalise(text: str) -> str:
    """NFC, with ordinary blanks and line ends, without what cannot be seen."""
    text = text.replace("\u2028", "\n").replace("\u2029", "\n")
    return _INVISIBLE.sub("", unicodedata.normalize("NFC", _ODD_BLANK.sub(" ", text)))


def _marked(mark: str, names: frozenset[str]) -> object:
    """Conversion of an element such as `b`: not twice, not in headings or code, not over blocks or within a word."""

    def convert(self: _PostConverter, el: Tag, text: str, parent_tags: set[str]) -> str:
        inner = text.strip()
        if not inner or "_noformat" in parent_tags or "\n\n" in inner or "\x01" in inner:
            return text
        if parent_tags & names or parent_tags & HEADINGS or _is_within_word(el, text):
            return text
        return f"{_blank(text[0])}{mark}{inner}{mark}{_blank(text[-1])}"

    return convert


class _PostConverter(MarkdownConverter):
    class Options:
        heading_style = ATX
        bullets = "-"
        autolinks = False
        escape_asterisks = False
        escape_underscores = False
        escape_misc = False

    def __init__(self) -> None:
        super().__init__()
        self.code_blocks: list[str] = []
        """In order; each stands in the text as a mark, so that nothing touches its bytes."""
        self._numbers: dict[int, int] = {}
        """Of the items so far, by the identity of their tags: a long list is gone through once."""

    def process_tag(self, node: Tag, parent_tags: set[str] | None = None) -> str:
        """As markdownify does it, without its walk up to the root for every element."""
        around = parent_tags or set()
        within = around | {node.name}
        if node.name in _INLINE_ONLY:
            within.add("_inline")
        if node.name in _VERBATIM:
            within.add("_noformat")
        text, parts, line_ends = "", list[str](), 0
        for child in node.contents:
            if isinstance(child, Tag):
                text = self.process_tag(child, within)
            elif isinstance(child, NavigableString) and not isinstance(child, PreformattedString):
                text = self.process_text(child, within)
            else:
                continue
            if not text:
                continue
            content = text.strip("\n") if "pre" not in within else text
            leading = len(text) - len(text.lstrip("\n")) if content != text else 0
            if leading and line_ends:
                parts[-1] = "\n" * min(2, max(line_ends, leading))
            elif leading:
                parts.append("\n" * leading)
            line_ends = len(text) - leading - len(content) if content else max(line_ends, leading)
            if content:
                parts += [content, "\n" * line_ends]
        joined = "".join(parts)
        if node.name in HEADINGS:
            return self.convert_hn(int(node.name[1]), joined, around)
        if node.name in _CONVERTED:
            return str(getattr(self, f"convert_{node.name}")(node, joined, parent_tags=around))
        return joined

    def process_text(self, el: NavigableString, parent_tags: set[str] | None = None) -> str:
        """Text with its blanks as a browser shows them."""
        if parent_tags and "pre" in parent_tags:
            return str(el)
        text = _BLANKS.sub(" ", _INVISIBLE.sub("", el))  # else a link of a zero-width blank is `[](...)`
        if text[:1] == " " and _is_at_block(el.previous_sibling, el.parent):
            text = text[1:]
        if text[-1:] == " " and _is_at_block(el.next_sibling, el.parent):
            text = text[:-1]
        return text

    convert_b = convert_strong = _marked("**", frozenset({"b", "strong"}))
    convert_em = convert_i = _marked("*", frozenset({"em", "i"}))
    convert_del = convert_s = convert_strike = _marked("~~", frozenset({"del", "s", "strike"}))

    def convert_div(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        text = text.strip()
        if "_inline" in parent_tags:
            return f" {text} "
        return f"\n\n{text}\n\n" if text else ""

    convert_address = convert_article = convert_aside = convert_center = convert_dl = convert_div
    convert_details = convert_fieldset = convert_figcaption = convert_figure = convert_footer = convert_div
    convert_header = convert_hgroup = convert_legend = convert_main = convert_p = convert_section = (
        convert_div
    )
    convert_summary = convert_div

    def convert_hn(self, level: int, text: str, parent_tags: set[str]) -> str:
        """A heading with words in it; a picture alone is a paragraph."""
        text = " ".join(text.split())
        if not text or "_inline" in parent_tags:
            return f" {text} "
        if text.startswith("![") and text.endswith(")") and text.count("](") == 1:
            return f"\n\n{text}\n\n"
        return f"\n\n{'#' * level} {text}\n\n"

    def convert_pre(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        code = el.get_text().strip("\n")
        if not code.strip():
            return ""
        if "_inline" in parent_tags or "a" in parent_tags:
            return f" {_code_span(' '.join(code.split()))} "
        longest = max((len(run) for run in re.findall(r"`{3,}", code)), default=2)
        fence = "`" * (longest + 1)
        self.code_blocks.append(f"{fence}{_language(el)}\n{code}\n{fence}")
        return f"\n\n\x01{len(self.code_blocks) - 1}\x01\n\n"

    def convert_code(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        inner = " ".join(text.split())
        if not inner or "_noformat" in parent_tags:
            return text
        return f"{_blank(text[0])}{_code_span(inner)}{_blank(text[-1])}"

    convert_kbd = convert_samp = convert_code

    def convert_sup(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        return f"^{text}" if re.fullmatch(r"[-−+]?\d+", text) and "_noformat" not in parent_tags else text

    def convert_a(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        inner, href = " ".join(text.split()), el.get("href")
        if not inner or not href or "_noformat" in parent_tags or "\x01" in inner:
            return text
        if "![" not in inner and "`" not in inner:
            inner = inner.replace("[", "(").replace("]", ")")
        return f"{_blank(text[0])}[{inner}]({href}){_blank(text[-1])}"

    def convert_img(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        return f"![{el.get('alt') or ''}]({el.get('src')})"

    def convert_ul(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        text = text.strip("\n")
        return f"\n{text}\n" if "li" in parent_tags else f"\n\n{text}\n\n"

    convert_ol = convert_ul

    def _number(self, item: Tag) -> int:
        """Number of an item in an ordered list."""
        number = _stated_number(item, "value")
        if number is None:
            before = item.previous_sibling
            while before is not None and not (isinstance(before, Tag) and before.name == "li"):
                before = before.previous_sibling
            if before is not None:
                number = self._numbers.get(id(before), 0) + 1
            else:
                start = _stated_number(item.parent, "start")
                number = 1 if start is None else start
        self._numbers[id(item)] = number
        return number

    def convert_li(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        text = text.strip()
        bullet = f"{self._number(el)}. " if el.parent is not None and el.parent.name == "ol" else "- "
        if not text:
            return "\n"
        return bullet + _LINE_START.sub(" " * len(bullet), text)[len(bullet) :] + "\n"

    def convert_td(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        cell = _UNESCAPED_BAR.sub(r"\\|", " ".join(text.split()))
        return f" {cell} |" + " |" * (span_of(el, "colspan") - 1)

    convert_th = convert_td

    def convert_tr(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        return f"|{text}\n" if text.strip() else ""

    def convert_table(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        lines = [line for line in text.split("\n") if line.strip()]
        rows = [line for line in lines if line.startswith("|")]
        around = "\n".join(line for line in lines if not line.startswith("|"))
        if not rows:
            return f"\n\n{around}\n\n"
        widths = [len(_UNESCAPED_BAR.findall(row)) - 1 for row in rows]
        width = max(widths)
        rows = [row + " |" * (width - own) for row, own in zip(rows, widths, strict=True)]
        if not _has_head(el):
            rows.insert(0, "|" + "  |" * width)
        rows.insert(1, "|" + " --- |" * width)
        return f"\n\n{around}\n\n" * bool(around) + "\n\n" + "\n".join(rows) + "\n\n"


_CONVERTED = frozenset(
    name.removeprefix("convert_") for name in dir(_PostConverter) if name.startswith("convert_")
) - {"hn", "soup"}
"""Elements with a form of their own; of the others the text stays."""


def _is_at_block(neighbour: PageElement | None, parent: Tag | None) -> bool:
    tag = parent if neighbour is None else neighbour
    return isinstance(tag, Tag) and tag.name in _BLOCKS


def _has_head(table: Tag) -> bool:
    row = first_below(table, {"tr"})
    if row is None:
        return False
    cells = [cell for cell in row.children if isinstance(cell, Tag)]
    return (row.parent is not None and row.parent.name == "thead") or all(cell.name == "th" for cell in cells)


def _stated_number(tag: Tag | None, attribute: str) -> int | None:
    value = str(tag.get(attribute) or "") if tag is not None else ""
    return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None


def _language(pre: Tag) -> str:
    for tag in (pre, *all_below(pre, {"code"})):
        names = " ".join(str(name) for name in tag.get_attribute_list("class") if name)
        if match := _BRUSH.search(names):
            return match.group(1)
        for name in names.split():
            if match := _LANGUAGE.match(name):
                return match.group(1)
        for attribute in ("data-lang", "data-language", "data-enlighter-language", "lang"):
            if re.fullmatch(r"[\w+#.-]{1,30}", value := str(tag.get(attribute) or "")):
                return value
        if "hljs" in names.split() and (others := [name for name in names.split() if name != "hljs"]):
            return others[0] if re.fullmatch(r"[\w+#.-]+", others[0]) else ""
    return ""


def _code_span(code: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    mark = "`" * (longest + 1)
    return f"{mark} {code} {mark}" if longest else f"{mark}{code}{mark}"


def _blank(edge: str) -> str:
    return " " if edge.isspace() else ""


def _is_within_word(el: Tag, text: str) -> bool:
    return (text[0].isalnum() and _edge(el.previous_sibling, -1).isalnum()) or (
        text[-1].isalnum() and _edge(el.next_sibling, 0).isalnum()
    )


def _edge(neighbour: PageElement | None, place: int) -> str:
    return str(neighbour)[place] if isinstance(neighbour, NavigableString) and neighbour else " "


def _tidy(prose: str) -> str:
    """One blank line between blocks, none at the ends, no blanks at line ends."""
    lines: list[str] = []
    for line in normalise(prose).split("\n"):
        line = line.rstrip()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip()


def _ends_in_code(markdown: str) -> bool:
    """Whether a fence is open at the end."""
    return [*lines_and_code([*markdown.split("\n"), ""])][-1][1]


def _insert_code(prose: str, blocks: list[str]) -> str:
    """Put each block where its mark is, at the margin: indented code would be other code."""
    lines: list[str] = []
    for line in prose.split("\n"):
        match = _CODE_MARK.match(line)
        if match is None or int(match.group(2)) >= len(blocks):
            lines.append(line.replace("\x01", ""))
            continue
        before, number, after = match.groups()
        if not _ONLY_MARKS.fullmatch(before):
            lines.append(before.rstrip())
        lines.append(blocks[int(number)])
        if after.strip():
            lines.append(after.strip())
    return "\n".join(lines)
