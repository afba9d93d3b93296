"""The names beside WordPress's posts: content types, category trees, tags and authors, read whole in each run.

Posts hold numbers only, so that a renamed category or author reaches every post although none of them has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from finetune_trainer.dataset.cleaning.html import plain_text
from finetune_trainer.dataset.sources.wordpress_api import Row, WordPressApi
from finetune_trainer.dataset.sources.wordpress_http import RouteRefused
from finetune_trainer.errors import SourceRejected, SourceUnavailable

logger = logging.getLogger(__name__)

CATEGORIES = "categories"
"""The field of a post with its categories."""
_EVERY_SITE_HAS = {
    "category": ("wp/v2/categories", CATEGORIES, True),
    "post_tag": ("wp/v2/tags", "tags", False),
}


@dataclass(frozen=True)
class ContentType:
    """One kind of posts."""

    name: str
    route: str
    taxonomies: tuple[str, ...]
    """Names; some of them may be closed to the API."""


@dataclass(frozen=True)
class Taxonomy:
    """A set of terms: categories, tags, or what a plugin adds."""

    field: str
    """Where a post holds the numbers of its terms."""
    is_tree: bool
    terms: Mapping[int, Term]


@dataclass(frozen=True)
class Term:
    """A category or tag with the names from its root down to itself."""

    path: tuple[str, ...]
    root_names: frozenset[str]
    """Name and slug of the root, lower case."""


def read_types(api: WordPressApi, wanted: Iterable[str]) -> list[ContentType]:
    """The content types of the spec.

    Raises:
        SourceRejected: the site has no such type.
    """
    rows = api.get("wp/v2/types")
    known = (
        {name: row for name, row in rows.items() if isinstance(row, dict)} if isinstance(rows, dict) else {}
    )
    names = list(dict.fromkeys(wanted))
    if unknown := [name for name in names if name not in known]:
        raise SourceRejected(
            f"{api.http.place}.postTypes: the site has no {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    return [
        ContentType(name, _route(name, known[name]), tuple(known[name].get("taxonomies") or ()))
        for name in names
    ]


def read_taxonomies(api: WordPressApi, types: Iterable[ContentType]) -> list[Taxonomy]:
    """All terms of all taxonomies that these types use and the site shows, sorted by name of the taxonomy."""
    wanted = sorted({name for one in types for name in one.taxonomies})
    found = dict(_EVERY_SITE_HAS)
    if not set(wanted) <= found.keys():
        rows = api.get("wp/v2/taxonomies")
        for name, row in rows.items() if isinstance(rows, dict) else ():
            field = str(row.get("rest_base") or name)
            found.setdefault(name, (_route(name, row), field, bool(row.get("hierarchical"))))
    return [_read_taxonomy(api, *found[name]) for name in wanted if name in found]


def _read_taxonomy(api: WordPressApi, route: str, field: str, is_tree: bool) -> Taxonomy:
    parameters = {"orderby": "id", "order": "asc", "_fields": "id,name,slug,parent"}
    rows = {int(row["id"]): row for row in api.rows(route, parameters)}
    terms: dict[int, Term] = {}
    for number in rows:
        chain: list[Row] = []
        next_number = number
        while next_number in rows and rows[next_number] not in chain:
            chain.append(rows[next_number])
            next_number = int(rows[next_number].get("parent") or 0)
        root = chain[-1]
        terms[number] = Term(
            path=tuple(_plain_name(row) for row in reversed(chain)),
            root_names=frozenset({_plain_name(root).lower(), str(root.get("slug", "")).lower()}),
        )
    return Taxonomy(field, is_tree, terms)


def check_root_categories(api: WordPressApi, wanted: Iterable[str], taxonomies: Iterable[Taxonomy]) -> None:
    """Raises SourceRejected when the spec names a root category that the site does not have."""
    categories = next((one.terms for one in taxonomies if one.field == CATEGORIES), {})
    roots = {term.path[0]: term.root_names for term in categories.values() if len(term.path) == 1}
    known = frozenset[str]().union(*roots.values())
    if unknown := [name for name in wanted if name.lower() not in known]:
        raise SourceRejected(
            f"{api.http.place}.rootCategories: the site has no root category {', '.join(unknown)}; "
            f"it has {', '.join(sorted(roots))}"
        )


def read_authors(api: WordPressApi, examples: Mapping[int, tuple[str, int]]) -> dict[int, str]:
    """Names by number of the user; `examples` has for each author the route and number of one post.

    Sites hide their users for good reasons, from visitors or from everybody: then a post's own author link is asked,
    and who stays hidden has no name.
    """
    names: dict[int, str] = {}
    try:
        for _, rows in api.rows_by_id("wp/v2/users", sorted(examples), {"_fields": "id,name"}):
            names |= {int(row["id"]): _plain_name(row) for row in rows}
    except (RouteRefused, SourceRejected, SourceUnavailable) as error:
        logger.info("the site hides its users, so authors are read from their posts: fact=%s", error)
    hidden = {number: example for number, example in examples.items() if not names.get(number)}
    for route in sorted({route for route, _ in hidden.values()}):
        posts = sorted(post for post_route, post in hidden.values() if post_route == route)
        parameters = {"_embed": "author", "_fields": "id,author,_links,_embedded"}
        try:
            for _, rows in api.rows_by_id(route, posts, parameters):
                names |= {int(row.get("author") or 0): _embedded_name(row) for row in rows}
        except RouteRefused as error:
            logger.info("authors stay unnamed: route=%s fact=%s", route, error)
    return names


def _embedded_name(row: Row) -> str:
    embedded = row.get("_embedded")
    authors = embedded.get("author") if isinstance(embedded, dict) else None
    author = authors[0] if isinstance(authors, list) and authors and isinstance(authors[0], dict) else {}
    return _plain_name(author) or str(author.get("slug", ""))


def _route(name: str, row: Row) -> str:
    return f"{row.get('rest_namespace') or 'wp/v2'}/{row.get('rest_base') or name}"


def _plain_name(row: Row) -> str:
    return plain_text(str(row.get("name", "")))
