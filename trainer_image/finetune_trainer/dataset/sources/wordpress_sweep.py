"""Which posts a WordPress has: all numbers of a content type, by id, without their texts.

By id, because rows with equal dates fall between the pages of any other order. What can change without a post's
date of modification (its address, its terms, its author) is read here, each time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from finetune_contract.run_spec import PostStatus
from finetune_trainer.dataset.sources.wordpress_api import Row, WordPressApi, rendered
from finetune_trainer.dataset.sources.wordpress_http import RouteRefused
from finetune_trainer.dataset.sources.wordpress_terms import ContentType
from finetune_trainer.errors import SourceRejected
from finetune_trainer.run_log import Progress

logger = logging.getLogger(__name__)

MAX_SWEEPS = 3
_FIELDS = "id,type,status,modified_gmt,guid,link,author"
_STATUS_IS_REFUSED = {"rest_invalid_param", "rest_forbidden_status"}


@dataclass(frozen=True, slots=True)
class Listed:
    """A post in the list."""

    number: int
    route: str
    status: str
    modified: str
    """GMT, to the second."""
    guid: str
    """The address that the post was made under; it stays when the post moves."""
    link: str
    author: int
    terms: dict[str, tuple[int, ...]]
    """Numbers by field; a content type without categories has no such field."""


@dataclass(frozen=True)
class Sweep:
    """Posts by number; `complete` when there are as many as WordPress counts."""

    posts: dict[int, Listed]
    complete: bool


class Sweeper:
    """Lists the posts of one site."""

    def __init__(
        self, api: WordPressApi, name: str, statuses: Iterable[PostStatus], term_fields: Iterable[str]
    ) -> None:
        self._api = api
        self._name = name
        self._statuses = ",".join(status.value for status in statuses)
        self._term_fields = tuple(term_fields)

    def sweep(self, content_type: ContentType, progress: Progress) -> Sweep:
        """All posts of a type. Swept again while WordPress's count and ours differ: one may have moved meanwhile."""
        before: Sweep | None = None
        for _ in range(MAX_SWEEPS):
            sweep = self._sweep_once(content_type, progress)
            if sweep.complete:
                return sweep
            if before is not None and before.posts.keys() == sweep.posts.keys():
                break  # twice the same: the site hides some of what it counts
            before = sweep
        logger.warning(
            "WordPress shows fewer than it counts, so nothing is taken for deleted: source=%s type=%s shown=%d",
            self._name, content_type.name, len(sweep.posts),
        )  # fmt: skip
        return sweep

    def _sweep_once(self, content_type: ContentType, progress: Progress) -> Sweep:
        posts: dict[int, Listed] = {}
        totals: set[int] = set()
        parameters = {
            "orderby": "id",
            "order": "asc",
            "status": self._statuses,
            "_fields": ",".join([_FIELDS, *self._term_fields]),
        }
        try:
            for page in self._api.pages(content_type.route, parameters):
                totals.add(page.total)
                posts |= {int(row["id"]): self._listed(row, content_type.route) for row in page.rows}
                progress(len(posts), page.total, message=f"listing {self._name}: {content_type.name}")
        except RouteRefused as error:
            if error.code == "rest_post_invalid_page_number" and totals:
                return Sweep(posts, complete=False)  # posts have gone since the last page
            self._check_statuses(error)
            raise
        return Sweep(posts, complete=totals == {len(posts)})

    def _check_statuses(self, error: RouteRefused) -> None:
        if self._statuses != PostStatus.PUBLISH.value and error.code in _STATUS_IS_REFUSED:
            raise SourceRejected(
                f"{self._api.http.place}.statuses: {self._api.http.site_url} does not show this user posts that are "
                f"{self._statuses} ({error}); sign in as an editor, or leave publish alone"
            ) from error

    def _listed(self, row: Row, route: str) -> Listed:
        return Listed(
            number=int(row["id"]),
            route=route,
            status=str(row.get("status", "publish")),
            modified=str(row.get("modified_gmt") or ""),
            guid=rendered(row, "guid"),
            link=str(row.get("link", "")),
            author=int(row.get("author") or 0),
            terms={field: tuple(row[field] or ()) for field in self._term_fields if field in row},
        )
