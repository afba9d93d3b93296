"""Proof that the served file renders a prompt to the tokens that were trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finetune_contract.artifacts import ChatMessage
from finetune_contract.prompt import user_message
from finetune_contract.sections import Passage
from finetune_trainer.errors import BaseModelRejected
from finetune_trainer.training.encoding import prompt_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLES = (
    user_message("When is it open?"),
    user_message(
        "What does “a day” cost – 5 €?",
        [Passage("Prices", "Day ticket", "| Day | 5 € |\n| Night | 7 € |", "")],
    ),
)


def check_parity(trained: PreTrainedTokenizerBase, saved_folder: Path, gguf_template: str) -> None:
    """Compare the token ids of sample prompts between training, the saved folder and the GGUF file.

    Raises:
        BaseModelRejected: they differ; the model would be asked in a form that it was not taught.
    """
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(saved_folder, local_files_only=True)
    served = AutoTokenizer.from_pretrained(saved_folder, local_files_only=True)
    served.chat_template = gguf_template
    for text in _SAMPLES:
        prompt = [ChatMessage(role="user", content=text)]
        expected = prompt_token_ids(trained, prompt)
        for place, tokenizer in (("the saved tokenizer", saved), ("the GGUF file", served)):
            if not tokenizer.chat_template or prompt_token_ids(tokenizer, prompt) != expected:
                raise BaseModelRejected(
                    f"spec.baseModel.uri: the chat template in {place} renders a prompt to other tokens than training "
                    "did; set spec.dataset.promptFormat: question-answer"
                )
