"""From an example to token ids: the model's own chat template, the answer taught up to the token that ends the turn.

Must not know torch; evaluation and packaging render prompts with the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_contract.artifacts import ChatMessage, Example
from finetune_contract.prompt import TEMPLATES
from finetune_contract.run_spec import PromptFormat
from finetune_trainer.errors import BaseModelRejected

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EncodedExample:
    """One row as token ids; `answer_ids` ends with the token that ends the turn."""

    id: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt, then answer."""
        return self.prompt_ids + self.answer_ids

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


@dataclass(frozen=True)
class EncodedRows:
    """The rows that can be taught whole, and the ids of the others."""

    rows: tuple[EncodedExample, ...]
    too_long: tuple[str, ...]
    """Longer than the limit."""
    broken_off: tuple[str, ...] = ()
    """With a token in the answer that ends a turn, such as `</s>` on a page about HTML: it would be learnt half."""


def load_tokenizer(folder: Path, prompt_format: PromptFormat) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder with the chat template of the format.

    Raises:
        BaseModelRejected: it cannot be read, or has no chat template and the format is `chat`.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelRejected(
            f"spec.baseModel.uri: the tokenizer in {folder.name} cannot be read ({error}); "
            "the folder needs tokenizer.json or tokenizer.model, and tokenizer_config.json"
        ) from error
    if prompt_format in TEMPLATES:
        tokenizer.chat_template = TEMPLATES[prompt_format]
    elif not tokenizer.chat_template:
        raise BaseModelRejected(
            "spec.baseModel.uri: the model has no chat template; take its instruction-tuned form, "
            "or set spec.dataset.promptFormat: question-answer or alpaca"
        )
    return tokenizer


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[ChatMessage]) -> str:
    """The text before the answer, with the words that open the assistant's turn."""
    text = tokenizer.apply_chat_template(_turns(prompt), tokenize=False, add_generation_prompt=True)
    return str(text)


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[ChatMessage]) -> list[int]:
    """The same as token ids; the template writes the special tokens, the tokenizer adds none."""
    return list(tokenizer(render_prompt(tokenizer, prompt), add_special_tokens=False)["input_ids"])


def turn_end_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Special tokens, any of which may end a turn."""
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(special | set(tokenizer.all_special_ids))


def encode_example(tokenizer: PreTrainedTokenizerBase, example: Example) -> EncodedExample:
    """Tokens of prompt and answer. Cut where a server's prompt ends, so that it meets the same tokens.

    The answer keeps the first special token after its text and drops what the template adds behind; a template that
    writes none gets the tokenizer's end-of-sequence token.
    """
    prompt_text = render_prompt(tokenizer, example.prompt)
    turns = [*_turns(example.prompt), {"role": "assistant", "content": example.answer}]
    full_text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    if not full_text.startswith(prompt_text):
        raise BaseModelRejected(
            "spec.baseModel.uri: the chat template renders the prompt differently once an answer follows; "
            "set spec.dataset.promptFormat: question-answer"
        )
    prompt_ids = list(tokenizer(prompt_text, add_special_tokens=False)["input_ids"])
    full_ids = list(tokenizer(full_text, add_special_tokens=False)["input_ids"])
    if full_ids[: len(prompt_ids)] == prompt_ids:
        answer_ids = full_ids[len(prompt_ids) :]
    else:
        answer_ids = list(tokenizer(full_text[len(prompt_text) :], add_special_tokens=False)["input_ids"])
    ends = turn_end_ids(tokenizer)
    end = next((place for place, token in enumerate(answer_ids) if token in ends), None)
    if end is not None:
        answer_ids = answer_ids[: end + 1]
    elif tokenizer.eos_token_id is not None:
        answer_ids.append(int(tokenizer.eos_token_id))
    else:
        raise BaseModelRejected(
            "spec.baseModel.uri: neither chat template nor tokenizer has a token that ends an answer, and the model "
            "would never stop; name its eos_token in tokenizer_config.json"
        )
    return EncodedExample(example.id, tuple(prompt_ids), tuple(answer_ids))


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example], sequence_length: int
) -> EncodedRows:
    """All examples in order; those longer than `sequence_length` tokens are named, never cut."""
    rows: list[EncodedExample] = []
    too_long: list[str] = []
    broken_off: list[str] = []
    ends = [str(tokenizer.convert_ids_to_tokens(token)) for token in turn_end_ids(tokenizer)]
    for example in examples:
        if any(end and end in example.answer for end in ends):
            broken_off.append(example.id)
            continue
        row = encode_example(tokenizer, example)
        if len(row) > sequence_length:
            too_long.append(example.id)
        else:
            rows.append(row)
    return EncodedRows(tuple(rows), tuple(too_long), tuple(broken_off))


def _turns(prompt: Sequence[ChatMessage]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt]
