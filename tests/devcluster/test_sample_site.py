"""The sample site is whole: its posts, pictures and questions fit together.

Only files are read here; that WordPress accepts them is tested where WordPress runs.
"""

import re
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml
from bs4 import BeautifulSoup, Tag

SITE_FOLDER = Path(__file__).parents[2] / "devcluster" / "sample_site"
FRONT_MATTER = re.compile(r"\A---\n(?P<front>.*?)\n---\n(?P<body>.*)\Z", re.DOTALL)
FRONT_MATTER_FIELDS = {"title", "slug", "type", "date", "author", "categories", "tags"}
PRONOUNS = {"it", "its", "he", "she", "they", "this", "these", "that", "those", "we", "you", "i", "there"}


@dataclass(frozen=True)
class Post:
    front: dict[str, Any]
    body: str

    @cached_property
    def slug(self) -> str:
        return str(self.front["slug"])

    @cached_property
    def soup(self) -> BeautifulSoup:
        return BeautifulSoup(self.body, "html.parser")

    @cached_property
    def text(self) -> str:
        return " ".join(self.soup.get_text(" ").split())

    @cached_property
    def headings(self) -> list[Tag]:
        return list(self.soup.find_all(["h2", "h3"]))


def read_post(path: Path) -> Post:
    match = FRONT_MATTER.match(path.read_text(encoding="utf-8"))
    assert match, f"{path.name}: expected front matter between two lines of ---"
    return Post(front=yaml.safe_load(match["front"]), body=match["body"])


def read_yaml(name: str) -> dict[str, Any]:
    value = yaml.safe_load((SITE_FOLDER / name).read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


PATHS = sorted((SITE_FOLDER / "posts").glob("*.html"))
POSTS = {path.stem: read_post(path) for path in PATHS}
SITE = read_yaml("site.yaml")
QUESTIONS = read_yaml("questions.yaml")
ASKED = [*QUESTIONS["demo"], *QUESTIONS["extra"]]
ANSWERABLE = [question for question in ASKED if not question.get("must_refuse")]

each_post = pytest.mark.parametrize("post", POSTS.values(), ids=POSTS.keys())


def category_paths(categories: list[dict[str, Any]], parent: str = "") -> Iterator[str]:
    for category in categories:
        path = f"{parent}{category['name']}"
        yield path
        yield from category_paths(category.get("children", []), f"{path}/")


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def first_sentence_after(heading: Tag) -> str:
    paragraph = heading.find_next_sibling()
    assert paragraph is not None, f"{heading.get_text()}: nothing follows"
    assert paragraph.name == "p", f"{heading.get_text()}: expected a paragraph next, found {paragraph.name}"
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.get_text().split()))[0]


def test_the_site_has_enough_posts_and_pages() -> None:
    types = Counter(post.front["type"] for post in POSTS.values())
    roots = Counter(path.split("/")[0] for post in POSTS.values() for path in post.front["categories"])

    assert len(POSTS) >= 44
    assert types["page"] >= 6
    assert types["post"] == len(POSTS) - types["page"]
    assert roots["Blogs"] >= 15
    assert roots["Documentation"] >= 15
    assert roots["Blogs"] + roots["Documentation"] >= 40
    assert roots["Archive"] == 2


@each_post
def test_the_front_matter_of_a_post_is_complete(post: Post) -> None:
    front = post.front

    assert FRONT_MATTER_FIELDS <= front.keys() <= FRONT_MATTER_FIELDS | {"excerpt"}
    assert front["type"] in {"post", "page"}
    assert front["author"] in {author["login"] for author in SITE["authors"]}
    assert set(front["categories"]) <= set(category_paths(SITE["categories"]))
    assert bool(front["categories"]) == (front["type"] == "post"), "WordPress pages have no categories"
    assert front["tags"]
    assert all(isinstance(tag, str) for tag in front["tags"])


@each_post
def test_the_date_of_a_post_is_a_utc_moment_of_2024_to_2026(post: Post) -> None:
    moment = datetime.fromisoformat(post.front["date"])

    assert moment.tzinfo == UTC
    assert 2024 <= moment.year <= 2026


def test_slugs_are_unique_and_name_their_files() -> None:
    slugs = [post.slug for post in POSTS.values()]

    assert slugs == list(POSTS)
    assert len(set(slugs)) == len(slugs)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) for slug in slugs)


def test_every_category_with_posts_of_its_own_and_every_author_is_used() -> None:
    used = {path for post in POSTS.values() for path in post.front["categories"]}
    leaves = {path for path in category_paths(SITE["categories"]) if path not in {"Blogs", "Documentation"}}

    assert used == leaves
    assert {post.front["author"] for post in POSTS.values()} == {
        author["login"] for author in SITE["authors"]
    }


def test_category_slugs_are_unique_and_differ_from_page_slugs() -> None:
    categories = [*SITE["categories"], *(child for root in SITE["categories"] for child in root["children"])]
    slugs = [category["slug"] for category in categories]

    assert len(set(slugs)) == len(slugs)
    assert not set(slugs) & set(POSTS), "WordPress would rename one of the two"


@each_post
def test_links_and_pictures_of_a_post_lead_somewhere(post: Post) -> None:
    for link in post.soup.find_all("a"):
        target = str(link["href"])
        inner = re.fullmatch(r"\{\{home\}\}/([a-z0-9-]+)/", target)
        outer = re.fullmatch(r"https://[a-z0-9.-]+\.example(/\S*)?", target)
        mail = re.fullmatch(r"mailto:[a-z]+@marrowby-tidemill\.example", target)
        telephone = re.fullmatch(r"tel:\+44\d{10}", target)
        assert inner or outer or mail or telephone, f"{target}: not a kind of link that the site uses"
        assert not inner or (inner[1] in POSTS and inner[1] != post.slug), f"{target}: no such post"
    for picture in post.soup.find_all("img"):
        name = re.fullmatch(r"\{\{media:([a-z]+\.png)\}\}", str(picture["src"]))
        assert name, f"{picture['src']}: not a picture of the site"
        assert (SITE_FOLDER / "media" / name[1]).is_file()
        assert picture["alt"]
    assert set(re.findall(r"\{\{[^}]*", post.body)) <= {"{{home"} | {
        f"{{{{media:{path.name}" for path in (SITE_FOLDER / "media").glob("*.png")
    }


