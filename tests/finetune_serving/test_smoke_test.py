"""The golden questions are asked of a real HTTP server, and the result is an exit code and last words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from finetune_contract.artifacts import ChatMessage, GoldenQuestion
from finetune_contract.prompt import REFUSAL
from finetune_contract.stage_protocol import FetchExitCode, SmokeExitCode
from finetune_serving.smoke_test import smoke_test

MODEL = "sha256:" + "a" * 64
ANSWERS = {
    "How high is the weir?": "It is 4.2 metres high [1].",
    "Who keeps it?": "Ada Lovelace keeps it [1].",
    "Does it have a pool?": REFUSAL,
}


def golden(question: str, *must_contain: str) -> GoldenQuestion:
    return GoldenQuestion(
        id=question[:4],
        question=question,
        prompt=[ChatMessage(role="user", content=f"[1] A page\n\n{question}")],
        must_contain=list(must_contain),
        answer=ANSWERS[question],
    )


QUESTIONS = (
    golden("How high is the weir?", "4.2 metres"),
    golden("Who keeps it?", "Ada Lovelace"),
    golden("Does it have a pool?"),
)


@pytest.fixture
def answers() -> dict[str, str]:
    return dict(ANSWERS)


@pytest.fixture
def server(httpserver: HTTPServer, answers: dict[str, str]) -> Iterator[HTTPServer]:
    def answer(request: Request) -> Response:
        wish = json.loads(request.data)
        assert wish["temperature"] == 0
        asked = wish["messages"][-1]["content"]
        text = next(text for question, text in answers.items() if asked.endswith(question))
        return Response(json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}))

    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": MODEL}]})
    httpserver.expect_request("/v1/chat/completions", method="POST").respond_with_handler(answer)
    yield httpserver
    httpserver.check_assertions()


def environment(server: HTTPServer, folder: Path, **changes: str) -> dict[str, str]:
    (folder / "golden.jsonl").write_text("".join(json.dumps(q.to_wire()) + "\n" for q in QUESTIONS))
    return {
        "MODEL_ID": MODEL,
        "MODEL_SERVER_PORT": str(server.port),
        "GOLDEN_QUESTIONS": folder.as_uri(),
        "SMOKE_TEST_QUESTIONS": "5",
        "SMOKE_TEST_MIN_RIGHT": "0.5",
        "SMOKE_TEST_SECONDS": "2",
        **changes,
    }


def test_a_server_that_answers_as_in_the_evaluation_passes(server: HTTPServer, tmp_path: Path):
    assert smoke_test(environment(server, tmp_path)) == (
        SmokeExitCode.PASSED,
        "3 of 3 golden questions answered right",
    )


def test_the_newline_at_the_end_of_a_file_is_no_part_of_the_model(server: HTTPServer, tmp_path: Path):
    code, _ = smoke_test(environment(server, tmp_path, MODEL_ID=f"{MODEL}\n"))

    assert code is SmokeExitCode.PASSED


def test_only_so_many_questions_are_asked(server: HTTPServer, tmp_path: Path):
    _, words = smoke_test(environment(server, tmp_path, SMOKE_TEST_QUESTIONS="2"))

    assert words == "2 of 2 golden questions answered right"


def test_too_many_wrong_answers_fail_and_the_first_one_is_shown_beside_what_was_right(
    server: HTTPServer, tmp_path: Path, answers: dict[str, str]
):
    answers["How high is the weir?"] = "<unused> <unused>"
    answers["Does it have a pool?"] = "Yes, a large one."

    code, words = smoke_test(environment(server, tmp_path))

    assert code is SmokeExitCode.TOO_MANY_WRONG
    assert "1 of 3 golden questions answered right, 2 are needed" in words
    assert "“How high is the weir?” gave “<unused> <unused>”, in the evaluation “It is 4.2 metres" in words


def test_one_wrong_answer_is_forgiven_where_half_is_asked_for(
    server: HTTPServer, tmp_path: Path, answers: dict[str, str]
):
    answers["Who keeps it?"] = "Grace Hopper."

    half, _ = smoke_test(environment(server, tmp_path))
    all_of_them, _ = smoke_test(environment(server, tmp_path, SMOKE_TEST_MIN_RIGHT="1"))

    assert (half, all_of_them) == (SmokeExitCode.PASSED, SmokeExitCode.TOO_MANY_WRONG)


def test_a_server_with_another_model_is_not_asked(server: HTTPServer, tmp_path: Path):
    code, words = smoke_test(environment(server, tmp_path, MODEL_ID="sha256:other"))

    assert code is SmokeExitCode.NOT_SERVED
    assert words == f"the model server serves {MODEL}, not sha256:other"


def test_a_server_that_never_comes_up_is_named_with_the_time_that_it_had(
    httpserver: HTTPServer, tmp_path: Path
):
    httpserver.expect_request("/v1/models").respond_with_data("loading", status=503)

    code, words = smoke_test(environment(httpserver, tmp_path))

    assert code is SmokeExitCode.NOT_SERVED
    assert "did not serve" in words
    assert "within 2 s" in words
    assert "503" in words


def test_a_model_whose_evaluation_kept_no_question_only_has_to_load(server: HTTPServer, tmp_path: Path):
    for folder in ("", (tmp_path / "missing").as_uri()):
        code, words = smoke_test(environment(server, tmp_path, GOLDEN_QUESTIONS=folder))

        assert code is SmokeExitCode.PASSED
        assert "the model is loaded" in words


def test_a_file_that_is_no_list_of_questions_says_nothing_about_the_model(server: HTTPServer, tmp_path: Path):
    settings = environment(server, tmp_path)
    (tmp_path / "golden.jsonl").write_text('{"id": 1}\n')

    code, words = smoke_test(settings)

    assert code is FetchExitCode.FORBIDDEN_FILE
    assert "golden.jsonl" in words
