"""What a site allows and lists: robots.txt by RFC 9309, and sitemaps.

The standard library's parser knows no `*` and `$` and takes the first rule that fits; sites rely on wildcards and on
the longest rule. Pure: text in, rules and addresses out.
"""

from __future__ import annotations

import gzip
import html
import re
import zlib
from dataclasses import dataclass
from urllib.parse import quote, unquote

_LOC = re.compile(r"<loc\b[^<>]*>\s*(?:<!\[CDATA\[)?\s*([^<>\]\s]{1,2048})", re.IGNORECASE)
"""Not an XML parser: it reads broken sitemaps too, expands no entities, and takes no memory."""
MAX_SITEMAP_BYTES = 50 << 20
"""More is not allowed in a sitemap."""


@dataclass(frozen=True)
class Rule:
    """One Allow or Disallow."""

    allows: bool
    path: str

    def fits(self, path: str) -> bool:
        """Whether the rule is about this path."""
        ends = self.path.endswith("$")
        parts = self.path.removesuffix("$").split("*")
        if not path.startswith(parts[0]):
            return False
        position = len(parts[0])
        for part in parts[1:]:
            found = path.find(part, position)
            if found < 0:
                return False
            position = found + len(part)
        if not ends:
            return True
        return path.endswith(parts[-1]) if len(parts) > 1 else position == len(path)


@dataclass(frozen=True)
class Robots:
    """The rules of a robots.txt that are for us."""

    rules: tuple[Rule, ...] = ()
    crawl_delay_seconds: float = 0.0
    sitemaps: tuple[str, ...] = ()

    def allows(self, path: str) -> bool:
        """Whether a path (with its query) may be read: the longest rule wins, Allow before Disallow."""
        path = _spelled_alike(path)
        fitting = [rule for rule in self.rules if rule.fits(path)]
        return max(fitting, key=lambda rule: (len(rule.path), rule.allows)).allows if fitting else True


def parse_robots(text: str, agent: str) -> Robots:
    """Rules of the groups that name `agent`, else of those for `*`."""
    groups: dict[str, list[Rule]] = {}
    delays: dict[str, float] = {}
    sitemaps: list[str] = []
    agents: list[str] = []
    naming = False
    for line in text.removeprefix("\ufeff").splitlines():
        name, _, value = line.partition("#")[0].partition(":")
        name, value = name.strip().lower(), value.strip()
        if name == "sitemap":
            sitemaps.append(line.partition(":")[2].strip())  # its address may hold a `#`
        elif name == "user-agent":
            agents = [*(agents if naming else []), value.lower()]
            groups.setdefault(value.lower(), [])
            naming = True
        elif name in {"allow", "disallow"}:
            naming = False
            if value:
                for one in agents:
                    groups[one].append(Rule(name == "allow", _spelled_alike(value)))
        elif name == "crawl-delay":
            naming = False
            delays |= dict.fromkeys(agents, _seconds(value))
    mine = agent.lower() if agent.lower() in groups else "*"
    return Robots(tuple(groups.get(mine, ())), delays.get(mine, 0.0), tuple(dict.fromkeys(sitemaps)))


@dataclass(frozen=True)
class Sitemap:
    """Addresses as they are written in a sitemap, or in an index of sitemaps."""

    pages: tuple[str, ...] = ()
    sitemaps: tuple[str, ...] = ()


def parse_sitemap(body: bytes) -> Sitemap:
    """XML, an index, a text with one address a line, or any of them gzipped; what cannot be read is empty."""
    text = _unzipped(body).decode("utf-8", "replace")
    if "<" not in text:
        lines = (line.strip() for line in text.splitlines())
        return Sitemap(pages=tuple(line for line in lines if line.startswith(("http://", "https://"))))
    found = tuple(dict.fromkeys(html.unescape(match.group(1)) for match in _LOC.finditer(text)))
    return Sitemap(sitemaps=found) if "<sitemapindex" in text else Sitemap(pages=found)


def _unzipped(body: bytes) -> bytes:
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        return zlib.decompressobj(31).decompress(body, MAX_SITEMAP_BYTES)
    except (zlib.error, gzip.BadGzipFile):
        return b""


def _spelled_alike(path: str) -> str:
    """One spelling of percent signs, on which rule and address can be compared."""
    return quote(unquote(path), safe="/*$?=&:;,@!'()+~[]%")


def _seconds(value: str) -> float:
    try:
        return max(0.0, float(value))
    except ValueError:
        return 0.0
