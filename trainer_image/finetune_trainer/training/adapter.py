"""The 4-bit base model with a LoRA adapter on every linear layer that its decoder is found to have."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.errors import BaseModelRejected
from finetune_trainer.training import attention, row_attention
from finetune_trainer.training.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


def linear_layer_names(model: PreTrainedModel) -> list[str]:
    """Full names of the decoder's linear layers: those of no output head, and of no tower for pictures or sound."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    decoder = set(model.get_decoder().modules())  # type: ignore[no-untyped-call]
    return sorted(
        name
        for name, module in model.named_modules()
        if module in decoder and isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    )


def load_quantized_base(
    folder: Path,
    training: TrainingSpec,
    device: torch.device,
    dtype: torch.dtype,
    dealt_over: Ranks = ALONE,
) -> PreTrainedModel:
    """The frozen base in 4 bits, or this process's piece of it: that cannot be called before it is dealt out.

    Raises:
        BaseModelRejected: the folder holds a model that transformers does not know or cannot read.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    attention.register()
    row_attention.register()
    chosen = row_attention.NAME if device.type == "cuda" else attention.NAME
    settings: dict[str, Any] = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": training.quantization.type,
        "bnb_4bit_use_double_quant": training.quantization.double_quantization,
        "bnb_4bit_compute_dtype": dtype,
    }
    if dealt_over.count > 1:
        from finetune_trainer.training.dealt_base import DealtConfig

        quantization: BitsAndBytesConfig = DealtConfig(dealt_over.number, dealt_over.count, **settings)
    else:
        quantization = BitsAndBytesConfig(**settings)  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {
        "dtype": dtype,
        "device_map": {"": device},
        "quantization_config": quantization,
        "local_files_only": True,
        "use_safetensors": True,
    }
    try:
        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                folder, attn_implementation=chosen, **options
            )
        except ValueError as error:
            if "attn_implementation" not in str(error) and chosen not in str(error):
                raise
            logger.info("the model has an attention of its own; examples are run one by one: %s", error)
            model = AutoModelForCausalLM.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise BaseModelRejected(
            f"spec.baseModel.uri: transformers cannot load the model ({type(error).__name__}: {error}); "
            "it must be a causal language model in safetensors that needs no code of its own"
        ) from error
    return model


def add_adapter(model: PreTrainedModel, training: TrainingSpec) -> PeftModel:
    """LoRA on every linear layer; the rest is frozen. Initialised from the run's seed.

    Raises:
        BaseModelRejected: the model has no linear layer, or one that peft leaves alone.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(training.seed)
    names = linear_layer_names(model)
    if not names:
        raise BaseModelRejected(
            "spec.baseModel.uri: the model has no linear layer that an adapter could go on"
        )
    config = LoraConfig(
        r=training.lora.rank,
        lora_alpha=training.lora.alpha,
        lora_dropout=training.lora.dropout,
        use_rslora=training.lora.rank_stabilized,
        target_modules=names,
        bias="none",
        task_type="CAUSAL_LM",
    )
    if model.device.type == "cuda":  # on a CPU, peft's own layers over bitsandbytes' product are as fast
        from finetune_trainer.training.frozen_linear import LAYERS

        config._register_custom_module(LAYERS)
    with warnings.catch_warnings():  # peft still asks for a property that transformers renames
        warnings.simplefilter("ignore", FutureWarning)
        try:
            adapted: PeftModel = get_peft_model(model, config)
        except ValueError as error:
            raise BaseModelRejected(
                f"spec.baseModel.uri: no adapter can be put on the model ({error}); take one of another family"
            ) from error
    if training.gradient_checkpointing:
        recompute: Any = getattr(model, "activation_checkpointing_enable", None)
        recompute = recompute or model.gradient_checkpointing_enable  # its name before transformers 5.2x
        recompute({"use_reentrant": False})
        model.enable_input_require_grads()  # type: ignore[no-untyped-call]
    adapted.train()
    return adapted


def attention_name(model: torch.nn.Module) -> str:
    """The attention that the model was loaded with, as transformers names it."""
    return str(model.config._attn_implementation)  # type: ignore[union-attr]


def trainable_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The adapter's parameters by name, in a fixed order."""
    return {
        name: parameter for name, parameter in sorted(model.named_parameters()) if parameter.requires_grad
    }
