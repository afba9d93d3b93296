"""Answers of a model folder: greedy, in batches of like length. The only file of the evaluation that knows torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from finetune_contract.artifacts import Example
from finetune_contract.run_spec import PromptFormat
from finetune_trainer.errors import BaseModelRejected, CudaOutOfMemory
from finetune_trainer.evaluation.answers import Answer
from finetune_trainer.training.compute_dtype import choose_device
from finetune_trainer.training.encoding import load_tokenizer, prompt_token_ids

logger = logging.getLogger(__name__)

BATCH = 16
"""Prompts at once; a decoding step reads all weights, however many they are."""


def answer_questions(
    folder: Path,
    prompt_format: PromptFormat,
    questions: Sequence[Example],
    max_answer_tokens: int,
    done: Callable[[int], None],
) -> list[Answer]:
    """Answers in the order of the questions; `done` hears how many there are.

    Raises:
        BaseModelRejected: the folder holds no model that transformers can load.
        CudaOutOfMemory: a batch does not fit.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = choose_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    tokenizer = load_tokenizer(folder, prompt_format)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, device_map={"": device}, local_files_only=True, use_safetensors=True
        )
        model.eval()
        prompts = [prompt_token_ids(tokenizer, question.prompt) for question in questions]
        ends = _end_tokens(model, tokenizer.eos_token_id)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            rows = _generate(model, [prompts[index] for index in batch], max_answer_tokens, ends, pad, device)
            for index, row in zip(batch, rows, strict=True):
                end = next((place for place, token in enumerate(row) if token in ends), None)
                text = tokenizer.decode(row[:end], skip_special_tokens=True)
                answers[index] = Answer(str(text).strip(), stopped=end is not None)
            done(len(answers))
    except torch.OutOfMemoryError as error:
        raise CudaOutOfMemory(
            f"spec.resources.train.gpu: {BATCH} answers at once do not fit the GPU ({error}); take a larger GPU"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelRejected(f"{folder.name}: transformers cannot run the model ({error})") from error
    return [answers[index] for index in range(len(questions))]


@torch.inference_mode()
def _generate(
    model: Any, prompts: Sequence[list[int]], limit: int, ends: list[int], pad: int, device: torch.device
) -> list[list[int]]:
    """New tokens of each prompt; padded on the left so that all end at the same place."""
    longest = max(len(prompt) for prompt in prompts)
    token_ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor(
        [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device
    )
    output = model.generate(
        input_ids=token_ids,
        attention_mask=mask,
        max_new_tokens=limit,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=ends,
        pad_token_id=pad,
    )
    rows: list[list[int]] = output[:, longest:].tolist()
    return rows


def _end_tokens(model: Any, tokenizer_end: int | None) -> list[int]:
    declared = model.generation_config.eos_token_id
    ends = [declared] if isinstance(declared, int) else list(declared or [])
    return [*dict.fromkeys([*ends, *([] if tokenizer_end is None else [tokenizer_end])])]
