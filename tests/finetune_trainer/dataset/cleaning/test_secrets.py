"""Secrets: keys, tokens and passwords go wherever they stand; stand-ins and names in code stay.

The values are put together here, so that no scanner takes this file for a leak.
"""

from __future__ import annotations

import time

import pytest

from finetune_trainer.dataset.cleaning.secrets import SECRET, redact_secrets

MIXED = "a8Bc9dEf0gHi1jKl2mNo3pQr4sTu5vWx6yZ7"
KEY_BLOCK = "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEabc\nxyz==\n-----END RSA PRIVATE " + "KEY-----"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("AWS key", "AKIA" + "Q7W3" * 4),
        ("GitHub token", "ghp_" + MIXED),
        ("GitHub token", "github_pat_" + MIXED),
        ("GitLab token", "glpat-" + MIXED[:20]),
        ("Slack token", "xoxb-" + "123456789012-" + MIXED[:12]),
        ("API key", "sk-" + MIXED),
        ("API key", "sk-proj-" + MIXED),
        ("API key", "AIza" + MIXED[:35]),
        ("API key", "hf_" + MIXED),
        ("API key", "sk_" + "live_" + MIXED[:24]),
        ("JSON web token", ".".join(["eyJ" + MIXED[:12], "eyJ" + MIXED[:20], MIXED[:30]])),
        ("private key", KEY_BLOCK),
    ],
)
def test_a_secret_goes_from_prose_and_from_code(kind, value):
    kinds: list[str] = []

    left = redact_secrets(f"It is {value} today.\n```\n{value}\n```", kinds.append)

    assert left == f"It is {SECRET} today.\n```\n{SECRET}\n```"
    assert kinds == [kind, kind]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('password = "Tide-Gate-9"', f'password = "{SECRET}"'),
        ("DB_PASSWORD=tidegate99", f"DB_PASSWORD={SECRET}"),
        ("SECRET_KEY: e_qeN3Mp!n5)ecxn(TJ2*b^r", f"SECRET_KEY: {SECRET}"),
        ("(password: tidegate99)", f"(password: {SECRET})"),
        ("db_password: 'correct-horse'", f"db_password: '{SECRET}'"),
        ('{"api_key": "' + MIXED + '"}', '{"api_key": "' + SECRET + '"}'),
        ("'secret' => 'SuperSecret123',", f"'secret' => '{SECRET}',"),
        ("postgres://mill:tidegate@db.example/x", f"postgres://mill:{SECRET}@db.example/x"),
        (f"Authorization: Bearer {MIXED}", f"Authorization: Bearer {SECRET}"),
        ("aws_secret_access_key = " + MIXED, f"aws_secret_access_key = {SECRET}"),
    ],
)
def test_only_the_value_of_an_assignment_goes(text, left):
    assert redact_secrets(text) == left


@pytest.mark.parametrize(
    "text",
    [
        'password = "<your password>"',
        'password = "your-password-here"',
        "password: ${DB_PASSWORD}",
        'token = os.environ["TOKEN_2"]',
        'api_key = get_key("main2")',
        'password = "********"',
        'form.field("password", type="password")',
        'token_type = "bearer2token"',
        'token_aaaaaaaaaaaaaaaa_ref = "bearer2token"',
        "tokenizer = 'subword-v2'",
        "Password: at least 8 characters",
        "def login(user: str, password: str, token: Token2): ...",
        "risk-averse-and-well-prepared-people-9",
        "sk-very-long-name-of-a-css-class",
        "https://site.example:8080/a@b",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIE\n-----END PUBLIC KEY-----",
    ],
)
def test_stand_ins_and_names_stay(text):
    assert redact_secrets(text) == text


@pytest.mark.parametrize("piece", ["password", "token_-"])
def test_a_long_unbroken_run_takes_no_time(piece):
    began = time.process_time()

    assert redact_secrets(piece * 4000) == piece * 4000
    assert time.process_time() - began < 2  # a tenth of a second; each read to the end of the run takes 10


def test_a_private_key_without_its_end_goes_as_far_as_it_looks_like_one():
    text = (
        KEY_BLOCK.split("\n-----END")[0].replace("MIIEabc\nxyz==", "M" * 64 + "\n" + "N" * 64)
        + "\n\nNext, some words."
    )

    assert redact_secrets(text) == f"{SECRET}\n\nNext, some words."


def test_doing_it_twice_changes_nothing():
    once = redact_secrets(f'password = "Tide-Gate-9" and TOKEN={MIXED}')

    assert redact_secrets(once) == once
