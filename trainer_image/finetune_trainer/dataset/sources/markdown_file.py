"""One Markdown file: its front matter, its title, its address, and links that lead somewhere outside its folder.

Pure: text in, values out. Must not know where files lie.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import yaml

from finetune_trainer.dataset.cleaning.markdown import outside_code
from finetune_trainer.dataset.sources.dates import UNDATED, as_utc

MAX_FRONT_MATTER_BYTES = 64 << 10
_DATED_NAME = re.compile(r"^(\d{4}-\d{2}-\d{2})-(.+)$")
_INDEX = {"index", "_index", "readme"}
_HEADING = re.compile(r"^#[ \t]+(.+?)(?:[ \t]+#+)?[ \t]*$|^([^\n#>\s-][^\n]*)\n=+[ \t]*$", re.MULTILINE)
_HEADING_ID = re.compile(r"\s*\{#[\w-]+\}$")
_INLINE_LINK = re.compile(
    r"(\]\(\s*)(<[^<>\n]*>|[^\s()<>]*(?:\([^\s()]*\)[^\s()]*)*)((?:\s+(?:\"[^\"\n]*\"|'[^'\n]*'))?\s*\))"
)
_DEFINITION = re.compile(r"^( {0,3}\[[^\]\n]+\]:[ \t]*)(\S+)", re.MULTILINE)
_HTML_LINK = re.compile(r"(<[a-z][^<>]*?\b(?:href|src)\s*=\s*)(\"[^\"<>]*\"|'[^'<>]*')", re.IGNORECASE)


class UnreadableFile(Exception):
    """A file that is no document, and why."""


@dataclass(frozen=True)
class MarkdownFile:
    """What is read off a file; texts are plain, the date is RFC 3339 in UTC."""

    path: str
    """Inside the folder, with slashes."""
    body: str
    title: str
    excerpt: str
    date: str
    author: str
    categories: tuple[str, ...]
    tags: tuple[str, ...]
    url: str
    hidden: str
    """Why its writer does not show it; empty when it is published."""


def parse_file(path: str, content: bytes, base_url: str, now: str) -> MarkdownFile:
    """A file of a folder that is published at `base_url`; `now` tells what is still to come.

    Raises:
        UnreadableFile: not UTF-8, or its front matter is broken; with the line.
    """
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableFile(f"{path}, line {line}: is not UTF-8; save it so") from error
    front, body, first_line = _split(path, text)
    name = _DATED_NAME.match(PurePosixPath(path).stem)
    written = next(
        (front[key] for key in ("date", "published", "publishdate", "pubdate") if _is_date(front.get(key))),
        None,
    )
    moment = as_utc(written) if written is not None else (as_utc(name.group(1)) if name else "") or UNDATED
    if not moment:
        raise UnreadableFile(
            f"{path}, line {first_line}: date {str(written)[:40]!r} is no date; write it as 2025-01-31"
        )
    title, body = _title(front, body, path)
    return MarkdownFile(
        path=path,
        body=body,
        title=title,
        excerpt=_text(front, "excerpt", "description", "summary"),
        date=moment,
        author=", ".join(_names(front, "author", "authors")),
        categories=_names(front, "categories", "category"),
        tags=tuple(sorted(_names(front, "tags", "tag"))),
        url=_url(front, path, base_url),
        hidden=_hidden(front, moment, now),
    )


def with_absolute_links(file: MarkdownFile, base_url: str, published: Mapping[str, str]) -> MarkdownFile:
    """The file with links that work from anywhere; `published` gives the addresses of the folder's other files."""
    here = PurePosixPath(file.path).parent

    def address(target: str) -> str:
        bracketed = target.startswith("<") and target.endswith(">")
        href = target[1:-1] if bracketed else target
        parts = urlsplit(href)
        if parts.scheme or parts.netloc or not href:
            return target
        if not parts.path:
            return f"{file.url}#{parts.fragment}"
        if parts.path.startswith("/"):
            return urljoin(base_url, href)
        inside = _inside(here, unquote(parts.path))
        end = (f"?{parts.query}" if parts.query else "") + (f"#{parts.fragment}" if parts.fragment else "")
        return (published.get(inside) or urljoin(_folder(base_url), quote(inside))) + end

    def change(prose: str) -> str:
        prose = _INLINE_LINK.sub(
            lambda link: link.group(1) + _safely(address, link.group(2)) + link.group(3), prose
        )
        prose = _DEFINITION.sub(lambda link: link.group(1) + _safely(address, link.group(2)), prose)
        return _HTML_LINK.sub(lambda link: f'{link.group(1)}"{_safely(address, link.group(2)[1:-1])}"', prose)

    return replace(file, body=outside_code(file.body, change))


def _safely(address: Callable[[str], str], target: str) -> str:
    try:
        return address(target)
    except ValueError:  # no address, such as `http://[`
        return target


def _inside(here: PurePosixPath, path: str) -> str:
    """Path inside the folder; `..` above it stays in it, as in a browser."""
    parts: list[str] = []
    for part in (here / path).parts:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts) + ("/" if path.endswith("/") else "")


def _folder(url: str) -> str:
    return url if url.endswith("/") else url + "/"


