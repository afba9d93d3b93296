from pathlib import Path

import pytest

from devcluster.errors import DevclusterError
from devcluster.sample_content import read_site

SITE = """
title: A Mill
tagline: Flour
authors: [{login: ann, display_name: Ann}]
categories:
- {name: Blogs, slug: blogs, children: [{name: News, slug: news}]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "posts").mkdir()
    (tmp_path / "media").mkdir()
    (tmp_path / "site.yaml").write_text(SITE)
    (tmp_path / "media" / "mill.png").write_bytes(b"png")
    (tmp_path / "media" / "draw.py").write_text("not an image")
    return tmp_path


def add_post(
    folder: Path,
    slug: str,
    date: str = "2025-03-01T08:00:00Z",
    author: str = "ann",
    body: str = "<p>Text</p>",
    **more: str,
) -> None:
    fields = {"title": slug.title(), "slug": slug, "type": "post", "date": date, "author": author, **more}
    lines = "\n".join(f"{name}: {value}" for name, value in fields.items())
    (folder / "posts" / f"{slug}.html").write_text(f"---\n{lines}\n---\n{body}\n")


def test_addresses_of_site_and_images_are_filled_in(folder: Path) -> None:
    add_post(folder, "a", body='<a href="{{home}}/b/">b</a><img src="{{media:mill.png}}">')

    [post] = read_site("http://x:1", folder).seed["posts"]

    assert post["html"] == '<a href="http://x:1/b/">b</a><img src="http://x:1/wp-content/uploads/mill.png">'


def test_ids_and_dates_depend_on_the_posts_alone(folder: Path) -> None:
    add_post(folder, "young", date="2025-03-01T08:00:00Z")
    add_post(folder, "old", date="2024-03-01T08:00:00+02:00")

    posts = read_site("http://x", folder).seed["posts"]

    assert [(post["slug"], post["id"], post["date"]) for post in posts] == [
        ("old", 101, "2024-03-01 06:00:00"),
        ("young", 102, "2025-03-01 08:00:00"),
    ]
    assert read_site("http://x", folder) == read_site("http://x", folder)


def test_only_the_post_that_changed_has_another_digest(folder: Path) -> None:
    add_post(folder, "a")
    add_post(folder, "b")
    before = read_site("http://x", folder)
    add_post(folder, "b", body="<p>Other text</p>")

    after = read_site("http://x", folder)

    changed = [
        new["slug"]
        for old, new in zip(before.seed["posts"], after.seed["posts"], strict=True)
        if old["digest"] != new["digest"]
    ]
    assert changed == ["b"]
    assert before.digest != after.digest


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"author": "bob"}, "author 'bob' is not in site.yaml"),
        ({"categories": "[Blogs/Nothing]"}, "category 'Blogs/Nothing' is not in site.yaml"),
        ({"body": "{{media:none.png}}"}, "image 'none.png' is not in the media folder"),
        ({"featured_image": "none.png"}, "image 'none.png' is not in the media folder"),
    ],
)
def test_a_post_that_names_something_unknown_is_refused(
    folder: Path, wrong: dict[str, str], message: str
) -> None:
    add_post(folder, "a", **wrong)

    with pytest.raises(DevclusterError, match=f"post 'a': {message}"):
        read_site("http://x", folder)


def test_the_sample_site_itself_can_be_read() -> None:
    site = read_site("http://x")

    assert site.posts >= 40
    assert "{{" not in "".join(post["html"].replace("{{ ", "") for post in site.seed["posts"])
