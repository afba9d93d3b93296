"""`python -m finetune_operator.protected_models`: the models that a cluster still needs, for the sweep of the store.

Reads what `kubectl get finetuneruns,deployments,replicasets,configmaps -o json` writes from standard input, so that it
needs no access of its own; writes one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from finetune_operator.api_group import KIND
from finetune_operator.rollout.protection import protected_models
from finetune_operator.rollout.record import is_record

TEMPLATE_KINDS = ("Deployment", "ReplicaSet")


class NotAList(ValueError):
    """Standard input holds something else."""


def protected_document(text: str, made_at: datetime) -> str:
    """The list of protected models as JSON.

    Args:
        made_at: when the cluster was asked.

    Raises:
        NotAList: the text is no JSON list of Kubernetes, or holds no ReplicaSet and no Deployment.
    """
    try:
        items: list[dict[str, Any]] = json.loads(text)["items"]
        runs = [item for item in items if item["kind"] == KIND]
        templates = [item for item in items if item["kind"] in TEMPLATE_KINDS]
        if not templates:
            raise NotAList(
                "there is no Deployment and no ReplicaSet in the list: a model that is served could be missed; ask "
                "with `kubectl get finetuneruns,deployments,replicasets,configmaps --all-namespaces -o json`"
            )
        found = protected_models(runs, templates, filter(is_record, items))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise NotAList(f"standard input: no list of kubectl ({error!r}); ask with -o json") from error
    return json.dumps(found.model_copy(update={"made_at": made_at}).to_wire(), indent=2) + "\n"


def main(source: TextIO | None = None, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> int:
    """Exit code 0, or 2 when the input is of no use."""
    made_at = clock()  # before reading: what kubectl shows may be younger, never older
    try:
        sys.stdout.write(protected_document((source or sys.stdin).read(), made_at))
    except NotAList as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
