"""The documents as the example kinds see them: passages that can be searched, and facts that can be asked for. Pure."""

from __future__ import annotations

import copy
import re
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from finetune_contract.artifacts import Document
from finetune_contract.prompt import CITATION, MAX_PASSAGE_WORDS, MAX_PASSAGES
from finetune_contract.sections import (
    Passage,
    content_words,
    leans_on_previous,
    shorten,
    split_sections,
    without_addresses,
    without_links,
)
from finetune_trainer.dataset.examples.answers import answer_sentence
from finetune_trainer.dataset.examples.passage_search import PassageSearch
from finetune_trainer.dataset.examples.passages_on_disk import Fact, Facts, FactsByPassage, PassagesOnDisk
from finetune_trainer.dataset.examples.phrasing import Phrasing, normalised, phrasings
from finetune_trainer.dataset.examples.places import Places
from finetune_trainer.dataset.examples.sentence_questions import asked_of_sentence
from finetune_trainer.dataset.examples.written_pair import WrittenPair
from finetune_trainer.dataset.on_disk import Chosen

_LOWER_WORD = re.compile(r"\b[a-z][a-z'’-]+\b")
_NAME_INSIDE = re.compile(r"(?<=[a-z,;] )[A-Z][\w'’-]*")
_THE_NOUN = re.compile(r"\b[Tt]he ([a-z]{3,})\b")
_SOMETHING_OF = re.compile(r"[a-z]+ of ")
NUMBERING = re.compile(
    r"^(?:\d{1,2}[.)]|[-–—•]|(?:Step|Part|Tip|Day|Phase|Exercise|Lesson|Rule|Chapter|Fact|Assumption)"
    r"(?: (?:\d{1,2}|one|two|three|four|five|six))?[:.,]) +(?=\w)"
)
_ASKS_ITSELF = re.compile(r"^(?:What|Why|How|Where|Which|Who|When|If) ")
_SENTENCE = re.compile(
    r"\b(?:is|are|was|were|be|isn|aren|we|you|they|it|don|can|will|should|must|has|have|had|did|does|do"
    r"|makes|made|takes|took|helps|gets|got|gives|gave|goes|went|brings|brought|wins|won|keeps|kept|led|matters|becomes"
    r"|became|begins|began|comes|came|says|said|announces|joins|needs|wants|knows|knew|lets|thinks|cannot|could|would|may"
    r"|might)\b|[’'](?:re|ll|ve|t)\b|\b(?:[Ii]t|[Tt]hat|[Hh]ere|[Tt]here)[’']s\b"
    r"|^(?:We|You|They|It|I|Be|Don’t|Don't|Add|Ask|Avoid|Build|Capture|Check|Choose|Commit"
    r"|Consider|Create|Define|Document|Find|Follow|Get|Give|Go|Help"
    r"|Include|Join|Keep|Know|Learn|Let|Look|Make|Optimize|Plan|Prepare|Provide|Put|Read|Remember|Run|Set|Share|Show"
    r"|Start|Stay|Take|Talk|Test|Think|Try|Understand|Say|Draw|Tell|Transform|Embrace|Encourage|Explore|Identify|Invite"
    r"|Update|Use(?! of)|Work|Write) "
)
"""A heading that says or bids something rather than name a thing."""
UNTITLED = "Untitled"
"""Title of a document that its site gave none: nobody asks for it by this name."""
MAX_TOPIC_WORDS = 8
_SAID = re.compile(r"[.!…][\"'”’)*`_]*$")
"""A sentence comes to an end; a caption does not."""
_LEADS_ELSEWHERE = re.compile(rf"://|{CITATION.pattern}")
"""The model never writes links, and `[1]` is the first source of a prompt, not a note of the page."""
_ARTICLES = frozenset({"a", "an", "the"})
MIN_SITE_NOUN_COUNT = 8
MIN_SITE_NOUN_SHARE = 0.25
_NO_NOUNS = frozenset(
    {"first", "last", "next", "same", "other", "new", "best", "most", "right", "following", "way"}
)
MIN_SCORE = 0.35
"""What a chat asks of the best passage before it reads a question together with the one before."""
SEARCH_DEPTH = MAX_PASSAGES + 8
"""Passages that are remembered of each search; no kind asks for more."""
MOST_SEARCHES = 32_768
"""Remembered at once, some 300 bytes each; a large site is searched a second time rather than held in memory."""
MOST_FACTS = 2_048
"""Whose wordings are remembered at once, some 3 KB each."""


