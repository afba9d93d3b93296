"""What the train stage is timed against: TRL's SFTTrainer with Liger's kernels, and the same on Unsloth's model."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from training_models import SHAPES
from training_rows import rows_of

PEERS = ("trl", "unsloth")
SEQUENCE = 2048
"""Tokens of a packed sequence."""


def time_peer(peer: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """The same rows with TRL's SFTTrainer, packed; with Unsloth's model where that is the peer.

    As many sequences a step as make up a row of ours.
    """
    quantization: dict[str, Any] = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": torch.bfloat16,
    }
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    if peer == "unsloth":  # it changes the other libraries as they are imported, so it comes first
        import unsloth

        model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
            str(folder),
            max_seq_length=SEQUENCE,
            load_in_4bit=True,
            dtype=torch.bfloat16,
            local_files_only=True,
        )
        model = unsloth.FastLanguageModel.get_peft_model(
            model,
            r=arguments.rank,
            lora_alpha=arguments.rank,
            lora_dropout=0,
            target_modules=targets,
            use_gradient_checkpointing="unsloth" if arguments.checkpointing else False,
        )
        adapter = None
    else:
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

        model = AutoModelForCausalLM.from_pretrained(
            folder,
            quantization_config=BitsAndBytesConfig(**quantization),
            dtype=torch.bfloat16,
            device_map={"": 0},
            attn_implementation="eager" if arguments.model == "gemma-2-2b" else "sdpa",
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
        adapter = LoraConfig(
            r=arguments.rank, lora_alpha=arguments.rank, target_modules=targets, task_type="CAUSAL_LM"
        )
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    rows = rows_of(arguments.rows, int(SHAPES[arguments.model]["vocab_size"]))
    data = Dataset.from_dict({"input_ids": [list(row.token_ids) for row in rows]})
    marks: list[tuple[float, int]] = []
    seen = {"tokens": 0}

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            torch.cuda.synchronize()
            marks.append((time.perf_counter(), seen["tokens"]))

    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=scratch,
                max_steps=arguments.steps + arguments.warm_up,
                packing=True,
                packing_strategy="bfd",
                max_length=SEQUENCE,
                per_device_train_batch_size=max(1, arguments.row_tokens // SEQUENCE),
                gradient_accumulation_steps=1,
                gradient_checkpointing=peer == "trl" and arguments.checkpointing,
                use_liger_kernel=peer == "trl",
                optim="adamw_8bit" if peer == "unsloth" else "adamw_torch_fused",
                bf16=True,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
            ),
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=adapter,
            callbacks=[Clock()],
        )
        original: Callable[..., Any] = trainer.training_step

        def counted(given: Any, inputs: Any, *more: Any, **named: Any) -> Any:
            seen["tokens"] += int((inputs["labels"] != -100).sum())
            return original(given, inputs, *more, **named)

        trainer.training_step = counted
        trainer.train()
    (start, before), (end, after) = marks[arguments.warm_up - 1], marks[-1]
    return {
        "tokens_per_second": (after - before) / (end - start),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
    }
