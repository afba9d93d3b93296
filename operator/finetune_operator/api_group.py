"""The names under which the run and what belongs to it are found in the API: group, labels, field manager."""

from __future__ import annotations

from finetune_contract.crd_schema import API_VERSION, GROUP, KIND, PLURAL, VERSION

__all__ = ["API_VERSION", "GROUP", "KIND", "PLURAL", "VERSION"]

ALL_NAMESPACES = "*"
"""In FINETUNE_WATCH_NAMESPACES: every namespace, by a ClusterRole."""
FIELD_MANAGER = "finetune-operator"
DEFAULT_LEASE_NAME = "finetune-operator"

LABEL_RUN = f"{GROUP}/run"
"""Name of the run, cut to a label value where it is too long."""
LABEL_RUN_UID = f"{GROUP}/run-uid"
"""uid of the run: a later run of the same name never sees the children of an earlier one."""
LABEL_STAGE = f"{GROUP}/stage"
SMOKE_TEST = "smoke-test"
"""Value of LABEL_STAGE for the Job that tries a model beside its target, and name of the container that asks."""
LABEL_ATTEMPT = f"{GROUP}/attempt"
ANNOTATION_RUN = f"{GROUP}/run"
"""Name of the run, whole."""
LABEL_KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"


def within(namespace: str) -> str:
    """The part of a path that names a namespace, or every one for `*`."""
    return "" if namespace == ALL_NAMESPACES else f"/namespaces/{namespace}"


def objects(namespace: str, plural: str) -> str:
    """Path of the operator's own objects of a kind."""
    return f"/apis/{GROUP}/{VERSION}{within(namespace)}/{plural}"
