"""The documents as the example kinds see them: passages that can be searched, and facts that can be asked for. Pure."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_contract.artifacts import Document
from finetune_contract.prompt import MAX_PASSAGE_WORDS, MAX_PASSAGES
from finetune_contract.sections import (
    Passage,
    PassageIndex,
    content_words,
    shorten,
    split_sections,
    without_links,
)
from finetune_trainer.dataset.examples.answers import answer_sentence
from finetune_trainer.dataset.examples.phrasing import Phrasing, phrasings
from finetune_trainer.dataset.examples.written_pair import WrittenPair

_LOWER_WORD = re.compile(r"\b[a-z][a-z'’-]+\b")
_NAME_INSIDE = re.compile(r"(?<=[a-z,;] )[A-Z][\w'’-]*")
_THE_NOUN = re.compile(r"\b[Tt]he ([a-z]{3,})\b")
_SOMETHING_OF = re.compile(r"[a-z]+ of ")
_ARTICLES = frozenset({"a", "an", "the"})
MIN_SITE_NOUN_COUNT = 8


@dataclass(frozen=True)
class Fact:
    """A section with a sentence in it that answers the question its heading asks."""

    document: Document
    passage: Passage
    answer: str
    """One or two sentences of the section, word for word."""


class Corpus:
    """All passages of all documents, in the order of the documents."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = tuple(documents)
        passages: list[Passage] = []
        facts: list[Fact] = []
        for document in documents:
            sections = split_sections(document.post_content)
            has_headings = any(section.heading for section in sections)
            for section in sections:
                passage = Passage(document.post_title, section.heading, section.text, document.post_url)
                passages.append(passage)
                if has_headings and not section.heading:
                    continue  # an opening paragraph says hello; the facts follow
                if answer := answer_sentence(section.heading or document.post_title, section.text):
                    facts.append(Fact(document, passage, answer))
        self.passages = tuple(passages)
        self.written: tuple[WrittenPair, ...] = ()
        """What a language model wrote about the passages; empty without a generator."""
        self.facts = tuple(facts)
        self._facts_by_passage = {fact.passage: fact for fact in facts}
        self._index = PassageIndex(passages)
        texts = [document.post_content for document in documents]
        self._lower_words = Counter(word for text in texts for word in _LOWER_WORD.findall(text))
        self._names = Counter(word for text in texts for word in _NAME_INSIDE.findall(text))
        self._passage_words = [frozenset(content_words(f"{p.title} {p.heading} {p.text}")) for p in passages]
        nouns = Counter(noun for text in texts for noun in _THE_NOUN.findall(text) if content_words(noun))
        noun, count = min(nouns.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
        self.site_noun = noun if count >= MIN_SITE_NOUN_COUNT else "site"
        """What the site speaks of most, such as `mill`; for questions about what it does not have."""

    def with_written(self, pairs: Sequence[WrittenPair]) -> Corpus:
        """The same corpus with pairs that were written about it."""
        other = copy.copy(self)
        other.written = tuple(pairs)
        return other

    def search(self, question: str, limit: int) -> list[Passage]:
        """What readers would be given for this question."""
        return [passage for passage, _ in self._index.rank(question, limit)]

    def with_distractor(self, question: str, oracle: Passage) -> list[Passage]:
        """The oracle and the next best passage; empty when search would not show the oracle for this question."""
        found = self.search(question, MAX_PASSAGES)
        return found if oracle in found else []

    def fact_in(self, passage: Passage) -> Fact | None:
        """The fact of a passage, if it has one."""
        return self._facts_by_passage.get(passage)

    def shows(self, fact: Fact) -> bool:
        """Whether the answer is among the words of its section that a prompt has room for."""
        shown = " ".join(shorten(without_links(fact.passage.text), MAX_PASSAGE_WORDS).split())
        return fact.answer.rstrip(".") in shown

    def holds(self, words: str) -> bool:
        """Whether some passage has all content words of a phrase."""
        wanted = frozenset(content_words(words))
        return any(wanted <= known for known in self._passage_words)

    def ways_to_ask(self, fact: Fact) -> list[Phrasing]:
        """Phrasings for a fact, by the heading of its section."""
        passage = fact.passage
        return phrasings(
            passage.heading or passage.title, lambda heading: self.as_topic(heading, passage.text)
        )

    def lower_first(self, title: str) -> str:
        """A title as it stands inside a sentence: its first word is lowered unless it is a name."""
        first, space, rest = title.partition(" ")
        looks_like_a_name = first[1:] != first[1:].lower() or (
            rest[:1].isupper() and first.lower() not in _ARTICLES
        )
        stands_as_a_name = self._names[first] > self._lower_words[first.lower()]
        if stands_as_a_name or first == "I" or (looks_like_a_name and not first.endswith("ing")):
            return title
        return first.lower() + space + rest

    def as_topic(self, heading: str, text: str) -> str:
        """A heading as the thing that a question is about, with `the` where the text says so."""
        topic = self.lower_first(heading)
        article = re.search(rf"\bthe {re.escape(topic)}\b", text, re.I) or _SOMETHING_OF.match(topic)
        return f"the {topic}" if article else topic
