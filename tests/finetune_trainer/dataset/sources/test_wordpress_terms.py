"""Content types, category trees and authors of a WordPress."""

from __future__ import annotations

import logging

from werkzeug import Response


def test_a_custom_type_is_read_with_the_taxonomies_of_its_own(wordpress):
    wordpress.types["recipe"] = {
        "rest_base": "recipes",
        "rest_namespace": "wp/v2",
        "taxonomies": ["course", "diet", "secret"],
    }
    wordpress.taxonomies = {
        "course": {"rest_base": "course", "hierarchical": True},
        "diet": {"rest_base": "diets", "hierarchical": False},
    }
    wordpress.more_rows = {
        "wp/v2/course": [
            {"id": 4, "name": "Baking", "slug": "baking", "parent": 0},
            {"id": 5, "name": "Bread", "slug": "bread", "parent": 4},
        ],
        "wp/v2/diets": [{"id": 6, "name": "Vegan", "slug": "vegan"}],
    }
    wordpress.add(1, "Loaf", "<p>text</p>", type="recipe", course=[5], diets=[6])
    del wordpress.post(1)["categories"]

    (document,) = wordpress.read(post_types=["recipe"], root_categories=[]).documents

    assert document.categories == ("Baking", "Bread")
    assert document.tags == ("Vegan",)


def test_categories_that_are_each_others_parents_end(wordpress):
    wordpress.categories[0]["parent"] = 2
    wordpress.add(1, "A", "<p>text</p>", categories=[2])

    assert set(wordpress.read().documents[0].categories) == {"Blogs", "Milling & more"}


def test_the_root_categories_are_counted_chosen_or_not(wordpress, caplog):
    caplog.set_level(logging.INFO)
    wordpress.add(1, "In", "<p>text</p>", categories=[2])
    wordpress.add(2, "Out", "<p>text</p>", categories=[3])

    wordpress.read(root_categories=["Blogs"])

    assert "WordPress root categories: source=site posts={'Archive': 1, 'Blogs': 1}" in caplog.text


def test_no_text_is_fetched_of_a_post_that_is_not_chosen(wordpress):
    wordpress.add(1, "In", "<p>text</p>", categories=[2])
    wordpress.add(2, "Out", "<p>text</p>", categories=[3])

    wordpress.read(root_categories=["Blogs"])

    assert wordpress.body_requests() == ["1"]


def test_authors_of_a_site_that_hides_its_users_come_with_their_posts(wordpress):
    wordpress.add(1, "A", "<p>text</p>", _embedded={"author": [{"name": "Ada &amp; Co", "slug": "ada"}]})
    wordpress.add(2, "B", "<p>text</p>", author=2, _embedded={"author": [{"name": "", "slug": "bo"}]})
    wordpress.add(3, "C", "<p>text</p>", author=3, _embedded={"author": [{"code": "rest_user_cannot_view"}]})
    closed = Response("<html>blocked</html>", 403, mimetype="text/html")
    wordpress.before = lambda request: closed if "/users" in request.path else None

    assert [document.author for document in wordpress.read().documents] == ["Ada & Co", "bo", ""]


def test_two_posts_that_an_import_left_with_one_guid_stay_two_documents(wordpress):
    wordpress.add(1, "A", "<p>text</p>")
    wordpress.add(2, "B", "<p>text</p>", guid={"rendered": "http://mill.example/?p=1"})

    assert [document.post_id for document in wordpress.read().documents] == [
        "http://mill.example/?p=1",
        "http://mill.example/?p=1#2",
    ]
