"""Where a site's REST API is: its home page says so, or one of the three usual addresses answers.

Requests go to the origin that the spec gives, whatever name the site calls itself by.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from finetune_trainer.dataset.sources.wordpress_http import Answer, WordPressHttp
from finetune_trainer.errors import SourceRejected

logger = logging.getLogger(__name__)

USERS_ME = "wp/v2/users/me"
"""The one route that tells a wrong password from none."""


@dataclass(frozen=True)
class ApiRoot:
    """Address of the REST API, in the pretty form `.../wp-json/` or the plain form `.../?rest_route=/`."""

    address: str

    def url(self, route: str, parameters: Mapping[str, str | int] | None = None) -> str:
        """Address of a route such as `wp/v2/posts`."""
        parts = urlsplit(self.address)
        query = dict(parse_qsl(parts.query))
        path = parts.path
        if "rest_route" in query:
            query["rest_route"] = "/" + route
        else:
            path = path.rstrip("/") + "/" + route
        query |= {name: str(value) for name, value in (parameters or {}).items()}
        return urlunsplit((parts.scheme, parts.netloc, path, urlencode(query, safe="/,"), ""))


def find_root(http: WordPressHttp) -> tuple[ApiRoot, Answer]:
    """The API and its first answer: who we are when we sign in, else the list of its parts.

    Raises:
        SourceRejected: nothing at this address is a WordPress with its REST API.
    """
    route, parameters = (
        (USERS_ME, {"_fields": "id"}) if http.sign_in.site else ("", {"_fields": "namespaces"})
    )
    found: list[str] = []
    moved = ""
    for root in _candidates(http):
        url = root.url(route, parameters)
        answer = http.get(url)
        if 300 <= answer.status < 400:
            moved = _where_the_site_is(http.site_url, url, answer) or moved
        if _is_api(answer):
            logger.info("WordPress API found: root=%s", root.address)
            return root, answer
        found.append(f"{_shown(root)}: {answer}")
    remedy = (
        f"the site redirects to {moved}: write that address"
        if moved
        else "check the address, and that no plugin closes the REST API"
    )
    raise SourceRejected(
        f"{http.place}.url: {http.site_url} has no WordPress REST API ({'; '.join(found)}); {remedy}"
    )


def _candidates(http: WordPressHttp) -> Iterator[ApiRoot]:
    given = urlsplit(http.site_url)
    usual = [
        http.site_url + "wp-json/",
        http.site_url + "index.php/wp-json/",
        http.site_url + "?rest_route=/",
    ]
    home = http.get(http.site_url, to_wordpress=False)
    if home.link_to_api:
        own = urlsplit(urljoin(http.site_url, home.link_to_api))
        address = urlunsplit((given.scheme, given.netloc, own.path, own.query, ""))
        yield ApiRoot(address)
        usual = [other for other in usual if other != address]
    yield from map(ApiRoot, usual)


def _is_api(answer: Answer) -> bool:
    """An error of WordPress counts: the API is there, and the caller says what it refuses."""
    if answer.code is not None:
        return 400 <= answer.status < 500
    body = answer.body
    return (
        answer.status == 200
        and isinstance(body, dict)
        and ("id" in body or "wp/v2" in body.get("namespaces", []))
    )


def _where_the_site_is(site_url: str, url: str, answer: Answer) -> str:
    """The address that it sends us to, when the same path is there."""
    target = urljoin(url, answer.headers.get("Location", ""))
    if urlsplit(target).path != urlsplit(url).path:
        return ""
    return urlunsplit((*urlsplit(target)[:2], urlsplit(site_url).path, "", ""))


def _shown(root: ApiRoot) -> str:
    parts = urlsplit(root.address)
    return parts.path + (f"?{parts.query}" if parts.query else "")
