"""A model of a few thousand weights in a real Hugging Face folder, examples for it, and a context to run stages in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from finetune_contract.artifact_layout import EVALUATION_FILE, TRAIN_FILE, dataset_folder
from finetune_contract.artifacts import ArtifactKind, ChatMessage, Example
from finetune_contract.prompt import REFUSAL, user_message
from finetune_contract.run_spec import ExampleKind, FineTuneRunSpec
from finetune_contract.sections import Passage
from finetune_contract.stage_protocol import StepShare
from finetune_trainer.artifact_files import publish_folder
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.local_folder import LocalFolder

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
RUN_KEY = "k" * 64
DATASET_DIGEST = "d" * 64


def tiny_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A character tokenizer of the kind that llama.cpp's converter accepts."""
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    characters = ["▁", "\n", *map(chr, range(33, 127))]
    names = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="</s>",
        extra_special_tokens=["<|im_start|>"],  # llama.cpp knows those alone that are named so
        add_prefix_space=False,
    )
    fast.chat_template = chat_template
    return fast


def save_tiny_model(folder: Path, chat_template: str | None = CHATML, layers: int = 2) -> Path:
    """Random weights, always the same."""
    tokenizer = tiny_tokenizer(chat_template)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_model_that_sees(folder: Path) -> PreTrainedModel:
    """Gemma 3 with a vision tower; its files call the decoder's layers otherwise than the loaded model does."""
    tokenizer = tiny_tokenizer()
    config = AutoConfig.for_model(
        "gemma3",
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
    )
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForImageTextToText.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def example(number: int, question: str = "", kind: ExampleKind = ExampleKind.GROUNDED) -> Example:
    """A question about one of a few sources; some share their sources."""
    source = number // 2
    question = question or f"{'How high' if number % 2 else 'What height'} is mast {source}?"
    refusal = kind is ExampleKind.REFUSAL
    answer = REFUSAL if refusal else f"{source + 3} metres. [1]"
    passage = Passage(
        "Masts", f"Mast {source}", f"Mast {source} is {source + 3} metres high.", "https://x/masts"
    )
    return Example(
        id=f"{number:064d}",
        kind=kind,
        document_url="" if refusal else passage.url,
        template="t",
        question=question,
        prompt=[ChatMessage(role="user", content=user_message(question, [passage]))],
        answer=answer,
        must_contain=[] if refusal else [f"{source + 3} metres"],
    )


def spec_for(base_folder: Path, **training: object) -> FineTuneRunSpec:
    """A spec with fast settings."""
    return FineTuneRunSpec.model_validate(
        {
            "baseModel": {"uri": base_folder.resolve().as_uri()},
            "dataset": {"sources": [{"name": "site", "wordpress": {"url": "https://example.org"}}]},
            "store": {"s3": {"bucket": "models"}},
            "training": {
                "learningRate": 0.01,
                "effectiveBatchSize": 4,
                "microBatchSize": 2,
                "maxSteps": 6,
                "epochs": 50,
                "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
                "quantization": {"computeDtype": "float32"},
                **training,
            },
            "evaluation": {"maxQuestions": 6, "maxAnswerTokens": 8},
        }
    )


class SilentProgress:
    """Remembers what was said."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.evaluation_losses: list[float | None] = []

    def __call__(
        self,
        step: int = 0,
        total_steps: int = 0,
        *,
        message: str = "",
        loss: float | None = None,
        tokens_per_second: float | None = None,
        evaluation_loss: float | None = None,
        memory_bytes: int | None = None,
        share: StepShare | None = None,
    ) -> None:
        if loss is not None:
            self.steps.append(step)
            self.losses.append(loss)
            self.evaluation_losses.append(evaluation_loss)


def context_for(
    folder: Path, spec: FineTuneRunSpec, stop_requested: Callable[[], bool] = lambda: False
) -> StageContext:
    """A stage's surroundings with a local store below `folder`."""
    return StageContext(
        run_name="tiny",
        spec=spec,
        work_folder=folder / "work",
        store=LocalFolder(folder / "store"),
        progress=SilentProgress(),
        environment={},
        on_cluster=False,
        run_key=RUN_KEY,
        dataset_digest=DATASET_DIGEST,
        stop_requested=stop_requested,
    )


def publish_dataset(
    context: StageContext, train: Sequence[Example], evaluation: Sequence[Example] = ()
) -> None:
    """Put a dataset where the stages look for it."""
    folder = context.work_folder.parent / "made-dataset"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in ((TRAIN_FILE, train), (EVALUATION_FILE, evaluation)):
        text = "".join(json.dumps(row.to_wire(), ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_text(text, encoding="utf-8")
    publish_folder(context.store, dataset_folder(context.dataset_digest), folder, ArtifactKind.DATASET, {})
