"""Posts and pages of a WordPress site: proves the credentials, lists all posts, and fetches the texts that changed.

WordPress answers a wrong password as if nobody had signed in, so it is proven before anything is read.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from finetune_contract.run_spec import SourceSpec, WordPressSource
from finetune_trainer.dataset.on_disk import ReadOnDemand
from finetune_trainer.dataset.sources import wordpress_bodies
from finetune_trainer.dataset.sources.dates import UNDATED, as_utc
from finetune_trainer.dataset.sources.harvest_memory import HarvestMemory
from finetune_trainer.dataset.sources.raw_document import DroppedDocument, Harvest, RawDocument
from finetune_trainer.dataset.sources.wordpress_api import WordPressApi
from finetune_trainer.dataset.sources.wordpress_bodies import Body, BodyFile, NextTime
from finetune_trainer.dataset.sources.wordpress_http import RouteRefused, Timing, WordPressHttp
from finetune_trainer.dataset.sources.wordpress_sign_in import read_sign_in
from finetune_trainer.dataset.sources.wordpress_sweep import Listed, Sweeper
from finetune_trainer.dataset.sources.wordpress_terms import (
    CATEGORIES,
    Taxonomy,
    check_root_categories,
    read_authors,
    read_taxonomies,
    read_types,
)
from finetune_trainer.errors import InvalidRun, SourceRejected, TrainerError
from finetune_trainer.run_log import Progress

logger = logging.getLogger(__name__)

NOT_SELECTED = "in none of the root categories of the spec"
PROTECTED = "protected by a password"
GONE = "gone while the site was read"

Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


def open_wordpress(
    spec: SourceSpec,
    environment: Mapping[str, str],
    credentials_required: bool,
    timing: Timing | None = None,
    clock: Clock = _now,
) -> WordPressReader:
    """A reader for a source of kind WordPress; opens no connection.

    Raises:
        SourceRejected: the spec names credentials, `credentials_required`, and they are not in the environment.
    """
    if spec.wordpress is None:
        raise InvalidRun(f"spec.dataset.sources[{spec.name}].wordpress: is not set")
    place = f"spec.dataset.sources[{spec.name}].wordpress"
    url = spec.wordpress.url
    sign_in = read_sign_in(spec.name, spec.wordpress, environment, place, credentials_required)
    http = WordPressHttp(url if url.endswith("/") else url + "/", place, sign_in, timing or Timing())
    return WordPressReader(spec.name, spec.wordpress, WordPressApi(http), place, clock)


class WordPressReader:
    """One site."""

    def __init__(
        self, name: str, spec: WordPressSource, api: WordPressApi, place: str, clock: Clock = _now
    ) -> None:
        self._name = name
        self._spec = spec
        self._api = api
        self._place = place
        self._clock = clock
        self._memory = HarvestMemory(Path(tempfile.gettempdir()))

    @property
    def _site_url(self) -> str:
        return self._api.http.site_url

    def remember_in(self, memory: HarvestMemory) -> None:
        """Fetch from now on only what has changed since the read that this memory holds."""
        self._memory = memory

    def check(self) -> None:
        """Prove that this is a WordPress with its REST API and, with a Secret, that it takes the credentials."""
        try:
            self._api.sign_in()
        except RouteRefused as error:
            raise self._refused_sign_in(error) from error

    def _refused_sign_in(self, error: RouteRefused) -> SourceRejected:
        credentials = self._api.http.sign_in.site
        where, secret = (credentials.spec_field, credentials.secret) if credentials else ("", "")
        if error.code == "rest_no_route":
            return SourceRejected(
                f"{self._place}.{where}: {self._site_url} hides /wp/v2/users/me, so it cannot be proven that the "
                f"Secret {secret} signs in; let that route pass, or take {where} out to read as a visitor"
            )
        what, remedy = "user name and password", "use an application password (profile page of the user)"
        if where == "tokenSecretRef":
            what, remedy = "token", "make a new token"
        return SourceRejected(
            f"{self._place}.{where}: {self._site_url} refuses the {what} of the Secret {secret} ({error}); {remedy}, "
            "and let the web server pass the Authorization header"
        )

    def read(self, progress: Progress) -> Harvest:
        """Every post with a status and a type of the spec; those left out come with a reason."""
        try:
            return self._read(progress)
        except RouteRefused as error:
            raise SourceRejected(
                f"{self._place}.url: {self._site_url} refuses to list its content ({error}); "
                "let the REST API be read, or set credentialsSecretRef to a user who may read"
            ) from error

    def _read(self, progress: Progress) -> Harvest:
        types = read_types(self._api, self._spec.post_types)
        taxonomies = read_taxonomies(self._api, types)
        check_root_categories(self._api, self._spec.root_categories, taxonomies)
        sweeper = Sweeper(self._api, self._name, self._spec.statuses, [one.field for one in taxonomies])
        posts: dict[int, Listed] = {}
        complete = True
        for content_type in types:
            sweep = sweeper.sweep(content_type, progress)
            posts |= sweep.posts
            complete = complete and sweep.complete
        self._report_roots(posts.values(), taxonomies)
        reasons = {number: self._reason_to_drop(post, taxonomies) for number, post in sorted(posts.items())}
        wanted = {number: posts[number] for number, reason in reasons.items() if not reason}
        bodies = self._bodies(wanted, progress)
        reasons |= dict.fromkeys(bodies.protected, PROTECTED)
        if gone := [number for number in wanted if number not in bodies]:
            reasons |= dict.fromkeys(gone, GONE)
            complete = False
        kept = [posts[number] for number, reason in reasons.items() if not reason]
        authors = read_authors(
            self._api, {post.author: (post.route, post.number) for post in kept if post.author}
        )
        identities = _identities(posts)
        documents = Documents(self._name, kept, identities, bodies, taxonomies, authors)
        dropped = tuple(
            DroppedDocument(self._name, identities[number], posts[number].link, reason)
            for number, reason in reasons.items()
            if reason
        )
        logger.info(
            "WordPress read: source=%s documents=%d dropped=%d complete=%s",
            self._name, len(documents), len(dropped), complete,
        )  # fmt: skip
        return Harvest(documents, dropped, complete)

    def _reason_to_drop(self, post: Listed, taxonomies: Sequence[Taxonomy]) -> str:
        if post.status not in {status.value for status in self._spec.statuses}:
            return f"status is {post.status}"
        roots = {name.lower() for name in self._spec.root_categories}
        if roots and CATEGORIES in post.terms:
            categories = next(one.terms for one in taxonomies if one.field == CATEGORIES)
            mine = [categories[number] for number in post.terms[CATEGORIES] if number in categories]
            if not any(category.root_names & roots for category in mine):
                return NOT_SELECTED
        return ""

    def _report_roots(self, posts: Iterable[Listed], taxonomies: Sequence[Taxonomy]) -> None:
        """How many posts each root category has, chosen or not."""
        categories = next((one.terms for one in taxonomies if one.field == CATEGORIES), {})
        numbers: Counter[str] = Counter()
        for post in posts:
            mine = post.terms.get(CATEGORIES, ())
            numbers.update({categories[number].path[0] for number in mine if number in categories})
        if numbers:
            shown = ", ".join(f"{name!r}: {number}" for name, number in sorted(numbers.items()))
            logger.info("WordPress root categories: source=%s posts={%s}", self._name, shown)

    def _bodies(self, posts: Mapping[int, Listed], progress: Progress) -> BodyFile:
        """The texts of these posts: those that are kept and still hold, and the others from WordPress."""
        identity = f"wordpress {self._name} {self._site_url}"
        modified = {number: post.modified for number, post in posts.items()}
        site = self._api.http.sign_in.site
        reader = site.secret if site is not None else ""
        bodies, kept = wordpress_bodies.recall(self._memory, identity, reader, modified, self._clock())
        fetched = 0
        with NextTime(self._memory, identity, reader, bodies) as next_time:
            try:
                for route in sorted({post.route for post in posts.values()}):
                    missing = [
                        number
                        for number, post in posts.items()
                        if post.route == route and number not in bodies
                    ]
                    for row_count in self._fetch(route, missing, bodies):
                        fetched += row_count
                        next_time.catch_up()
                        progress(len(bodies), len(posts), message=f"reading {self._name}")
            except TrainerError:
                if fetched:
                    next_time.keep()  # the next try goes on from here
                raise
            if fetched or kept != len(bodies):
                next_time.keep()
        logger.info(
            "WordPress texts: source=%s fetched=%d unchanged=%d", self._name, fetched, len(bodies) - fetched
        )
        return bodies

    def _fetch(self, route: str, numbers: Sequence[int], bodies: BodyFile) -> Iterable[int]:
        """How many texts came with each request."""
        statuses = ",".join(status.value for status in self._spec.statuses)
        parameters = {"orderby": "id", "order": "asc", "status": statuses, "_fields": wordpress_bodies.FIELDS}
        for _, rows in self._api.rows_by_id(route, numbers, parameters):
            for row in rows:
                bodies.add(Body.of_row(row, self._clock()))
            yield len(rows)


def _identities(posts: Mapping[int, Listed]) -> dict[int, str]:
    """The same over runs, for each post another: an import can leave two posts with one guid."""
    identities: dict[int, str] = {}
    taken: set[str] = set()
    for number, post in sorted(posts.items()):
        identity = post.guid or post.link
        identities[number] = identity if identity not in taken else f"{identity}#{number}"
        taken.add(identity)
    return identities


class Documents(ReadOnDemand[RawDocument]):
    """The posts with texts and names joined, each read from disk when it is asked for."""

    def __init__(
        self,
        source: str,
        posts: Sequence[Listed],
        identities: Mapping[int, str],
        bodies: BodyFile,
        taxonomies: Sequence[Taxonomy],
        authors: Mapping[int, str],
    ) -> None:
        self._source = source
        self._posts = posts
        self._identities = identities
        self._bodies = bodies
        self._taxonomies = taxonomies
        self._authors = authors

    def __len__(self) -> int:
        return len(self._posts)

    def _at(self, index: int) -> RawDocument:
        post = self._posts[index]
        body = self._bodies[post.number]
        return RawDocument(
            source=self._source,
            post_id=self._identities[post.number],
            title_html=body.title,
            excerpt_html=body.excerpt,
            content_html=body.content,
            date=as_utc(body.date) or UNDATED,
            author=self._authors.get(post.author, ""),
            categories=self._names(post, in_trees=True),
            tags=self._names(post, in_trees=False),
            url=post.link,
        )

    def _names(self, post: Listed, in_trees: bool) -> tuple[str, ...]:
        """Of categories root first, one tree after the other; none twice."""
        paths = sorted(
            taxonomy.terms[number].path
            for taxonomy in self._taxonomies
            if taxonomy.is_tree == in_trees
            for number in post.terms.get(taxonomy.field, ())
            if number in taxonomy.terms
        )
        return tuple(dict.fromkeys(name for path in paths for name in path))
