from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest

from finetune_contract.stage_protocol import ExitCode, Stage
from finetune_trainer.__main__ import run_stage
from finetune_trainer.errors import SourceRejected
from finetune_trainer.masked_secrets import masked
from finetune_trainer.stage_context import StageContext
from tests.finetune_trainer.training.tiny_model import context_for, spec_for

KEY = "sk-very-secret"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GENERATOR_API_KEY", "sk-very-secret\n"),
        ("HF_TOKEN", "hf_very_secret"),
        ("WORDPRESS_PASSWORD_SITE", "abcd efgh ijkl"),
        ("WEAVIATE_API_KEY_OLD_ARTICLES", "very-secret-käse"),
        ("AWS_SECRET_ACCESS_KEY", "very\nsecret"),
    ],
)
def test_a_secret_is_masked_as_it_is_and_as_python_writes_it(name: str, value: str):
    bare = value.strip()
    text = f"header {value!r}, {bare.encode()!r} and {bare}"

    assert masked(text, {name: value}).count("***") == 3
    assert bare not in masked(text, {name: value})


def test_what_is_no_secret_stays_readable():
    environment = {"HF_HOME": "/models/cache", "MODEL_SIGNING_KEY_FILE": "/keys/sign.pem", "API_KEY": "short"}
    text = "short of room: /models/cache /keys/sign.pem"

    assert masked(text, environment) == text


def test_the_longer_of_two_secrets_is_masked_whole():
    assert masked("abcdefgh-1234", {"A_KEY": "abcdefgh", "B_KEY": "abcdefgh-1234"}) == "***"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError(f"Invalid header value b'Bearer {KEY}\\n'"), ExitCode.INTERNAL_ERROR),
        (SourceRejected(f"spec.x: {KEY} is wrong"), ExitCode.SOURCE_REJECTED),
    ],
    ids=["unknown", "known"],
)
def test_neither_report_nor_log_of_a_failed_stage_holds_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, code: ExitCode
):
    caplog.set_level(logging.DEBUG)
    context = dataclasses.replace(
        context_for(tmp_path, spec_for(tmp_path)), environment={"GENERATOR_API_KEY": f"{KEY}\n"}
    )

    def fail(_: StageContext):
        raise error

    report = run_stage(Stage.DATASET, context, fail)

    assert report.exit_code == code
    assert "***" in report.message
    assert "***" in caplog.text
    assert KEY not in report.to_message() + caplog.text


def test_the_log_of_an_unknown_error_tells_where_it_happened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def lost(_: StageContext):
        raise ValueError("unforeseen")

    run_stage(Stage.DATASET, context_for(tmp_path, spec_for(tmp_path)), lost)

    assert "in lost" in caplog.text
