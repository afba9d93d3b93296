"""Which documents training never sees."""

from __future__ import annotations

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import SplitSpec
from finetune_trainer.dataset.held_out import MIN_HELD_OUT, held_out


def document(number: int, category: str = "Blogs", content: str = "") -> Document:

    return Document(
        source="site",
        post_id=str(number),
        post_title=f"Post {number}",
        post_excerpt="",
        post_content=content or " ".join(f"post{number}word{place}" for place in range(40)),
        post_date="2025-01-01T00:00:00Z",
        post_author="",
        post_categories=[category],
        post_tags=[],
        post_url=f"http://s/{number}",
    )


def site(count: int) -> list[Document]:
    return [document(number) for number in range(count)]


def test_a_small_site_teaches_everything():
    assert held_out(site(99), SplitSpec()) == frozenset()


def test_no_share_holds_nothing_back():
    assert held_out(site(120), SplitSpec(transfer=0)) == frozenset()


def test_about_the_share_is_held_back_and_never_fewer_than_twenty():
    assert len(held_out(site(120), SplitSpec())) == MIN_HELD_OUT
    assert 20 < len(held_out(site(400), SplitSpec())) < 65


def test_a_document_keeps_its_side_when_the_site_grows_and_in_any_order():
    few, many = site(400), site(450)

    before, after = held_out(few, SplitSpec()), held_out(many, SplitSpec())

    assert before == {url for url in after if int(url.rpartition("/")[2]) < 400}
    assert held_out(few[::-1], SplitSpec()) == before


def test_another_seed_holds_back_others():
    assert held_out(site(200), SplitSpec(seed=1)) != held_out(site(200), SplitSpec(seed=2))


def test_near_duplicates_are_on_one_side():
    rows = site(200)
    for number in range(100):
        text = rows[number].post_content
        rows.append(document(1000 + number, content=f"{text} w1"))

    held = held_out(rows, SplitSpec(transfer=0.3))

    assert held
    for number in range(100):
        assert (f"http://s/{number}" in held) is (f"http://s/{1000 + number}" in held)


def test_every_root_category_of_some_size_is_asked_about():
    rows = site(300) + [document(2000 + number, category=f"Root {number // 10}") for number in range(60)]

    held = held_out(rows, SplitSpec())

    categories = {row.post_categories[0] for row in rows if row.post_url in held}
    assert categories == {"Blogs", *(f"Root {number}" for number in range(6))}
