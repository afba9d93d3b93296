"""Posts and pages of a WordPress site: proves the credentials, sweeps by id, and joins terms and authors itself.

WordPress answers a wrong password as if nobody had signed in, so it is proven before reading. Sweeps go by id,
because rows with equal dates fall between the pages of any other order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_contract.run_spec import SourceSpec, WordPressSource
from finetune_contract.stage_protocol import wordpress_password_env, wordpress_username_env
from finetune_trainer.dataset.cleaning.html import plain_text
from finetune_trainer.dataset.sources.raw_document import DroppedDocument, Harvest, RawDocument
from finetune_trainer.dataset.sources.wordpress_api import PAGE_SIZE, RouteRefused, WordPressApi
from finetune_trainer.errors import InvalidRun, SourceRejected
from finetune_trainer.run_log import Progress

logger = logging.getLogger(__name__)

MAX_SWEEPS = 3
_FIELDS = "id,type,status,guid,date_gmt,link,title,excerpt,content,author,categories,tags"

Row = dict[str, Any]


@dataclass(frozen=True)
class Category:
    """A category with the names from its root down to itself."""

    path: tuple[str, ...]
    root_names: frozenset[str]
    """Name and slug of the root, lower case."""


@dataclass(frozen=True)
class Sweep:
    """Rows by id; `complete` when their number is what WordPress counts."""

    rows: dict[int, Row]
    complete: bool


def open_wordpress(
    spec: SourceSpec,
    environment: Mapping[str, str],
    credentials_required: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> WordPressReader:
    """A reader for a source of kind WordPress; opens no connection.

    Raises:
        SourceRejected: the spec names credentials, `credentials_required`, and they are not in the environment.
    """
    if spec.wordpress is None:
        raise InvalidRun(f"spec.dataset.sources[{spec.name}].wordpress: is not set")
    place = f"spec.dataset.sources[{spec.name}].wordpress"
    credentials = None
    if spec.wordpress.credentials_secret_ref is not None:
        names = (wordpress_username_env(spec.name), wordpress_password_env(spec.name))
        username, password = (environment.get(name, "").strip() for name in names)
        if username and password:
            credentials = (username, password)
        elif credentials_required or username or password:
            raise SourceRejected(
                f"{place}.credentialsSecretRef: the Secret {spec.wordpress.credentials_secret_ref.name} must have the "
                f"keys username and password, neither empty (they reach the stage as {' and '.join(names)})"
            )
        else:
            logger.info("WordPress is read without signing in: %s and %s are not set", *names)
    return WordPressReader(
        spec.name, spec.wordpress, WordPressApi(spec.wordpress.url, place, credentials, sleep), place
    )


class WordPressReader:
    """One site."""

    def __init__(self, name: str, spec: WordPressSource, api: WordPressApi, place: str) -> None:
        self._name = name
        self._spec = spec
        self._api = api
        self._place = place

    def check(self) -> None:
        """Prove that this is a WordPress with its REST API and, with a Secret, that it takes the credentials."""
        self._api.root()
        if self._api.has_credentials:
            try:
                self._api.get("wp/v2/users/me", {"_fields": "id"})
            except RouteRefused as error:
                reference = self._spec.credentials_secret_ref
                raise SourceRejected(
                    f"{self._place}.credentialsSecretRef: {self._api.site_url} refuses the user name and password of "
                    f"the Secret {reference.name if reference else ''} ({error}); use an application password (profile "
                    "page of the user), and let the web server pass the Authorization header"
                ) from error

    def read(self, progress: Progress) -> Harvest:
        """Every published post and page; the others are dropped with a reason."""
        try:
            return self._read(progress)
        except RouteRefused as error:
            raise SourceRejected(
                f"{self._place}.url: {self._api.site_url} refuses to list its content ({error}); "
                "let the REST API be read, or set credentialsSecretRef to a user who may read"
            ) from error

    def _read(self, progress: Progress) -> Harvest:
        routes = self._routes()
        categories = self._categories()
        self._check_root_categories(categories)
        tags = {int(row["id"]): _plain_name(row) for row in self._terms("tags")}
        rows: dict[int, Row] = {}
        complete = True
        for post_type, route in routes.items():
            sweep = self._sweep(route, post_type, progress)
            rows |= sweep.rows
            complete = complete and sweep.complete
        ordered = [rows[number] for number in sorted(rows)]
        authors = self._authors({int(row.get("author") or 0) for row in ordered} - {0})
        documents: list[RawDocument] = []
        dropped: list[DroppedDocument] = []
        for row in ordered:
            document = self._document(row, categories, tags, authors)
            reason = self._reason_to_drop(row, categories)
            if reason:
                dropped.append(DroppedDocument(self._name, document.post_id, document.url, reason))
            else:
                documents.append(document)
        logger.info(
            "WordPress read: source=%s documents=%d dropped=%d complete=%s",
            self._name, len(documents), len(dropped), complete,
        )  # fmt: skip
        return Harvest(tuple(documents), tuple(dropped), complete)

    def _routes(self) -> dict[str, str]:
        """Route of every content type of the spec."""
        types = self._api.get("wp/v2/types")
        known = {
            name: str(row.get("rest_base") or name) for name, row in types.items() if isinstance(row, dict)
        }
        if unknown := [name for name in self._spec.post_types if name not in known]:
            raise SourceRejected(
                f"{self._place}.postTypes: the site has no {', '.join(unknown)}; it has {', '.join(sorted(known))}"
            )
        return {name: f"wp/v2/{known[name]}" for name in dict.fromkeys(self._spec.post_types)}

    def _terms(self, route: str) -> Iterable[Row]:
        return self._api.get_all(
            f"wp/v2/{route}", {"orderby": "id", "order": "asc", "_fields": "id,name,slug,parent"}
        )

    def _categories(self) -> dict[int, Category]:
        rows = {int(row["id"]): row for row in self._terms("categories")}
        categories: dict[int, Category] = {}
        for number in rows:
            chain: list[Row] = []
            next_number = number
            while next_number in rows and rows[next_number] not in chain:
                chain.append(rows[next_number])
                next_number = int(rows[next_number].get("parent") or 0)
            root = chain[-1]
            categories[number] = Category(
                path=tuple(_plain_name(row) for row in reversed(chain)),
                root_names=frozenset({_plain_name(root).lower(), str(root.get("slug", "")).lower()}),
            )
        return categories

    def _check_root_categories(self, categories: Mapping[int, Category]) -> None:
        roots = {
            category.path[0]: category.root_names
            for category in categories.values()
            if len(category.path) == 1
        }
        known = frozenset[str]().union(*roots.values())
        if unknown := [name for name in self._spec.root_categories if name.lower() not in known]:
            raise SourceRejected(
                f"{self._place}.rootCategories: the site has no root category {', '.join(unknown)}; "
                f"it has {', '.join(sorted(roots))}"
            )

    def _authors(self, numbers: set[int]) -> dict[int, str]:
        """Display names; many sites hide them, which is no reason to fail."""
        names: dict[int, str] = {}
        wanted = sorted(numbers)
        for start in range(0, len(wanted), PAGE_SIZE):
            batch = ",".join(str(number) for number in wanted[start : start + PAGE_SIZE])
            try:
                for row in self._api.get_all("wp/v2/users", {"include": batch, "_fields": "id,name"}):
                    names[int(row["id"])] = _plain_name(row)
            except RouteRefused as error:
                logger.warning("authors stay unnamed: source=%s fact=%s", self._name, error)
                return names
        return names

    def _sweep(self, route: str, post_type: str, progress: Progress) -> Sweep:
        """All rows of a type. Swept again while WordPress's count and ours differ: a post may have moved meanwhile."""
        before: Sweep | None = None
        for _ in range(MAX_SWEEPS):
            sweep = self._sweep_once(route, post_type, progress)
            if sweep.complete:
                return sweep
            if before is not None and before.rows.keys() == sweep.rows.keys():
                break  # twice the same: the site hides some of what it counts
            before = sweep
        logger.warning(
            "WordPress shows fewer than it counts: source=%s type=%s shown=%d",
            self._name,
            post_type,
            len(sweep.rows),
        )
        return sweep

    def _sweep_once(self, route: str, post_type: str, progress: Progress) -> Sweep:
        rows: dict[int, Row] = {}
        totals: list[int] = []
        number, total_pages = 1, 1
        while number <= total_pages:
            try:
                page = self._api.get_page(route, _page_parameters(number))
            except RouteRefused as error:
                if number > 1 and error.code == "rest_post_invalid_page_number":
                    return Sweep(rows, complete=False)  # posts have gone since the last page
                raise
            total_pages = page.total_pages
            totals.append(page.total)
            rows |= {int(row["id"]): row for row in page.rows}
            progress(len(rows), page.total, message=f"reading {self._name}: {post_type}")
            number += 1
        return Sweep(rows, complete=len(rows) == totals[0] == totals[-1])

    def _reason_to_drop(self, row: Row, categories: Mapping[int, Category]) -> str:
        if row.get("status", "publish") != "publish":
            return f"status is {row['status']}"
        content = row.get("content")
        if isinstance(content, dict) and content.get("protected"):
            return "protected by a password"
        wanted = {name.lower() for name in self._spec.root_categories}
        if wanted and "categories" in row:
            mine = [categories[number] for number in row["categories"] if number in categories]
            if not any(category.root_names & wanted for category in mine):
                return "in none of the root categories of the spec"
        return ""

    def _document(
        self,
        row: Row,
        categories: Mapping[int, Category],
        tags: Mapping[int, str],
        authors: Mapping[int, str],
    ) -> RawDocument:
        paths = sorted(
            categories[number].path for number in row.get("categories") or [] if number in categories
        )
        url = str(row.get("link", ""))
        date = str(row.get("date_gmt") or "1970-01-01T00:00:00")
        return RawDocument(
            source=self._name,
            post_id=_rendered(row, "guid") or url,
            title_html=_rendered(row, "title"),
            excerpt_html=_rendered(row, "excerpt"),
            content_html=_rendered(row, "content"),
            date=date.removesuffix("Z") + "Z",
            author=authors.get(int(row.get("author") or 0), ""),
            categories=_unique(name for path in paths for name in path),
            tags=tuple(sorted(tags[number] for number in row.get("tags") or [] if number in tags)),
            url=url,
        )


def _page_parameters(number: int) -> dict[str, str | int]:
    return {
        "per_page": PAGE_SIZE,
        "page": number,
        "orderby": "id",
        "order": "asc",
        "status": "publish",
        "_fields": _FIELDS,
    }


def _rendered(row: Row, field: str) -> str:
    value = row.get(field)
    return str(value.get("rendered", "")) if isinstance(value, dict) else ""


def _plain_name(row: Row) -> str:
    return plain_text(str(row.get("name", "")))


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