def can_be_named(document: Document) -> bool:
    """Whether a question or an answer can put the document's title in quotation marks."""
    return document.post_title != UNTITLED and not {"“", "”"} & set(document.post_title)


class Corpus:
    """All passages of all documents, in the order of the documents."""

    def __init__(self, documents: Sequence[Document], folder: Path | None = None) -> None:
        """The documents may lie on disk; their passages do, in `folder` or the system's own."""
        self.site_documents = documents
        """All of the site, also those that this corpus does not teach: for what is said of the site as a whole."""
        self.places = Places(documents)
        self.written: tuple[WrittenPair, ...] = ()
        """What a language model wrote about the passages; empty without a generator."""
        self._site = PassagesOnDisk(folder)
        facts = array("I")
        for document in documents:
            sections = split_sections(document.post_content)
            has_headings = any(section.heading for section in sections)
            for section in sections:
                passage = Passage(document.post_title, section.heading, section.text, document.post_url)
                answer = _answer(passage, has_headings)
                number = self._site.add(passage, answer)
                if answer:
                    facts.append(number)
        self._hold(documents, range(len(self._site)), facts)

    def _hold(self, documents: Sequence[Document], passages: Iterable[int], facts: Iterable[int]) -> None:
        """Make these passages searchable, by their numbers, and learn from the documents how their words are used."""
        self.documents = documents
        self._numbers = array("I", passages)
        self.passages: Sequence[Passage] = Chosen(self._site, self._numbers)
        self.facts = Facts(self._site, facts)
        self._fact_of = FactsByPassage(self._site, self.facts)
        self._search = PassageSearch(self.passages)
        self._lower_words: Counter[str] = Counter()
        self._names: Counter[str] = Counter()
        nouns = _Nouns()
        for document in documents:
            text = without_addresses(document.post_content)
            self._lower_words.update(_LOWER_WORD.findall(text))
            self._names.update(_NAME_INSIDE.findall(text))
            nouns.read(text)
        self.site_noun = nouns.of_the_site()
        """What the site speaks of most, such as `mill`; for questions about what it does not have."""
        self._found: dict[str, Sequence[int]] = {}
        self._ways: dict[int, tuple[Phrasing, ...]] = {}
        self._shown: dict[int, bool] = {}

    def forget(self) -> None:
        """Let go of what was indexed, found and worded so far; it is made again when it is asked for."""
        self._search.forget()
        for remembered in (self._found, self._ways, self._shown):
            remembered.clear()

    def with_written(self, pairs: Sequence[WrittenPair]) -> Corpus:
        """The same corpus with pairs that were written about it."""
        other = copy.copy(self)
        other.written = tuple(pairs)
        return other

    def without(self, urls: Collection[str]) -> Corpus:
        """A corpus that holds nothing of these documents, but knows of them."""
        other = copy.copy(self)
        other._hold(
            self._documents_where(lambda url: url not in urls),
            (number for number in self._numbers if self._site[number].url not in urls),
            (fact.number for fact in self.facts if fact.url not in urls),
        )
        return other.with_written([pair for pair in self.written if pair.passage.url not in urls])

    def about(self, urls: Collection[str]) -> Corpus:
        """The same search and the same passages, with the facts of these documents alone."""
        other = copy.copy(self)
        other.documents = self._documents_where(lambda url: url in urls)
        other.facts = Facts(self._site, (fact.number for fact in self.facts if fact.url in urls))
        return other.with_written([pair for pair in self.written if pair.passage.url in urls])

    def _documents_where(self, is_wanted: Callable[[str], bool]) -> Sequence[Document]:
        urls = (document.post_url for document in self.documents)
        return Chosen(self.documents, [place for place, url in enumerate(urls) if is_wanted(url)])

    def search(self, question: str, limit: int) -> list[Passage]:
        """What readers would be given for this question."""
        return self._passages_at(self._places_for(question)[:limit])

    def search_after(self, previous: str, question: str, limit: int) -> list[Passage]:
        """What readers would be given for this question after another one."""
        own = _searched(question)
        if not leans_on_previous(question) or not own:
            return self.search(question, limit)
        together = f"{previous} {question}"
        words = f"{_searched(together)}, {own}"
        found = self._remembered(words, lambda: self._found_together(together, question))
        return self._passages_at(found[:limit]) or self.search(question, limit)

    def _places_for(self, question: str) -> Sequence[int]:
        return self._remembered(_searched(question), lambda: self._search.best(question, SEARCH_DEPTH))

    def _found_together(self, together: str, question: str) -> list[int]:
        ranked = self._search.best_after(together, question, SEARCH_DEPTH)
        fits = bool(ranked) and ranked[0][1] >= MIN_SCORE
        return [place for place, _ in ranked] if fits else []

    def _remembered(self, words: str, search: Callable[[], list[int]]) -> Sequence[int]:
        """Phrasings of one question have the same words that carry meaning, and so the same passages."""
        if (found := self._found.get(words)) is None:
            _make_room(self._found, MOST_SEARCHES)
            found = self._found[words] = array("I", search())
        return found

    def _passages_at(self, places: Sequence[int]) -> list[Passage]:
        numbers = self._numbers
        return self._site.of_numbers([numbers[place] for place in places])

    def with_distractor(self, question: str, oracle: Passage) -> list[Passage]:
        """The oracle and the next best passage; empty when search would not show the oracle for this question."""
        found = self.search(question, MAX_PASSAGES)
        return found if oracle in found else []

    def fact_in(self, passage: Passage) -> Fact | None:
        """The fact of a passage, if it has one."""
        return self._fact_of.get(passage)

    def facts_beyond(self, question: str, shown: int) -> Iterator[Fact]:
        """The facts of the passages that come after the first ones for a question, read one at a time."""
        for place in self._places_for(question)[shown:]:
            if (fact := self.fact_in(self.passages[place])) is not None:
                yield fact

    def shows(self, fact: Fact) -> bool:
        """Whether the answer is among the words of its section that a prompt has room for."""
        shown = self._shown.get(fact.number)
        if shown is None:
            _make_room(self._shown, MOST_FACTS)
            text = shorten(without_links(fact.passage.text), MAX_PASSAGE_WORDS)
            shown = self._shown[fact.number] = fact.answer.rstrip(".") in " ".join(text.split())
        return shown

    def holds(self, words: str) -> bool:
        """Whether some passage has all content words of a phrase."""
        return self._search.any_has_all(frozenset(content_words(words)))

    def is_told_apart_by(self, topic: str, url: str) -> bool:
        """Whether a topic says which document is meant: no other has a section with all its words. `Conclusion` does
        not, and a question about it has a hundred answers."""
        wanted = frozenset(content_words(topic))
        return bool(wanted) and not any(
            self._search.has_all(place, wanted) and self.passages[place].url != url
            for place in self._places_for(topic)
        )

    def ways_to_ask(self, fact: Fact) -> list[Phrasing]:
        """Phrasings for a fact, by the heading of its section and by the sentence that answers."""
        ways = self._ways.get(fact.number)
        if ways is None:
            passage = fact.passage
            found = phrasings(
                NUMBERING.sub("", passage.heading or passage.title),
                lambda heading: self.as_topic(heading, passage.text),
            )
            known = {normalised(phrasing.question) for phrasing in found}
            made = asked_of_sentence(fact.answer, self.inside_sentence)
            _make_room(self._ways, MOST_FACTS)
            ways = (*found, *(way for way in made if normalised(way.question) not in known))
            self._ways[fact.number] = ways
        return list(ways)

    def inside_sentence(self, subject: str) -> str:
        """What begins a sentence, as it stands inside one: lowered only if the texts have it in small letters."""
        first, space, rest = subject.partition(" ")
        is_common = self._lower_words[first.lower()] > self._names[first]
        return first.lower() + space + rest if is_common or first.lower() in _ARTICLES else subject

    def lower_first(self, title: str) -> str:
        """A title as it stands inside a sentence: its first word is lowered unless it is a name."""
        first, space, rest = title.partition(" ")
        if _ASKS_ITSELF.match(title) or (first in ("A", "An") and rest[:1].islower()):
            return first.lower() + space + rest
        looks_like_a_name = first[1:] != first[1:].lower() or (
            rest[:1].isupper() and first.lower() not in _ARTICLES
        )
        stands_as_a_name = self._names[first] > self._lower_words[first.lower()]
        if stands_as_a_name or first == "I" or (looks_like_a_name and not first.endswith("ing")):
            return title
        return first.lower() + space + rest

    def as_topic(self, heading: str, text: str) -> str:
        """A heading as the thing that a question is about, with `the` where the text says so; a sentence is quoted."""
        heading = NUMBERING.sub("", heading)
        if not _ASKS_ITSELF.match(heading) and (
            _SENTENCE.search(heading) or len(heading.split()) > MAX_TOPIC_WORDS
        ):
            return f"“{heading}”"
        topic = self.lower_first(heading)
        if "." in topic:
            return topic  # an address or a file takes no article
        return f"the {topic}" if _SOMETHING_OF.match(topic) or _takes_the(topic, text) else topic


