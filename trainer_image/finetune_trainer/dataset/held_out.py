"""Which documents training never sees, to find out what a model makes of pages that it was not taught. Pure.

A document's side hangs on a hash of its identity and of the seed, not on the other documents: it keeps its side when
the site grows. Only to fill up the smallest number, or an empty root category, is another one looked at.
Near-duplicates go together, by the lowest of their hashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import SplitSpec
from finetune_trainer.dataset.examples.duplicates import document_clusters
from finetune_trainer.dataset.examples.places import Places, stable_order

SMALL_SITE = 100
"""Sites with fewer documents teach them all."""
MIN_HELD_OUT = 20
MIN_OF_A_CATEGORY = 10
"""A root category with so many documents is asked about, too."""
_HASHES = 16**64


@dataclass(frozen=True)
class _Cluster:
    order: float
    """Where the hash lies between 0 and 1."""
    category: str
    urls: frozenset[str]


def held_out(documents: Sequence[Document], spec: SplitSpec) -> frozenset[str]:
    """Addresses of the documents that are kept for the transfer set; none on a small site."""
    if not spec.transfer or len(documents) < SMALL_SITE:
        return frozenset()
    places = Places(documents)
    clusters = sorted(
        (
            _cluster([documents[place] for place in members], places, spec.seed)
            for members in document_clusters(documents)
        ),
        key=lambda cluster: (cluster.order, sorted(cluster.urls)),
    )
    chosen = [cluster for cluster in clusters if cluster.order < spec.transfer]
    sizes = Counter(_root(document) for document in documents)
    for category in sorted(sizes):
        if sizes[category] >= MIN_OF_A_CATEGORY and not any(c.category == category for c in chosen):
            chosen.append(next(cluster for cluster in clusters if cluster.category == category))
    for cluster in clusters:
        if sum(len(other.urls) for other in chosen) >= MIN_HELD_OUT:
            break
        if cluster not in chosen:
            chosen.append(cluster)
    return frozenset(url for cluster in chosen for url in cluster.urls)


def _cluster(members: Sequence[Document], places: Places, seed: int) -> _Cluster:
    """A cluster has the hash and the category of its member with the lowest hash."""
    hashed = sorted(
        (stable_order("transfer", str(seed), places.of(member.post_url)), _root(member)) for member in members
    )
    return _Cluster(
        int(hashed[0][0], 16) / _HASHES, hashed[0][1], frozenset(member.post_url for member in members)
    )


def _root(document: Document) -> str:
    return document.post_categories[0] if document.post_categories else ""
