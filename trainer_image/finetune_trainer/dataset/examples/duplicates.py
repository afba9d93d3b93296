"""What is nearly the same: documents that tell the same story, and questions in nearly the same words.

Documents are compared by MinHash, because there are many long ones. Questions are compared only with those that have
the same sources and the same answer: these are few, and their likeness is computed exactly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from datasketch import MinHash, MinHashLSH

from finetune_contract.artifacts import Document, Example
from finetune_contract.sections import without_addresses
from finetune_trainer.dataset.examples.phrasing import normalised

SHINGLE_WORDS = 5
SHINGLE_CHARACTERS = 5
SAME_DOCUMENT = 0.7
"""Share of the shingles of both documents that they have in common."""
SAME_QUESTION = 0.8
PERMUTATIONS = 128
_CANDIDATE = 0.55
"""The index finds pairs from here on, so that it misses none that counts."""
_WORD = re.compile(r"\w+")


def document_clusters(documents: Sequence[Document]) -> list[list[int]]:
    """Indexes of documents with their near-duplicates, in the order of the first of each; most stand alone."""
    hashes = [_min_hash(document.post_content) for document in documents]
    index = MinHashLSH(threshold=_CANDIDATE, num_perm=PERMUTATIONS)
    leader = list(range(len(documents)))

    def find(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    for place, own in enumerate(hashes):
        for other in sorted(index.query(own)):
            if own.jaccard(hashes[other]) >= SAME_DOCUMENT:
                first, second = sorted((find(other), find(place)))
                leader[second] = first
        index.insert(place, own)
    clusters: dict[int, list[int]] = {}
    for place in range(len(documents)):
        clusters.setdefault(find(place), []).append(place)
    return list(clusters.values())


def what_is_asked_about(row: Example) -> tuple[str, str, str]:
    """Its document, its answer, and what stands before its question: only with equal ones is a question compared."""
    whole = "\n".join(message.content for message in row.prompt)
    return row.document_url, row.answer, whole.removesuffix(row.question)


def are_nearly_the_same(question: str, other: str) -> bool:
    """Whether two questions are asked in nearly the same words."""
    own, others = _shingles(question), _shingles(other)
    return len(own & others) >= SAME_QUESTION * len(own | others)


@lru_cache(maxsize=4096)
def _shingles(question: str) -> frozenset[str]:
    text = normalised(question)
    places = range(max(1, len(text) - SHINGLE_CHARACTERS + 1))
    return frozenset(text[place : place + SHINGLE_CHARACTERS] for place in places)


def _min_hash(text: str) -> MinHash:
    words = _WORD.findall(without_addresses(text).lower())
    places = range(max(1, len(words) - SHINGLE_WORDS + 1))
    shingles = {" ".join(words[place : place + SHINGLE_WORDS]) for place in places}
    found = MinHash(num_perm=PERMUTATIONS)
    found.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return found