def _answer(passage: Passage, has_headings: bool) -> str:
    """What a passage says in answer to its heading, in a document that has headings or has none; empty for nothing."""
    if has_headings and not passage.heading:
        return ""  # an opening paragraph says hello; the facts follow
    if not passage.heading and passage.title == UNTITLED:
        return ""
    answer = answer_sentence(passage.heading or passage.title, passage.text)
    return answer if _SAID.search(answer) and not _LEADS_ELSEWHERE.search(answer) else ""


def _searched(question: str) -> str:
    """The words of a question that decide what is found."""
    return " ".join(sorted(set(content_words(question))))


def _make_room(remembered: dict[Any, Any], most: int) -> None:
    """Begin anew where no more may be remembered."""
    if len(remembered) >= most:
        remembered.clear()


@lru_cache(maxsize=1024)
def _takes_the(topic: str, text: str) -> bool:
    return re.search(rf"\bthe {re.escape(topic)}\b", text, re.I) is not None


class _Nouns:
    """What the documents speak of as `the ...`."""

    def __init__(self) -> None:
        self._texts = 0
        self._said: Counter[str] = Counter()
        self._speaking: Counter[str] = Counter()
        """Documents that say it."""

    def read(self, text: str) -> None:
        """One more document."""
        nouns = [noun for noun in _THE_NOUN.findall(text) if content_words(noun)]
        self._texts += 1
        self._said.update(nouns)
        self._speaking.update(set(nouns))

    def of_the_site(self) -> str:
        """The noun that is said most, if a good part of the documents say it."""
        noun, count = min(self._said.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
        known = count >= MIN_SITE_NOUN_COUNT and self._speaking[noun] >= MIN_SITE_NOUN_SHARE * self._texts
        return noun if known and noun not in _NO_NOUNS else "site"
