"""The endpoint: schema where it is taken, waiting where it is told, errors with their remedy, no key in any."""

from __future__ import annotations

import json
import logging

import pytest
from werkzeug import Response

from finetune_trainer.dataset.generator.endpoint import BudgetSpent, ChatEndpoint
from finetune_trainer.errors import SourceRejected, SourceUnavailable

KEY = "sk-very-secret"


def ask(endpoint: ChatEndpoint) -> str:
    return endpoint.ask("be brief", "hello", {"type": "object"}, 10)


def refused(status, message, **headers):
    return Response(json.dumps({"error": {"message": message}}), status, headers, mimetype="application/json")


def test_the_answer_is_held_to_the_schema_and_the_key_is_sent(model):
    model.say = lambda message: f"you said {message}"

    assert ask(model.endpoint(key=KEY)) == "you said hello"
    assert model.asked[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (model.asked[0]["model"], model.asked[0]["max_tokens"]) == ("writer", 10)
    assert model.keys == [f"Bearer {KEY}"]


def test_an_endpoint_that_takes_no_schema_is_asked_without_from_then_on(model):
    model.before = lambda request, body: refused(400, "no schema") if "response_format" in body else None
    endpoint = model.endpoint()

    ask(endpoint)
    ask(endpoint)

    assert ["response_format" in body for body in model.asked] == [True, False, False]


def test_it_waits_as_long_as_it_is_told_and_then_asks_again(model):
    answers = iter([refused(429, "slow down", **{"Retry-After": "7"}), refused(503, "loading")])
    model.before = lambda request, body: next(answers, None)
    waits: list[float] = []

    ask(model.endpoint(waits))

    assert waits == [7.0, 2.0]


def test_a_limit_that_stays_names_the_remedy(model):
    model.before = lambda request, body: refused(429, "quota")

    with pytest.raises(
        SourceUnavailable, match=r"spec.dataset.generator.url: .* answers 429, 5 times; its limit"
    ):
        ask(model.endpoint())


def test_nobody_there_is_said_with_the_address(model):
    model.server.stop()
    try:
        with pytest.raises(
            SourceUnavailable, match=r"spec.dataset.generator.url: http://.*/v1/models: no answer"
        ):
            model.endpoint().check()
    finally:
        model.server.start()


@pytest.mark.parametrize("key", ["", KEY])
def test_a_refused_key_is_an_error_at_once_and_is_never_shown(model, key, caplog):
    model.before = lambda request, body: refused(401, f"Incorrect API key {KEY}")
    words = "refuses the API key in GENERATOR_API_KEY" if key else "asks for an API key"
    caplog.set_level(logging.DEBUG)

    with pytest.raises(SourceRejected, match=rf"spec.dataset.generator.apiKeySecretRef: .*{words}") as raised:
        model.endpoint(key=key).check()
    with pytest.raises(SourceRejected, match=words):
        ask(model.endpoint(key=key))

    assert KEY not in str(raised.value)
    assert not key or KEY not in caplog.text


def test_a_secret_that_did_not_arrive_is_named_before_anything_is_asked(model):
    spec = model.spec(apiKeySecretRef={"name": "llm", "key": "token"})

    with pytest.raises(SourceRejected, match="is not in GENERATOR_API_KEY"):
        ChatEndpoint(spec, {}, key_required=True).check()
    assert model.keys == []


def test_an_unknown_model_is_refused_with_the_endpoints_own_words(model):
    model.before = lambda request, body: refused(404, f"model writer not found for {KEY}")

    with pytest.raises(
        SourceRejected, match=r"generator.model: .* 404 for model writer: model writer not found"
    ) as raised:
        ask(model.endpoint(key=KEY))

    assert KEY not in str(raised.value)


def test_a_page_in_the_place_of_the_endpoint_is_refused(model):
    model.before = lambda request, body: Response("<html>", mimetype="text/html")

    with pytest.raises(SourceRejected, match=r"answers 200 and no JSON; .* OpenAI-compatible"):
        ask(model.endpoint())


def test_no_more_requests_are_sent_than_the_budget_allows(model):
    endpoint = model.endpoint(maxRequests=1)
    ask(endpoint)

    with pytest.raises(BudgetSpent):
        ask(endpoint)
    assert endpoint.sent == len(model.asked) == 1


def test_the_newline_at_the_end_of_a_key_from_a_file_is_not_sent(model):
    ask(model.endpoint(key=f"{KEY}\n"))

    assert model.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize("key", [f"{KEY}\n{KEY}", f"{KEY}ä"])
def test_a_key_that_no_header_can_carry_is_refused_by_the_name_of_its_secret(model, key):
    with pytest.raises(
        SourceRejected, match=r"generator.apiKeySecretRef: the API key of the Secret llm holds a line break"
    ) as raised:
        model.endpoint(key=key, apiKeySecretRef={"name": "llm", "key": "token"})

    assert KEY not in str(raised.value)
