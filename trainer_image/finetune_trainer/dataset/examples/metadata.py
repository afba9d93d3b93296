"""What is known of a post beside its text: date, author, categories, tags, and what else is by that author or in that
category. Asked without sources, for the sources of a prompt do not hold it.

Posts are named by their titles; a title that two of them share names none. What is said of the site as a whole is true
of the whole site: a list that would name a post that is not taught is left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.examples.corpus import Corpus, can_be_named
from finetune_trainer.dataset.examples.draft import Draft, in_rounds, make_draft
from finetune_trainer.dataset.examples.phrasing import Phrasing
from finetune_trainer.dataset.examples.places import Places

MAX_NAMES = 6
"""Tags or categories in one answer; a post with more is asked for other things."""
MAX_LISTED = 3
"""Posts in one answer; of more, the latest is asked for."""
MAX_TITLE_WORDS = 20


@dataclass(frozen=True)
class Forms:
    """Ways to ask for one thing, `{x}` for the post, the author or the category; the reserved ones are not taught."""

    taught: tuple[str, ...]
    reserved: tuple[str, ...]


DATE = Forms(
    (
        "When was {x} published?",
        "On which day was {x} posted?",
        "What is the date of {x}?",
        "When did {x} appear?",
        "Tell me when {x} was published.",
    ),
    ("When was {x} put online?", "Do you know the day on which {x} came out?"),
)
AUTHOR = Forms(
    (
        "Who wrote {x}?",
        "Who is the author of {x}?",
        "By whom is {x}?",
        "Tell me who wrote {x}.",
        "Which author wrote {x}?",
    ),
    ("Whose post is {x}?", "Can you name the author of {x}?"),
)
CATEGORIES = Forms(
    (
        "Which category is {x} in?",
        "What categories does {x} belong to?",
        "Where is {x} filed?",
        "In which part of the site is {x}?",
    ),
    ("Under which category can I find {x}?", "How is {x} categorised?"),
)
TAGS = Forms(
    (
        "Which tags does {x} have?",
        "How is {x} tagged?",
        "What are the tags of {x}?",
        "Tell me the tags of {x}.",
    ),
    ("What tags were given to {x}?", "With which tags was {x} published?"),
)
ALL_BY = Forms(
    (
        "Which posts did {x} write?",
        "What has {x} written?",
        "Which posts are by {x}?",
        "List the posts by {x}.",
    ),
    ("Name the posts of {x}.", "What is there to read by {x}?"),
)
LATEST_BY = Forms(
    (
        "What is the latest post by {x}?",
        "Which post did {x} write last?",
        "What did {x} publish most recently?",
        "Show me the newest post by {x}.",
    ),
    ("What has {x} written lately?", "Which is the most recent post of {x}?"),
)
ALL_IN = Forms(
    (
        "Which posts are in {x}?",
        "What is in the category {x}?",
        "List the posts in {x}.",
        "Which posts are filed under {x}?",
    ),
    ("Name the posts of the category {x}.", "What is there to read in {x}?"),
)
LATEST_IN = Forms(
    (
        "What is the latest post in {x}?",
        "Which post in {x} is the newest?",
        "What was published last in {x}?",
        "What is new in the category {x}?",
    ),
    ("Which is the most recent post in {x}?", "What came out last in {x}?"),
)


def make_metadata(corpus: Corpus) -> Iterator[Draft]:
    """Every post by what is known of it, then authors and categories by their posts."""
    titles = Counter(document.post_title.lower() for document in corpus.site_documents)

    def has_name(document: Document) -> bool:
        title = document.post_title
        return can_be_named(document) and titles[title.lower()] == 1 and len(title.split()) <= MAX_TITLE_WORDS

    for document in corpus.documents:
        if has_name(document):
            yield from _about_post(corpus.places, document)
    taught = {document.post_url for document in corpus.documents}
    by_author, by_category = defaultdict[str, _Group](_Group), defaultdict[str, _Group](_Group)
    for document in corpus.site_documents:
        without_text = document.model_copy(update={"post_content": "", "post_excerpt": ""})
        if document.post_author:
            by_author[document.post_author].add(without_text)
        for category in filter(None, dict.fromkeys(document.post_categories)):
            by_category[category].add(without_text)
    for author, group in sorted(by_author.items()):
        yield from _about_group(corpus.places, author, group, taught, has_name, (ALL_BY, LATEST_BY), "by")
    for category, group in sorted(by_category.items()):
        yield from _about_group(corpus.places, category, group, taught, has_name, (ALL_IN, LATEST_IN), "in")


class _Group:
    """Posts with something in common: how many, and the few latest."""

    def __init__(self) -> None:
        self.count = 0
        self.latest: list[Document] = []
        """The latest first; of posts with one date and identity, in the order in which they came."""

    def add(self, document: Document) -> None:
        """One more."""
        self.count += 1
        self.latest.append(document)
        self.latest.sort(key=lambda post: (post.post_date, post.post_id), reverse=True)
        del self.latest[MAX_LISTED:]


def in_words(date: str) -> str:
    """`2025-03-04T09:00:00Z` as 4 March 2025; empty when it is no date."""
    try:
        day = datetime.fromisoformat(date)
    except ValueError:
        return ""
    return f"{day.day} {day:%B} {day.year}"


def _about_post(places: Places, document: Document) -> Iterator[Draft]:
    name = f"“{document.post_title}”"
    if day := in_words(document.post_date):
        yield from _drafts(places, document, "date", DATE, name, f"{name} was published on {day}.", [day])
    if document.post_author:
        author = document.post_author
        yield from _drafts(
            places, document, "author", AUTHOR, name, f"{name} was written by {author}.", [author]
        )
    categories = list(dict.fromkeys(document.post_categories))
    if 0 < len(categories) <= MAX_NAMES:
        noun = "category" if len(categories) == 1 else "categories"
        answer = f"{name} is in the {noun} {_joined(categories)}."
        yield from _drafts(places, document, "categories", CATEGORIES, name, answer, categories[-2:])
    tags = list(dict.fromkeys(document.post_tags))
    if 0 < len(tags) <= MAX_NAMES:
        answer = f"{name} is tagged {_joined(tags)}."
        yield from _drafts(places, document, "tags", TAGS, name, answer, tags[:2])


def _about_group(
    places: Places,
    group: str,
    posts: _Group,
    taught: set[str],
    has_name: Callable[[Document], bool],
    forms: tuple[Forms, Forms],
    word: str,
) -> Iterator[Draft]:
    """All posts of a group, or the latest where there are many; `word` stands between post and group."""
    latest_first = posts.latest
    if posts.count <= MAX_LISTED:
        named, asked = latest_first, forms[0]
        titles = _joined([f"“{document.post_title}”" for document in named])
        answer = f"{titles} {'is' if len(named) == 1 else 'are'} {word} {group}."
    else:
        named, asked = latest_first[:1], forms[1]
        day = in_words(named[0].post_date)
        if not day or latest_first[1].post_date == named[0].post_date:
            return
        answer = f"The latest post {word} {group} is “{named[0].post_title}”, published on {day}."
    if all(document.post_url in taught and has_name(document) for document in named):
        found = [document.post_title for document in named[:2]]
        yield from _drafts(places, named[0], f"posts-{word}", asked, group, answer, found)


def _drafts(
    places: Places,
    document: Document,
    name: str,
    forms: Forms,
    subject: str,
    answer: str,
    must_contain: list[str],
) -> Iterator[Draft]:
    ways = [
        Phrasing(f"metadata-{name}.{'reserved-' if reserved else ''}{number}", form.replace("{x}", subject), reserved)
        for group, reserved in ((forms.taught, False), (forms.reserved, True))
        for number, form in enumerate(group)
    ]  # fmt: skip
    for round_number, phrasing in in_rounds(ways, "metadata", name, places.of(document.post_url), subject):
        yield make_draft(
            places, ExampleKind.METADATA, document.post_url, phrasing, (), answer, must_contain, round_number
        )


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