def _split(path: str, text: str) -> tuple[dict[str, Any], str, int]:
    """Front matter (keys in lower case), the rest, and the line that the front matter begins on."""
    match = re.match(r"(---|\+\+\+)[ \t]*\n", text)
    if match is None:
        return {}, text, 1
    mark, start = match.group(1), match.end()
    end = re.compile(rf"^{re.escape(mark)}[ \t]*(?:\n|\Z)", re.MULTILINE).search(text, start)
    if end is None:
        if mark == "---" and not re.match(r"[\w-]+[ \t]*:", text[start:]):
            return {}, text, 1  # a rule at the top, not front matter
        raise UnreadableFile(f"{path}, line 1: the front matter is not closed; end it with {mark}")
    front = text[start : end.start()]
    if len(front.encode()) > MAX_FRONT_MATTER_BYTES:
        raise UnreadableFile(
            f"{path}, line 2: the front matter is over {MAX_FRONT_MATTER_BYTES >> 10} KiB; shorten it"
        )
    found = _toml(path, front) if mark == "+++" else _yaml(path, front)
    if found is None:
        found = {}
    if not isinstance(found, dict):
        raise UnreadableFile(f"{path}, line 2: the front matter has no keys; write `title: ...`")
    return {str(key).lower(): value for key, value in found.items()}, text[end.end() :], 2


def _yaml(path: str, front: str) -> Any:
    try:
        return yaml.safe_load(front)
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark.line if error.problem_mark else 0) + 2
        raise UnreadableFile(
            f"{path}, line {line}: the front matter is no YAML ({error.problem}); put the value in quotes"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnreadableFile(f"{path}, line 2: the front matter is no YAML; correct it") from error


def _toml(path: str, front: str) -> Any:
    try:
        return tomllib.loads(front)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        at = re.search(r"line (\d+)", str(error))
        line = int(at.group(1)) + 1 if at else front.count("\n") + 1  # without a line: at its end
        raise UnreadableFile(f"{path}, line {line}: the front matter is no TOML; correct it") from error


def _is_date(value: Any) -> bool:
    """Dates and texts; `published: true` is an answer, not a date."""
    return isinstance(value, date) or (isinstance(value, str) and bool(value.strip()))


def _title(front: Mapping[str, Any], body: str, path: str) -> tuple[str, str]:
    """The title, and the body without a first heading that says it."""
    title = _text(front, "title")
    heading: list[re.Match[str]] = []

    def find(prose: str) -> str:
        if not heading and (match := _HEADING.search(prose)):
            heading.append(match)
            said = _plain(match.group(1) or match.group(2))
            first = not body[: body.find(match.group())].strip()
            if first and (not title or said == title):
                return prose[: match.start()] + prose[match.end() :]
        return prose

    body = outside_code(body, find).strip("\n")
    if not title and heading:
        title = _plain(heading[0].group(1) or heading[0].group(2))
    return title or _words(path), body


def _plain(heading: str) -> str:
    """Words of a heading, without links, emphasis and its id."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", _HEADING_ID.sub("", heading))
    return " ".join(re.sub(r"(\*\*|__|\*|`)(?=\S)(.+?)(?<=\S)\1", r"\2", text).split())


def _words(path: str) -> str:
    """A title out of a file's name."""
    pure = PurePosixPath(path)
    stem = pure.parent.name if pure.stem.lower() in _INDEX and pure.parent.name else pure.stem
    dated = _DATED_NAME.match(stem)
    words = re.sub(r"[-_]+", " ", dated.group(2) if dated else stem).strip()
    return words[:1].upper() + words[1:]


def _url(front: Mapping[str, Any], path: str, base_url: str) -> str:
    base = _folder(base_url)
    given = _text(front, "url", "permalink", "canonical_url")
    if given and "/:" not in given:  # `/:year/:title/` is a rule of Jekyll's, no address
        return quote(urljoin(base, given), safe="/:?#[]@!$&'()*+,;=%~")
    pure = PurePosixPath(path)
    dated = _DATED_NAME.match(pure.stem)
    name = _text(front, "slug") or (
        "" if pure.stem.lower() in _INDEX else dated.group(2) if dated else pure.stem
    )
    folders = [part for part in pure.parent.parts if part != "_posts"]
    return urljoin(base, "".join(f"{quote(part.strip('/'))}/" for part in [*folders, name] if part))


def _hidden(front: Mapping[str, Any], moment: str, now: str) -> str:
    if front.get("draft") is True:
        return "is a draft"
    if front.get("published") is False or front.get("unpublished") is True:
        return "is unpublished"
    return f"its date {moment} is still to come" if moment > now else ""


def _text(front: Mapping[str, Any], *keys: str) -> str:
    for key in keys:
        value = front.get(key)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return " ".join(str(value).split())
    return ""


def _names(front: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    """Names from a list, from one text with commas, or from objects with a name."""
    found: list[str] = []
    for key in keys:
        value = front.get(key)
        for one in value if isinstance(value, list) else [value]:
            name = one.get("name") if isinstance(one, dict) else one
            if isinstance(name, str | int | float) and not isinstance(name, bool):
                found += str(name).split(",") if one is value else [str(name)]
    return tuple(dict.fromkeys(name for raw in found if (name := " ".join(raw.split()))))