@each_post
def test_a_post_is_short_prose_under_three_to_five_headings(post: Post) -> None:
    assert 120 <= len(post.text.split()) <= 280
    assert 3 <= len(post.headings) <= 5


@each_post
def test_the_first_sentence_under_a_heading_stands_on_its_own(post: Post) -> None:
    for heading in post.headings:
        sentence = first_sentence_after(heading)
        words = sentence.split()
        assert 8 <= len(words) <= 25, f"{len(words)} words: {sentence}"
        assert words[0].casefold() not in PRONOUNS, sentence
        assert sentence.endswith((".", "!")), sentence


def test_no_heading_stands_twice_and_about_half_of_them_ask() -> None:
    headings = [heading.get_text() for post in POSTS.values() for heading in post.headings]
    twice = [heading for heading, count in Counter(map(plain, headings)).items() if count > 1]
    asking = sum(heading.endswith("?") for heading in headings)

    assert twice == []
    assert 0.4 <= asking / len(headings) <= 0.6


def test_the_site_shows_what_wordpress_sites_contain() -> None:
    def posts_with(selector: str) -> int:
        return sum(bool(post.soup.select(selector)) for post in POSTS.values())

    assert posts_with("pre code[class^=language-]") >= 8
    assert posts_with("table") >= 8
    assert posts_with("ul ul, ol ul") >= 2
    assert posts_with("blockquote") >= 1
    assert posts_with("details") >= 2
    assert posts_with("iframe") >= 1
    assert posts_with("form") >= 2
    assert posts_with("figure img") >= 6
    assert posts_with("a[href^='mailto:']") >= 5
    assert posts_with("a[href^='tel:']") >= 3
    assert sum(bool(re.search(r"^\[[a-z0-9_-]+ .*\]$", post.body, re.M)) for post in POSTS.values()) >= 2
    languages = {str(code["class"][0]) for post in POSTS.values() for code in post.soup.select("pre code")}
    assert languages == {"language-bash", "language-yaml", "language-json", "language-python"}
    assert 15 <= sum("excerpt" in post.front for post in POSTS.values()) < len(POSTS)


def test_the_questions_have_the_promised_mixture() -> None:
    assert [bool(question.get("must_refuse")) for question in QUESTIONS["demo"]] == [False] * 4 + [True]
    assert len(QUESTIONS["extra"]) == 20
    assert sum(bool(question.get("must_refuse")) for question in QUESTIONS["extra"]) == 4
    assert len({plain(question["question"]) for question in ASKED}) == len(ASKED)


@pytest.mark.parametrize("question", ANSWERABLE, ids=lambda question: question["question"])
def test_the_answer_to_a_question_stands_in_the_post_that_it_names(question: dict[str, Any]) -> None:
    post = POSTS[question["url_slug"]]

    assert question["must_contain"]
    for fact in question["must_contain"]:
        assert fact in post.text


@pytest.mark.parametrize("question", ASKED, ids=lambda question: question["question"])
def test_no_question_equals_a_heading_or_a_title(question: dict[str, Any]) -> None:
    headings = {plain(heading.get_text()) for post in POSTS.values() for heading in post.headings}
    titles = {plain(post.front["title"]) for post in POSTS.values()}

    assert plain(question["question"]) not in headings | titles


def test_a_demo_answer_stands_in_one_post_only() -> None:
    facts = [(q["url_slug"], fact) for q in QUESTIONS["demo"] for fact in q.get("must_contain", [])]
    found = {
        fact: [
            slug
            for slug, post in POSTS.items()
            if re.search(rf"(?<![\w,.]){re.escape(fact)}(?!\w)", post.text)
        ]
        for _, fact in facts
    }

    assert found == {fact: [slug] for slug, fact in facts}


def test_the_retrain_edit_changes_one_fact_to_one_that_the_site_did_not_know() -> None:
    retrain = QUESTIONS["retrain"]
    old, new = retrain["replace"]["old"], retrain["replace"]["new"]
    post = POSTS[retrain["slug"]]

    assert post.body.count(old) == 1
    assert all(fact in post.body.replace(old, new) for fact in retrain["must_contain"])
    assert not any(fact in other.text for other in POSTS.values() for fact in retrain["must_contain"])
    assert not any(old in other.text for slug, other in POSTS.items() if slug != retrain["slug"])


def pixels(path: Path) -> tuple[tuple[int, int], bytes]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    parts: dict[bytes, bytes] = {}
    at = 8
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        parts[kind] = content[at + 8 : at + 8 + length]
        at += length + 12
    return (width, height), parts[b"PLTE"] + zlib.decompress(parts[b"IDAT"])


def test_the_pictures_are_what_the_script_draws(tmp_path: Path) -> None:
    committed = sorted((SITE_FOLDER / "media").glob("*.png"))

    subprocess.run([sys.executable, SITE_FOLDER / "media" / "draw.py", tmp_path], check=True, timeout=60)

    assert len(committed) == 6
    assert [path.name for path in sorted(tmp_path.iterdir())] == [path.name for path in committed]
    for path in committed:
        assert path.stat().st_size < 20_000
        assert pixels(path) == pixels(tmp_path / path.name)
