"""Addresses of one web site: which are its pages, how two spellings are one, and which machines may be asked.

Pure, but for `look_up`. Must not know how a page is fetched or read.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urljoin, urlsplit, urlunsplit

from requests.utils import requote_uri

_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAT64 = IPv6Network("64:ff9b::/96")
_TRACKING = re.compile(
    r"^(?:utm_\w+|gclid|fbclid|msclkid|mc_[ce]id|_ga|replytocom|share|phpsessid|jsessionid)$", re.IGNORECASE
)
"""Parameters that name the reader or the way here, not the page."""
_ESCAPE = re.compile("%[0-9a-f]{2}", re.IGNORECASE)
_FILE = re.compile(
    r"\.(?:7z|avif|bmp|bz2|css|csv|docx?|eot|epub|exe|flac|gif|gz|ico|iso|jar|jpe?g|js|json|m4a|mjs|mov|mp3|mp4|odt|ogg"
    r"|otf|pdf|png|pptx?|rar|rss|svg|tar|tgz|tiff?|ttf|txt|wasm|wav|webm|webp|woff2?|xlsx?|xml|zip)$",
    re.IGNORECASE,
)

LookUp = Callable[[str, int], list[str]]
"""(host, port) -> addresses; raises OSError."""


@dataclass(frozen=True)
class Site:
    """Scheme, host and port. On the usual ports http and https are one site, written with the site's scheme."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Site:
        """The site of an absolute address. Raises ValueError when it is none."""
        parts = urlsplit(url)
        scheme, host = parts.scheme.lower(), (parts.hostname or "").rstrip(".")
        if not host.isascii():
            host = host.encode("idna").decode()
        if scheme not in _DEFAULT_PORTS or not host:
            raise ValueError("is no address of a web site")
        return cls(scheme, host, parts.port or _DEFAULT_PORTS[scheme])

    @property
    def root(self) -> str:
        """Address of its `/`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}/"

    def page(self, href: str, base: str = "") -> str:
        """The one spelling of a page's address: absolute, without fragment and tracking. Empty: not on this site."""
        try:
            parts = urlsplit(urljoin(base or self.root, href.strip()))
            theirs = Site.of(urlunsplit(parts))
        except ValueError:
            return ""
        if not self._is_same(theirs) or "@" in parts.netloc:
            return ""
        query = "&".join(one for one in parts.query.split("&") if not _TRACKING.match(one.partition("=")[0]))
        path = parts.path or "/"
        page = requote_uri(self.root.rstrip("/") + path + (f"?{query}" if query else ""))
        return _ESCAPE.sub(lambda escape: escape.group().upper(), page)

    def _is_same(self, other: Site) -> bool:
        mine, theirs = (replace(site, scheme="", port=site._plain_port()) for site in (self, other))
        return mine == theirs and (self.scheme == other.scheme or mine.port == 0)

    def _plain_port(self) -> int:
        return 0 if self.port == _DEFAULT_PORTS[self.scheme] else self.port


def path_of(page: str) -> str:
    """Path and query of a page, as robots.txt and excludePaths name it."""
    parts = urlsplit(page)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def file_ending(page: str) -> str:
    """Ending of an address that is no page, such as `.pdf`; empty for pages."""
    match = _FILE.search(urlsplit(page).path)
    return match.group().lower() if match else ""


def look_up(host: str, port: int) -> list[str]:
    """Addresses of a host, in the order in which this machine would try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def why_not_public(address: str) -> str:
    """What an address is that strangers must not make us ask; empty for a public one."""
    number = ip_address(address.partition("%")[0])
    if isinstance(number, IPv6Address) and (inner := _inner_address(number)) is not None:
        return why_not_public(str(inner))
    if number.is_loopback:
        return "loopback"
    if number.is_link_local:
        return "link-local"
    if number.is_multicast:
        return "multicast"
    if number.is_private:
        return "private"
    if number.is_reserved or number.is_unspecified or not number.is_global:
        return "reserved"
    if isinstance(number, IPv6Address) and number.is_site_local:
        return "private"
    return ""


def _inner_address(number: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to."""
    if number.ipv4_mapped is not None:
        return number.ipv4_mapped
    if number.sixtofour is not None:
        return number.sixtofour
    if number.teredo is not None:
        return number.teredo[1]
    return IPv4Address(int(number) & 0xFFFFFFFF) if number in _NAT64 else None
