"""The dataset stage: the only one that reads the sources, and the one that may find a finished model."""

from __future__ import annotations

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.run_status import ConditionType, DatasetStatus, FineTuneRunStatus, Phase
from finetune_contract.stage_protocol import (
    ENV_HF_TOKEN,
    ENV_WEAVIATE_API_KEY,
    Stage,
    StageReport,
    wordpress_password_env,
    wordpress_username_env,
)
from finetune_operator.stages.definition import SecretEnv, StageDefinition, store_secrets
from finetune_operator.stages.evaluate import evaluation_status
from finetune_operator.stages.package import artifact_status


def _secrets(spec: FineTuneRunSpec) -> tuple[SecretEnv, ...]:
    found: list[SecretEnv] = []
    for index, source in enumerate(spec.dataset.sources):
        wordpress = source.wordpress
        if wordpress is not None and wordpress.credentials_secret_ref is not None:
            place = f"spec.dataset.sources[{index}].wordpress.credentialsSecretRef"
            name = wordpress.credentials_secret_ref.name
            found.append(SecretEnv(wordpress_username_env(source.name), name, "username", place))
            found.append(SecretEnv(wordpress_password_env(source.name), name, "password", place))
    weaviate = spec.dataset.knowledge_base.weaviate if spec.dataset.knowledge_base else None
    if weaviate is not None and weaviate.api_key_secret_ref is not None:
        reference = weaviate.api_key_secret_ref
        place = "spec.dataset.knowledgeBase.weaviate.apiKeySecretRef"
        found.append(SecretEnv(ENV_WEAVIATE_API_KEY, reference.name, reference.key, place))
    token = spec.base_model.token_secret_ref
    if token is not None:
        found.append(SecretEnv(ENV_HF_TOKEN, token.name, token.key, "spec.baseModel.tokenSecretRef"))
    return (*found, *store_secrets(spec))


def _absorb(status: FineTuneRunStatus, report: StageReport) -> FineTuneRunStatus | None:
    facts = report.dataset
    if facts is None or (facts.adopted and (report.model is None or report.evaluation is None)):
        return None
    changes: dict[str, object] = {
        "run_key": facts.run_key,
        "adopted": facts.adopted,
        "dataset": DatasetStatus(
            digest=facts.digest,
            documents=facts.documents,
            training_examples=facts.training_examples,
            evaluation_examples=facts.evaluation_examples,
            dropped=facts.dropped,
        ),
    }
    if facts.adopted and report.model is not None and report.evaluation is not None:
        changes["artifact"] = artifact_status(report.model)
        changes["evaluation"] = evaluation_status(report.evaluation)
    return status.model_copy(update=changes)


DATASET = StageDefinition(
    stage=Stage.DATASET,
    condition=ConditionType.DATASET_READY,
    phase=Phase.BUILDING_DATASET,
    needs_key=False,
    uses_gpu=False,
    grace_seconds=30,
    secrets=_secrets,
    absorb=_absorb,
    absorbed=lambda status: status.dataset is not None and bool(status.run_key),
)
