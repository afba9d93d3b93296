"""Markdown that somebody wrote, in the form that cleaned posts have: code as it is, the rest without machinery.

Must not know where the Markdown came from; links are absolute before it gets here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter

from finetune_contract.sections import lines_and_code

_CODE_SPAN = re.compile(r"(?<!`)(`{1,8})(?!`)[^\n]+?(?<!`)\1(?!`)")
_MARK = re.compile("\x00(\\d+)\x00")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_MACHINERY = re.compile(
    r"<(script|style|svg|noscript|template)\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE
)
_SHORTCODE = re.compile(r"\{%[^{}\n]*%\}|\{\{[<%][^{}\n]*[>%]\}\}")
"""Calls of Jekyll and Hugo; what stands between an opening and a closing one stays."""
_LINE_END = re.compile("\r\n?|[\u2028\u2029]")
_ODD_BLANK = re.compile("[\x0b\x0c\x1c-\x1e\x85]")
"""Blanks at which Python ends a line, and no reader of JSON lines or Markdown does."""
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad]")


def clean_markdown(markdown: str) -> str:
    """The same text without comments, scripts and shortcodes; of code only the line ends change. Never raises."""
    text = markdown.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")
    text = _ODD_BLANK.sub(" ", _LINE_END.sub("\n", text))
    return outside_code(text, _clean_prose).strip("\n").rstrip()


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Markdown with `change` done to everything but code blocks and code spans. It may hold no NUL."""
    return "".join(
        text if is_code else _outside_spans(text, change) for text, is_code in _by_fences(markdown)
    )


def _outside_spans(text: str, change: Callable[[str], str]) -> str:
    """`change` sees one text, with a mark for each code span."""
    spans: list[str] = []

    def put_aside(span: re.Match[str]) -> str:
        spans.append(span.group())
        return f"\x00{len(spans) - 1}\x00"

    marked = change(_CODE_SPAN.sub(put_aside, text))
    return _MARK.sub(lambda mark: spans[int(mark.group(1))], marked)


def _by_fences(markdown: str) -> Iterator[tuple[str, bool]]:
    """Runs of lines, and whether they are fenced blocks."""
    for is_code, run in groupby(lines_and_code(re.split(r"(?<=\n)", markdown)), itemgetter(1)):
        yield "".join(line for line, _ in run), is_code


def _clean_prose(text: str) -> str:
    text = _SHORTCODE.sub("", _MACHINERY.sub("", _COMMENT.sub("", text)))
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text.replace("\u00a0", " ")))
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text)
