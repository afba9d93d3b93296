"""Exit codes in words. Kept apart so that status and protocol need not import each other."""

from __future__ import annotations

from finetune_contract.run_status import Reason
from finetune_contract.stage_protocol import ExitCode, FetchExitCode

STAGE_REASONS: dict[int, Reason] = {
    ExitCode.OK: Reason.COMPLETED,
    ExitCode.INVALID_RUN: Reason.INVALID_SPEC,
    ExitCode.DATA_REJECTED: Reason.DATA_REJECTED,
    ExitCode.SOURCE_REJECTED: Reason.SOURCE_REJECTED,
    ExitCode.STORE_REJECTED: Reason.STORE_REJECTED,
    ExitCode.KNOWLEDGE_BASE_REJECTED: Reason.KNOWLEDGE_BASE_REJECTED,
    ExitCode.BASE_MODEL_REJECTED: Reason.BASE_MODEL_REJECTED,
    ExitCode.SOURCE_UNAVAILABLE: Reason.SOURCE_UNAVAILABLE,
    ExitCode.STORE_UNAVAILABLE: Reason.STORE_UNAVAILABLE,
    ExitCode.KNOWLEDGE_BASE_UNAVAILABLE: Reason.KNOWLEDGE_BASE_UNAVAILABLE,
    ExitCode.CUDA_OUT_OF_MEMORY: Reason.CUDA_OUT_OF_MEMORY,
    ExitCode.HOST_OUT_OF_MEMORY: Reason.HOST_OUT_OF_MEMORY,
    ExitCode.PREEMPTED: Reason.PREEMPTED,
    ExitCode.DIVERGED: Reason.DIVERGED,
    ExitCode.INTERNAL_ERROR: Reason.INTERNAL_ERROR,
}

FETCH_REASONS: dict[int, Reason] = {
    FetchExitCode.NOT_FOUND: Reason.MODEL_NOT_FOUND,
    FetchExitCode.ACCESS_DENIED: Reason.MODEL_ACCESS_DENIED,
    FetchExitCode.CHECKSUM_MISMATCH: Reason.MODEL_INTEGRITY,
    FetchExitCode.SIZE_MISMATCH: Reason.MODEL_INTEGRITY,
    FetchExitCode.VOLUME_FULL: Reason.CACHE_VOLUME_FULL,
    FetchExitCode.FORBIDDEN_FILE: Reason.FORBIDDEN_FILE,
    FetchExitCode.STORE_UNAVAILABLE: Reason.STORE_UNAVAILABLE,
}
