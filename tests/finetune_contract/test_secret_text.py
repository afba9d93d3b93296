from __future__ import annotations

import pytest

from finetune_contract.secret_text import S3Keys, is_sendable, s3_keys, without_margins


def test_the_newline_at_the_end_of_a_file_is_no_part_of_a_key():
    assert without_margins("top-secret\r\n") == "top-secret"


@pytest.mark.parametrize(
    ("value", "sendable"),
    [
        ("", True),
        ("top-secret", True),
        ("a b", True),
        ("top\nsecret", False),
        ("a\0b", False),
        ("käse", False),
    ],
)
def test_a_header_carries_printable_ascii_only(value: str, sendable: bool):
    assert is_sendable(value) is sendable


def test_s3_keys_come_without_margins_and_with_the_token_of_a_session():
    pair = {"AWS_ACCESS_KEY_ID": "id\n", "AWS_SECRET_ACCESS_KEY": " secret\n"}

    assert s3_keys(pair) == S3Keys("id", "secret", None)
    assert s3_keys(pair | {"AWS_SESSION_TOKEN": "session\n"}) == S3Keys("id", "secret", "session")


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_pair_is_left_to_boto3(missing: str):
    pair = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}

    assert s3_keys(pair | {missing: "\n"}) is None
