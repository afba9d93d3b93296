"""Vectors by a small sentence model on the CPU. The only file of the dataset stage that knows torch and transformers.

The model comes the way the base model comes: by its address, copied into the store, never with code of its own.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from finetune_contract.artifacts import Document
from finetune_trainer.dataset.knowledge_base.vectors import vector_texts
from finetune_trainer.errors import BaseModelRejected, SourceUnavailable, StoreRejected, TrainerError
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training.base_model import FIELD as BASE_MODEL_FIELD
from finetune_trainer.training.base_model import ResolvedBaseModel, fetch, resolve

logger = logging.getLogger(__name__)

FIELD = "spec.dataset.knowledgeBase.weaviate.vectors.sentenceModel"
BATCH = 16
LONGEST_TOKENS = 512


class SentenceVectors:
    """One model; it is fetched and loaded when the first vector is asked for."""

    def __init__(self, context: StageContext, uri: str) -> None:
        base_model = context.spec.base_model.model_copy(update={"uri": uri})
        self._context = replace(
            context,
            spec=context.spec.model_copy(update={"base_model": base_model}),
            work_folder=context.work_folder / "sentence-model",
        )

    def identity(self) -> str:
        """Digest of the model's files, short."""
        return self._resolved.digest[:16]

    def vectors(self, documents: Sequence[Document]) -> list[dict[str, list[float]]]:
        """By name of the vector, for each document.

        Raises:
            BaseModelRejected: the files are no model that transformers can load.
        """
        rows = [vector_texts(document) for document in documents]
        places = [(index, name) for index, texts in enumerate(rows) for name in texts]
        found: list[dict[str, list[float]]] = [{} for _ in documents]
        vectors = self.encode([rows[index][name] for index, name in places])
        for (index, name), vector in zip(places, vectors, strict=True):
            found[index][name] = vector
        return found

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        """Mean of the last layer over a text's tokens, of length 1; what is over the model's length is cut."""
        tokenizer, model, longest = self._loaded
        accepted = set(inspect.signature(model.forward).parameters)
        vectors: dict[int, list[float]] = {}
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            tokens = tokenizer(
                [texts[index] for index in batch],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            )
            with torch.inference_mode():
                given = {name: value for name, value in tokens.items() if name in accepted}
                hidden = model(**given).last_hidden_state.float()
            mask = tokens["attention_mask"].unsqueeze(-1).float()
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            rows = torch.nn.functional.normalize(mean, dim=1).tolist()
            vectors |= dict(zip(batch, rows, strict=True))
        return [vectors[index] for index in range(len(texts))]

    @cached_property
    def _resolved(self) -> ResolvedBaseModel:
        with _named_by_its_own_field():
            return resolve(self._context)

    @cached_property
    def _loaded(self) -> tuple[Any, Any, int]:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        with _named_by_its_own_field():
            folder = fetch(self._context, self._resolved)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
            model: Any = AutoModel.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise BaseModelRejected(
                f"{FIELD}: transformers cannot load {self._resolved.uri} ({' '.join(str(error).split())[:200]}); "
                "name a sentence model with a tokenizer and safetensors"
            ) from error
        model.eval()
        tokenizer.padding_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        longest = _longest(folder, tokenizer, model.config)
        logger.info("sentence model loaded: uri=%s longest_tokens=%d", self._resolved.uri, longest)
        return tokenizer, model, longest


def _longest(folder: Path, tokenizer: Any, config: Any) -> int:
    """Tokens that the model was made for; sentence models often say so in a file of their own."""
    limits = [
        LONGEST_TOKENS,
        tokenizer.model_max_length,
        getattr(config, "max_position_embeddings", LONGEST_TOKENS),
    ]
    own = folder / "sentence_bert_config.json"
    if own.is_file():
        limits.append(json.loads(own.read_text(encoding="utf-8")).get("max_seq_length") or LONGEST_TOKENS)
    return int(min(limits))


@contextmanager
def _named_by_its_own_field() -> Iterator[None]:
    """The base model's resolver names the base model's field in its errors; here another field is meant."""
    try:
        yield
    except (BaseModelRejected, StoreRejected, SourceUnavailable) as error:
        renamed: TrainerError = type(error)(str(error).replace(BASE_MODEL_FIELD, FIELD))
        raise renamed from error
