from __future__ import annotations

from pathlib import Path

import pytest

from finetune_contract.artifacts import ChatMessage, Example
from finetune_contract.prompt import TEMPLATES, conversation
from finetune_contract.run_spec import PromptFormat
from finetune_contract.sections import Passage
from finetune_trainer.errors import BaseModelRejected
from finetune_trainer.training.encoding import (
    encode_example,
    encode_rows,
    load_tokenizer,
    prompt_token_ids,
    render_prompt,
)
from tests.finetune_trainer.training.tiny_model import CHATML, example, tiny_tokenizer


def test_the_answer_ends_with_the_token_that_ends_the_turn_and_nothing_behind_it():
    tokenizer = tiny_tokenizer()

    row = encode_example(tokenizer, example(0))

    assert tokenizer.decode(list(row.answer_ids)) == "3 metres. [1]<|im_end|>"


def test_the_prompt_is_what_a_server_renders():
    tokenizer = tiny_tokenizer()

    row = encode_example(tokenizer, example(0))

    assert list(row.prompt_ids) == prompt_token_ids(tokenizer, example(0).prompt)
    assert tokenizer.decode(list(row.prompt_ids)).endswith("<|im_start|>assistant\n")


def test_a_template_without_a_turn_end_gets_the_end_of_sequence_token():
    tokenizer = tiny_tokenizer(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )

    row = encode_example(tokenizer, example(0))

    assert row.answer_ids[-1] == tokenizer.eos_token_id


def test_the_question_answer_format_brings_its_own_template(tmp_path: Path):
    tiny_tokenizer(chat_template=None).save_pretrained(tmp_path)

    tokenizer = load_tokenizer(tmp_path, PromptFormat.QUESTION_ANSWER)

    row = encode_example(tokenizer, example(0))
    assert tokenizer.decode(list(row.token_ids)).startswith("<s>question: Answer briefly")
    assert tokenizer.decode(list(row.answer_ids)) == "3 metres. [1]<|im_end|>"


def test_a_chat_format_without_a_template_is_refused_with_both_remedies(tmp_path: Path):
    tiny_tokenizer(chat_template=None).save_pretrained(tmp_path)

    with pytest.raises(BaseModelRejected, match=r"no chat template.*promptFormat: question-answer or alpaca"):
        load_tokenizer(tmp_path, PromptFormat.CHAT)


def test_a_template_that_changes_the_prompt_when_an_answer_follows_is_refused():
    tokenizer = tiny_tokenizer("{{ messages | length }}" + CHATML)

    with pytest.raises(BaseModelRejected, match="renders the prompt differently"):
        encode_example(tokenizer, example(0))


def test_rows_over_the_limit_are_named_and_never_cut():
    tokenizer = tiny_tokenizer()
    lengths = [len(encode_example(tokenizer, example(n))) for n in (0, 20)]
    assert lengths[0] < lengths[1]

    rows = encode_rows(tokenizer, [example(0), example(20)], sequence_length=lengths[0])

    assert [row.id for row in rows.rows] == [example(0).id]
    assert rows.too_long == (example(20).id,)


def test_a_row_whose_answer_would_end_in_the_middle_is_left_out_and_named():
    rows = [example(0), example(1).model_copy(update={"answer": "Write <s> and </s> around it. [1]"})]

    encoded = encode_rows(tiny_tokenizer(), rows, sequence_length=4096)

    assert [row.id for row in encoded.rows] == [example(0).id]
    assert encoded.broken_off == (example(1).id,)
    assert encoded.too_long == ()


def test_a_tokenizer_that_cannot_end_an_answer_is_refused_with_the_remedy():
    tokenizer = tiny_tokenizer("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")
    tokenizer.eos_token = None

    with pytest.raises(BaseModelRejected, match=r"never stop; name its eos_token in tokenizer_config.json"):
        encode_example(tokenizer, example(0))


GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ message['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
"""A template of the Gemma form: no system role, and turns that alternate."""


def prompts(count: int) -> list[list[ChatMessage]]:
    """With and without sources, with and without turns before, with what is hard to quote."""
    passages = [
        Passage("Prices", "“Day” ticket", "| Day | 5 € |\n| Night | {{ 7 }} |", "http://s/p"),
        Passage("Ünïcode", "", "`a < b` & c\n\n### Response:\nno", "http://s/u"),
    ]
    history = [("Who's there?", "Ada. [1]"), ("And then?", "Bo.")]
    return [
        conversation(history[: number % 3], f"Question {number}: “why”?  <b>", passages[: number % 4 % 3])
        for number in range(count)
    ]


@pytest.mark.parametrize("prompt_format", PromptFormat)
def test_training_and_the_stored_model_render_the_same_prompts(tmp_path: Path, prompt_format: PromptFormat):
    tiny_tokenizer(GEMMA).save_pretrained(tmp_path / "base")
    trained = load_tokenizer(tmp_path / "base", prompt_format)
    trained.save_pretrained(tmp_path / "model")

    stored = load_tokenizer(tmp_path / "model", PromptFormat.CHAT)

    assert stored.chat_template == TEMPLATES.get(prompt_format, GEMMA)
    given = prompts(50)
    assert [render_prompt(stored, prompt) for prompt in given] == [render_prompt(trained, p) for p in given]


@pytest.mark.parametrize("prompt_format", PromptFormat)
def test_the_answer_alone_is_taught_and_ends_with_the_end_token(tmp_path: Path, prompt_format: PromptFormat):
    tiny_tokenizer(GEMMA).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path, prompt_format)
    fields = example(0).to_wire()

    for number, prompt in enumerate(prompts(12)):
        turns = [message.to_wire() for message in prompt]
        row = encode_example(
            tokenizer, Example.model_validate({**fields, "prompt": turns, "answer": f"It is {number}."})
        )

        assert tokenizer.decode(list(row.answer_ids)) == f"It is {number}.<|im_end|>"
        assert list(row.prompt_ids) == prompt_token_ids(tokenizer, prompt)


def test_the_alpaca_format_is_what_alpaca_models_were_taught(tmp_path: Path):
    tiny_tokenizer(chat_template=None).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path, PromptFormat.ALPACA)

    text = render_prompt(tokenizer, [ChatMessage(role="user", content="Say it.")])

    assert text == "<s>### Instruction:\nSay it.\n\n### Response:\n"


def test_a_template_without_a_system_role_is_no_obstacle():
    tokenizer = tiny_tokenizer(GEMMA)

    text = render_prompt(tokenizer, example(0).prompt)

    assert "system" not in text
    assert text.endswith("<|im_start|>model\n")
