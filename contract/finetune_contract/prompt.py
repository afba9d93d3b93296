"""The one place where a question becomes the text that a model sees; training, evaluation and chat share it.

There is no system turn: the instruction leads the first user turn, so that templates without a system role
(Gemma) work like all others. Links are never written by the model: it cites `[n]` and code makes the link.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from finetune_contract.artifacts import ChatMessage
from finetune_contract.run_spec import PromptFormat
from finetune_contract.sections import Passage, shorten, without_links

PROMPT_VERSION = "1"
REFUSAL = "I could not find that on this site."
"""What is said, word for word, when the site does not know."""
INSTRUCTION = f'Answer briefly from the sources and cite them as [1]. If they do not say, answer "{REFUSAL}"'
INSTRUCTION_WITHOUT_SOURCES = f'Answer briefly. If you do not know, answer "{REFUSAL}"'
MAX_PASSAGES = 2
MAX_PASSAGE_WORDS = 70

QUESTION_ANSWER_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}question: {{ message['content'] }}\n"
    "{% else %}answer: {{ message['content'] }}{{ eos_token }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}answer: {% endif %}"
)
"""Chat template given to base models that have none (PromptFormat.QUESTION_ANSWER)."""

ALPACA_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}### Instruction:\n{{ message['content'] }}\n\n"
    "{% else %}### Response:\n{{ message['content'] }}{{ eos_token }}\n\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
"""The form of the Alpaca models, also for base models (PromptFormat.ALPACA)."""

TEMPLATES: Mapping[PromptFormat, str] = {
    PromptFormat.ALPACA: ALPACA_TEMPLATE,
    PromptFormat.QUESTION_ANSWER: QUESTION_ANSWER_TEMPLATE,
}
"""Formats that bring their own chat template; it is stored with the model, and whoever serves it reads it there."""

HISTORY_TURNS = 2
"""Earlier turns that a model is shown."""
MAX_HISTORY_CHARACTERS = 600
"""Of each question and answer of an earlier turn."""

CITATION = re.compile(r"\s?\[(\d{1,2})\]")


def user_message(question: str, passages: Sequence[Passage] = ()) -> str:
    """The user's turn: instruction, numbered sources, question last so that a prefix cache helps."""
    question = " ".join(question.split())
    if not passages:
        return f"{INSTRUCTION_WITHOUT_SOURCES}\n\nQuestion: {question}"
    sources = "\n".join(
        f"[{number}] {_label(passage)}\n{_shown(passage.text)}"
        for number, passage in enumerate(passages[:MAX_PASSAGES], start=1)
    )
    return f"{INSTRUCTION}\n\n{sources}\n\nQuestion: {question}"


def conversation(
    history: Sequence[tuple[str, str]], question: str, passages: Sequence[Passage] = ()
) -> list[ChatMessage]:
    """All turns that a model sees: the last ones as they were, then the question with its sources.

    Args:
        history: earlier questions and answers, oldest first.
        question: what is asked now.
        passages: what was found for it.
    """
    messages: list[ChatMessage] = []
    for asked, answered in history[-HISTORY_TURNS:]:
        messages.append(ChatMessage(role="user", content=asked[:MAX_HISTORY_CHARACTERS]))
        messages.append(ChatMessage(role="assistant", content=answered[:MAX_HISTORY_CHARACTERS]))
    messages.append(ChatMessage(role="user", content=user_message(question, passages)))
    return messages


def is_refusal(answer: str) -> bool:
    """Whether an answer says that the site does not know."""
    return REFUSAL.rstrip(".").lower() in " ".join(answer.split()).lower()


def cited_numbers(answer: str) -> list[int]:
    """Numbers of the cited sources, in order of first mention."""
    return list(dict.fromkeys(int(number) for number in CITATION.findall(answer)))


@lru_cache(maxsize=4096)
def _shown(text: str) -> str:
    """As much of a passage as a prompt has room for; a passage is shown for many questions."""
    return shorten(without_links(text), MAX_PASSAGE_WORDS)


def _label(passage: Passage) -> str:
    return f"{passage.title}: {passage.heading}" if passage.heading else passage.title
