"""What is nearly the same: documents that tell the same story, and questions in nearly the same words.

Documents are compared by MinHash, because there are many long ones. Questions are compared only with those that have
the same sources and the same answer: these are few, and their likeness is computed exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import compress

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from finetune_contract.artifacts import Document, Example
from finetune_contract.sections import without_addresses
from finetune_trainer.dataset.examples.phrasing import normalised

SHINGLE_WORDS = 5
SHINGLE_CHARACTERS = 5
SAME_DOCUMENT = 0.7
"""Share of the shingles of both documents that they have in common."""
SAME_QUESTION = 0.8
PERMUTATIONS = 128
BANDS, BAND = 21, 6
"""Two documents are compared when they agree in one of so many bands of so many hashes. Of pairs that have 0.7 of their
shingles in common 93 of 100 do, of those with 0.8 all but two of 1,000."""
_WORD = re.compile(r"\w+")


def document_clusters(documents: Sequence[Document]) -> list[list[int]]:
    """Indexes of documents with their near-duplicates, in the order of the first of each; most stand alone."""
    hashes = np.empty((len(documents), PERMUTATIONS), np.uint32)
    for place, document in enumerate(documents):
        hashes[place] = _min_hash(document.post_content)
    leader = list(range(len(documents)))

    def find(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    for start in range(0, BANDS * BAND, BAND):
        for places in _with_equal_rows(hashes[:, start : start + BAND]):
            for number, first in enumerate(places[:-1]):
                others = places[number + 1 :]
                if all(find(other) == find(first) for other in others):
                    break  # as with many copies of one document
                shared = np.mean(hashes[others] == hashes[first], axis=1)
                for other in compress(others, shared >= SAME_DOCUMENT):
                    one, two = sorted((find(first), find(other)))
                    leader[two] = one
    clusters: dict[int, list[int]] = {}
    for place in range(len(documents)):
        clusters.setdefault(find(place), []).append(place)
    return list(clusters.values())


def _with_equal_rows(rows: NDArray[np.uint32]) -> Iterator[list[int]]:
    """Places that have the same row, in their order, where there are several."""
    order = np.lexsort(rows.T)
    ends = np.flatnonzero((rows[order[1:]] != rows[order[:-1]]).any(axis=1)) + 1
    yield from (places.tolist() for places in np.split(order, ends) if len(places) > 1)


def what_is_asked_about(row: Example) -> tuple[str, str, str]:
    """Its document, its answer, and what stands before its question: only with equal ones is a question compared."""
    whole = "\n".join(message.content for message in row.prompt)
    return row.document_url, row.answer, whole.removesuffix(row.question)


def are_nearly_the_same(question: str, other: str) -> bool:
    """Whether two questions are asked in nearly the same words."""
    own, others = _shingles(question), _shingles(other)
    return len(own & others) >= SAME_QUESTION * len(own | others)


@lru_cache(maxsize=1024)
def _shingles(question: str) -> frozenset[str]:
    text = normalised(question)
    places = range(max(1, len(text) - SHINGLE_CHARACTERS + 1))
    return frozenset(text[place : place + SHINGLE_CHARACTERS] for place in places)


def _min_hash(text: str) -> NDArray[np.uint32]:
    words = _WORD.findall(without_addresses(text).lower())
    places = range(max(1, len(words) - SHINGLE_WORDS + 1))
    shingles = {" ".join(words[place : place + SHINGLE_WORDS]) for place in places}
    found = MinHash(num_perm=PERMUTATIONS)
    found.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return np.asarray(found.hashvalues, np.uint32)
