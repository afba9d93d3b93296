"""The dataset stage: the only one that reads the sources, and the one that may find a finished model."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_contract.run_spec import FineTuneRunSpec, SecretKeyRef, SecretRef, SourceSpec
from finetune_contract.run_status import ConditionType, DatasetStatus, FineTuneRunStatus, Phase
from finetune_contract.stage_protocol import (
    ENV_GENERATOR_API_KEY,
    ENV_HF_TOKEN,
    ENV_WEAVIATE_API_KEY,
    Stage,
    StageReport,
    front_proxy_password_env,
    front_proxy_username_env,
    markdown_access_key_env,
    markdown_secret_key_env,
    weaviate_source_key_env,
    wordpress_password_env,
    wordpress_token_env,
    wordpress_username_env,
)
from finetune_operator.stages.definition import MAX_TEXT_LENGTH, SecretEnv, StageDefinition, store_secrets
from finetune_operator.stages.evaluate import evaluation_status
from finetune_operator.stages.package import artifact_status


def _secrets(spec: FineTuneRunSpec) -> tuple[SecretEnv, ...]:
    found: list[SecretEnv] = []
    for index, source in enumerate(spec.dataset.sources):
        found += _source_secrets(source, f"spec.dataset.sources[{index}]")
    weaviate = spec.dataset.knowledge_base.weaviate if spec.dataset.knowledge_base else None
    if weaviate is not None:
        place = "spec.dataset.knowledgeBase.weaviate.apiKeySecretRef"
        found += _key(weaviate.api_key_secret_ref, ENV_WEAVIATE_API_KEY, place)
    if spec.dataset.generator is not None:
        place = "spec.dataset.generator.apiKeySecretRef"
        found += _key(spec.dataset.generator.api_key_secret_ref, ENV_GENERATOR_API_KEY, place)
    found += _key(spec.base_model.token_secret_ref, ENV_HF_TOKEN, "spec.baseModel.tokenSecretRef")
    return (*found, *store_secrets(spec))


def _source_secrets(source: SourceSpec, place: str) -> list[SecretEnv]:
    found: list[SecretEnv] = []
    if (wordpress := source.wordpress) is not None:
        here = f"{place}.wordpress"
        signs_in = {
            wordpress_username_env(source.name): "username",
            wordpress_password_env(source.name): "password",
        }
        found += _keys(wordpress.credentials_secret_ref, signs_in, f"{here}.credentialsSecretRef")
        found += _key(wordpress.token_secret_ref, wordpress_token_env(source.name), f"{here}.tokenSecretRef")
        if wordpress.front_proxy is not None:
            passes = {
                front_proxy_username_env(source.name): "username",
                front_proxy_password_env(source.name): "password",
            }
            proxy = wordpress.front_proxy.credentials_secret_ref
            found += _keys(proxy, passes, f"{here}.frontProxy.credentialsSecretRef")
    if source.markdown is not None and source.markdown.s3 is not None:
        opens = {
            markdown_access_key_env(source.name): "accessKeyId",
            markdown_secret_key_env(source.name): "secretAccessKey",
        }
        bucket = source.markdown.s3.credentials_secret_ref
        found += _keys(bucket, opens, f"{place}.markdown.s3.credentialsSecretRef")
    if source.weaviate is not None:
        env = weaviate_source_key_env(source.name)
        found += _key(source.weaviate.api_key_secret_ref, env, f"{place}.weaviate.apiKeySecretRef")
    return found


def _keys(reference: SecretRef | None, keys: Mapping[str, str], place: str) -> list[SecretEnv]:
    if reference is None:
        return []
    return [SecretEnv(env, reference.name, key, place) for env, key in keys.items()]


def _key(reference: SecretKeyRef | None, env: str, place: str) -> list[SecretEnv]:
    return [] if reference is None else [SecretEnv(env, reference.name, reference.key, place)]


def _absorb(status: FineTuneRunStatus, report: StageReport) -> FineTuneRunStatus | None:
    facts = report.dataset
    if facts is None or (facts.adopted and (report.model is None or report.evaluation is None)):
        return None
    changes: dict[str, object] = {
        "run_key": facts.run_key,
        "base_model": facts.base_model[:MAX_TEXT_LENGTH],
        "adopted": facts.adopted,
        "dataset": DatasetStatus(
            digest=facts.digest,
            documents=facts.documents,
            training_examples=facts.training_examples,
            evaluation_examples=facts.evaluation_examples,
            transfer_examples=facts.transfer_examples,
            dropped=facts.dropped,
            changed_documents=facts.changed_documents,
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
