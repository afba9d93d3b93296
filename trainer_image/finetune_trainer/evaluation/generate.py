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

MOST_TOKENS_AT_ONCE = 16_384
"""Of prompts and answers, filled up to the longest. A decoding step reads all weights, for however many rows; what it
keeps of them is 8 GiB for a model of 7 billion weights (512 KiB a token, Llama 2)."""
MOST_ROWS_AT_ONCE = 64


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
        answers: dict[int, Answer] = {}
        for batch in batches([len(prompt) + max_answer_tokens for prompt in prompts]):
            rows = _generate(model, [prompts[index] for index in batch], max_answer_tokens, ends, pad, device)
            for index, row in zip(batch, rows, strict=True):
                end = next((place for place, token in enumerate(row) if token in ends), None)
                text = tokenizer.decode(row[:end], skip_special_tokens=True)
                answers[index] = Answer(str(text).strip(), stopped=end is not None)
            done(len(answers))
    except torch.OutOfMemoryError as error:
        raise CudaOutOfMemory(
            f"spec.resources.train.gpu: the model and {MOST_TOKENS_AT_ONCE} tokens of questions and answers do not fit "
            f"the GPU ({error}); take a larger GPU"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelRejected(f"{folder.name}: transformers cannot run the model ({error})") from error
    return [answers[index] for index in range(len(questions))]


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of the rows that are answered together: of like length, the longest last.

    Args:
        lengths: tokens of each row, prompt and answer.
    """
    made: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        rows = len(made[-1]) + 1 if made else 0
        if not rows or rows > MOST_ROWS_AT_ONCE or rows * lengths[row] > MOST_TOKENS_AT_ONCE:
            made.append([])
        made[-1].append(row)
    return made


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
