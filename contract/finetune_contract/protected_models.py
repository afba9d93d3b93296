"""Which models must stay in the store: what the cluster knows, for whoever cleans the store up. One JSON file."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from finetune_contract.model import ContractModel

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ProtectedModels(ContractModel):
    """Digests are those of a model's manifest."""

    history: dict[str, list[Digest]] = {}
    """By target, such as `demo/deployment/chat`: the models that were live, newest first; the first is live now."""
    live: list[Digest] = []
    """Pinned by a ReplicaSet or a Deployment, so that a pod may be made for it at any time."""
    candidates: list[Digest] = []
    """Made and not live: waiting for approval, rolling out, or only stored as their run asked."""
    active_run_keys: list[str] = []
    """Of runs that have not ended: their folders are at work."""
    made_at: AwareDatetime | None = None
    """When the cluster was asked; None in lists of earlier versions."""

    @property
    def names_nothing(self) -> bool:
        """Nothing is protected: more likely a mistake than the truth."""
        return not (any(self.history.values()) or self.live or self.candidates or self.active_run_keys)
