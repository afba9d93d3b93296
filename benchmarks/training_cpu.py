"""Speed of the train stage's loop against transformers.Trainer, on the same rows and the same 4-bit model, on this CPU.

Prints one JSON object as its last line: tokens_per_second (tokens of the examples, padding not counted) and
ratio_to_trainer. Both sides run in turn, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from finetune_contract.artifacts import ChatMessage, Example
from finetune_contract.prompt import user_message
from finetune_contract.run_spec import ComputeDtype, ExampleKind, LoraSpec, PromptFormat, TrainingSpec
from finetune_contract.sections import Passage
from finetune_trainer.training.adapter import add_adapter, load_quantized_base
from finetune_trainer.training.compute_dtype import choose_device, choose_dtype
from finetune_trainer.training.encoding import EncodedExample, encode_rows, load_tokenizer
from finetune_trainer.training.loop import TrainingLoop
from finetune_trainer.training.packing import TrainingPlan

FORMS = (
    "How high is {0}?",
    "What is the height of {0}?",
    "Tell me how high {0} is.",
    "Do you know how high {0} is?",
)


def made_examples(count: int) -> list[Example]:
    """Questions with two sources of about 70 words, four phrasings a pair of sources, as a site's dataset has them."""
    examples = []
    for number in range(count):
        place, form = divmod(number, len(FORMS))
        passages = [
            Passage(
                f"Mast {n}",
                "Height",
                f"Mast {n} stands {n + 20} metres high beside the creek. "
                + "It was painted again after a wet winter, "
                "and the carpenter who did it asked for two loaves and a dry pair of boots. " * 3,
                f"https://example.org/mast-{n}/",
            )
            for n in (place, place + 1)
        ]
        question = FORMS[form].format(f"mast {place}")
        examples.append(
            Example(
                id=f"{number:064d}",
                kind=ExampleKind.GROUNDED,
                document_url=passages[0].url,
                template=str(form),
                question=question,
                prompt=[ChatMessage(role="user", content=user_message(question, passages))],
                answer=f"Mast {place} stands {place + 20} metres high beside the creek. [1]",
                must_contain=[f"{place + 20} metres"],
            )
        )
    return examples


def time_ours(
    folder: Path, rows: Sequence[EncodedExample], training: TrainingSpec, dtype: torch.dtype
) -> float:
    """Tokens a second over the steps after the first."""
    device = choose_device()
    model = add_adapter(load_quantized_base(folder, training, device, dtype), training)
    plan = TrainingPlan.of(rows, training)
    records = []
    for record in TrainingLoop(model, plan, training, device, dtype).steps(lambda: False):
        records.append(record)
        print(
            f"ours     step {record.step}/{plan.total_steps} loss {record.loss:.3f}",
            file=sys.stderr,
            flush=True,
        )
    timed = records[1:]
    return sum(record.tokens for record in timed) / sum(record.seconds for record in timed)


def time_trainer(
    folder: Path, rows: Sequence[EncodedExample], training: TrainingSpec, dtype: torch.dtype
) -> float:
    """The same with transformers.Trainer and its usual padding."""
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    device = choose_device()
    quantization: Any = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=quantization, device_map={"": device}, local_files_only=True
    )
    lora = LoraConfig(
        r=training.lora.rank,
        lora_alpha=training.lora.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    data = [
        {
            "input_ids": list(row.token_ids),
            "labels": [-100] * len(row.prompt_ids) + list(row.answer_ids),
            "attention_mask": [1] * len(row),
        }
        for row in rows
    ]
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            marks.append(time.perf_counter())
            print(f"Trainer  step {state.global_step}/{training.max_steps}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=get_peft_model(model, lora),
            args=TrainingArguments(
                output_dir=scratch,
                per_device_train_batch_size=training.micro_batch_size,
                gradient_accumulation_steps=training.effective_batch_size // training.micro_batch_size,
                max_steps=training.max_steps,
                learning_rate=training.learning_rate,
                seed=training.seed,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=device.type == "cpu",
                dataloader_pin_memory=device.type != "cpu",
            ),
            train_dataset=data,
            data_collator=DataCollatorForSeq2Seq(
                AutoTokenizer.from_pretrained(folder), label_pad_token_id=-100
            ),
            callbacks=[Clock()],
        )
        trainer.train()
    mean_tokens = sum(len(row) for row in rows) / len(rows)
    timed_steps = len(marks) - 1
    return mean_tokens * training.effective_batch_size * timed_steps / (marks[-1] - marks[0])


def main() -> None:
    """Time both sides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a Hugging Face folder (default: the demo's SmolLM2-135M)")
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps a side; the first is not timed")
    parser.add_argument("--batch", type=int, default=8, help="examples a step")
    arguments = parser.parse_args()
    folder = arguments.model
    if folder is None:
        from devcluster.base_model import folder as demo_model
        from devcluster.progress import Progress

        folder = demo_model(Progress())
    training = TrainingSpec(
        max_steps=arguments.steps,
        epochs=100,
        effective_batch_size=arguments.batch,
        micro_batch_size=arguments.batch // 2,
        lora=LoraSpec(),
    )
    dtype = choose_dtype(ComputeDtype.AUTO, choose_device())
    tokenizer = load_tokenizer(folder, PromptFormat.CHAT)
    rows = encode_rows(
        tokenizer, made_examples(arguments.batch * arguments.steps), training.sequence_length
    ).rows
    ours = time_ours(folder, rows, training, dtype)
    trainer = time_trainer(folder, rows, training, dtype)
    result = {
        "tokens_per_second": round(ours, 1),
        "ratio_to_trainer": round(ours / trainer, 2),
        "trainer_tokens_per_second": round(trainer, 1),
        "compute_dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
