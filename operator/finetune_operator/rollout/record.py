"""The record of a target's model: a ConfigMap that outlives runs and the Deployment. Pure.

For people and for whatever writes Git: `kubectl set env deployment/NAME --from=configmap/NAME-model` would be enough to
bring a model back. Holds no time, so that writing it twice changes nothing.
"""

from __future__ import annotations

from finetune_contract.run_status import ModelPointer
from finetune_operator.actions import WriteRecord
from finetune_operator.api_group import FIELD_MANAGER
from finetune_operator.observed import NO_MODEL, Run
from finetune_operator.rollout.patch import MODEL_ID, MODEL_MANIFEST_SHA256, MODEL_URI

LIVE, PUBLISHED = "Live", "Published"
MAX_NAME_LENGTH = 253
_SUFFIX = "-model"


def record_name(deployment: str) -> str:
    """Name of the ConfigMap."""
    return f"{deployment[: MAX_NAME_LENGTH - len(_SUFFIX)].rstrip('-.')}{_SUFFIX}"


def record(
    run: Run, deployment: str, current: ModelPointer, previous: ModelPointer | None, state: str
) -> WriteRecord:
    """What a target serves (Live), or should serve when somebody takes it there (Published).

    No ownerReference: it must be there when the run is deleted.
    """
    before = previous or NO_MODEL
    return WriteRecord(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": record_name(deployment),
                "namespace": run.namespace,
                "labels": {"app.kubernetes.io/managed-by": FIELD_MANAGER},
            },
            "data": {
                MODEL_URI: current.uri,
                MODEL_MANIFEST_SHA256: current.manifest_sha256,
                MODEL_ID: current.model_id,
                f"PREVIOUS_{MODEL_URI}": before.uri,
                f"PREVIOUS_{MODEL_MANIFEST_SHA256}": before.manifest_sha256,
                f"PREVIOUS_{MODEL_ID}": before.model_id,
                "state": state,
                "deployment": deployment,
                "run": run.name,
            },
        }
    )
