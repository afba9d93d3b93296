"""Proof that a prompt becomes the tokens that were trained, in the saved folder and in the model server itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_contract.artifacts import ChatMessage
from finetune_contract.prompt import user_message
from finetune_contract.sections import Passage
from finetune_trainer.errors import BaseModelRejected
from finetune_trainer.packaging.llama_cpp import ServedModel
from finetune_trainer.training.encoding import prompt_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TABLE = Passage("Prices", "Day ticket", "| Day | 5 € |\n| Night | 7 € |", "")
_CODE = Passage("Göteborg – 日本", "  Indented", "```\nif x <= 3:\n\treturn  'é'\n```\n\n\n😀 end", "")
_TURN = [ChatMessage(role="user", content=user_message("What does “a day” cost – 5 €?", [_TABLE, _CODE]))]
SAMPLES: tuple[list[ChatMessage], ...] = (
    [ChatMessage(role="user", content=user_message("When is it open?"))],
    _TURN,
    [
        *_TURN,
        ChatMessage(role="assistant", content="5 €. [1]"),
        ChatMessage(role="user", content=user_message("And at night?")),
    ],
)
"""Without and with passages, with what tokenizers differ about, and with an earlier turn."""


def check_parity(
    trained: PreTrainedTokenizerBase,
    saved_folder: Path,
    server: ServedModel,
    prompts: Iterable[Sequence[ChatMessage]] = (),
) -> int:
    """Compare token ids between training, the saved folder and the server with the GGUF file; the prompts compared.

    Raises:
        BaseModelRejected: they differ; the model would be asked in a form that it was not taught.
    """
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(saved_folder, local_files_only=True)
    count = 0
    for prompt in (*SAMPLES, *prompts):
        expected = prompt_token_ids(trained, prompt)
        if not saved.chat_template:
            raise BaseModelRejected("spec.baseModel.uri: the saved tokenizer has no chat template")
        _compare(trained, expected, prompt_token_ids(saved, prompt), "the saved tokenizer")
        _compare(trained, expected, server.prompt_token_ids(prompt), "the model server")
        count += 1
    return count


def _compare(
    tokenizer: PreTrainedTokenizerBase, expected: Sequence[int], found: Sequence[int], place: str
) -> None:
    if list(expected) == list(found):
        return
    where = next(n for n, (left, right) in enumerate(zip_longest(expected, found)) if left != right)
    words = [repr(tokenizer.decode(list(ids[max(0, where - 2) : where + 4]))) for ids in (expected, found)]
    raise BaseModelRejected(
        f"spec.baseModel.uri: {place} makes other tokens of a prompt than training did, from token {where} on: "
        f"{words[1]} where {words[0]} was taught; set spec.dataset.promptFormat: question-answer, or take another model"
    )
