from __future__ import annotations

from pathlib import Path

import pytest

from finetune_contract.run_spec import PromptFormat
from finetune_trainer.errors import BaseModelRejected
from finetune_trainer.training.encoding import encode_example, encode_rows, load_tokenizer, prompt_token_ids
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

    with pytest.raises(BaseModelRejected, match=r"no chat template.*promptFormat: question-answer"):
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
