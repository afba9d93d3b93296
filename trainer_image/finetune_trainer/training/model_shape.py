"""The sizes of a decoder, read from its config.json: what memory is reckoned from before any weight is loaded.

Knows the families below and says so of any other. Pure; must not know torch or transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class UnknownShape(ValueError):
    """The model is of no family whose sizes are known, or its config.json lacks one."""


@dataclass(frozen=True)
class LinearShape:
    """One linear layer of a decoder layer."""

    inputs: int
    outputs: int
    bias: bool = False


@dataclass(frozen=True)
class ModelShape:
    """A decoder of equal layers: attention with q, k, v, o; a gated MLP with gate, up, down."""

    family: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    tied_head: bool
    """The output head is the embedding table."""
    norms: int
    """Of a layer, over `hidden`."""
    head_norms: bool
    """Queries and keys are normed too."""
    query_key_value_bias: bool
    output_bias: bool
    mlp_bias: bool
    attention_softcap: bool
    logit_softcap: bool
    sliding_window: int | None
    """Tokens that a sliding layer sees; None when no layer slides."""
    sliding_layers: int

    @property
    def query_width(self) -> int:
        """All heads' queries of one token."""
        return self.heads * self.head_width

    @property
    def key_width(self) -> int:
        """All heads' keys, or values, of one token."""
        return self.key_value_heads * self.head_width

    @property
    def linears(self) -> tuple[LinearShape, ...]:
        """q, k, v, o, gate, up, down of one layer."""
        hidden, middle, bias = self.hidden, self.intermediate, self.query_key_value_bias
        return (
            LinearShape(hidden, self.query_width, bias),
            LinearShape(hidden, self.key_width, bias),
            LinearShape(hidden, self.key_width, bias),
            LinearShape(self.query_width, hidden, self.output_bias),
            LinearShape(hidden, middle, self.mlp_bias),
            LinearShape(hidden, middle, self.mlp_bias),
            LinearShape(middle, hidden, self.mlp_bias),
        )

    @property
    def full_precision_parameters(self) -> int:
        """What is never quantised: embeddings, an output head of its own, norms, biases."""
        tables = self.vocabulary * self.hidden * (1 if self.tied_head else 2)
        norms = (self.layers * self.norms + 1) * self.hidden
        head_norms = 2 * self.layers * self.head_width if self.head_norms else 0
        biases = self.layers * sum(linear.outputs for linear in self.linears if linear.bias)
        return tables + norms + head_norms + biases


_LLAMA: dict[str, object] = {"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False}
_GEMMA: dict[str, object] = {**_LLAMA, "tie_word_embeddings": True, "head_dim": 256}
_FAMILIES: dict[str, dict[str, object]] = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": 4096, "num_key_value_heads": 8},
    "qwen2": {**_LLAMA, "num_key_value_heads": 32},
    "qwen3": {**_LLAMA, "num_key_value_heads": 32, "head_dim": 128},
    "gemma": _GEMMA,
    "gemma2": {
        **_GEMMA,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
}
"""What a config.json of the family means when it leaves a field out."""


def read_model_shape(config_file: Path) -> ModelShape:
    """The shape that a config.json describes.

    Raises:
        UnknownShape: the file cannot be read, or the family is not known.
    """
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownShape(f"{config_file}: cannot be read ({error}); give a model's config.json") from error
    if not isinstance(config, dict):
        raise UnknownShape(f"{config_file}: holds no JSON object; give a model's config.json")
    return model_shape(config)


@dataclass(frozen=True)
class ModelLimits:
    """What a model can be given. None where its config.json does not say."""

    positions: int | None = None
    """Tokens of a text."""
    vocabulary: int | None = None
    """Rows of the embedding table."""


_POSITIONS = ("max_position_embeddings", "n_positions")


def read_model_limits(config_file: Path) -> ModelLimits:
    """Of any family; of a model with more than text its `text_config` counts."""
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ModelLimits()
    if not isinstance(config, dict):
        return ModelLimits()
    text = config.get("text_config")
    fields = {**config, **text} if isinstance(text, dict) else config

    def size(*names: str) -> int | None:
        found = (fields.get(name) for name in names)
        return next((value for value in found if type(value) is int and value > 0), None)

    return ModelLimits(size(*_POSITIONS), size("vocab_size"))


def model_shape(config: Mapping[str, object]) -> ModelShape:
    """The shape that the fields of a config.json describe.

    Raises:
        UnknownShape: the family is not known, or a size is missing.
    """
    family = str(config.get("model_type"))
    if family not in _FAMILIES:
        known = ", ".join(sorted(_FAMILIES))
        raise UnknownShape(
            f"config.json: the sizes of model_type {family!r} are not known, those of {known} are"
        )
    fields = {**_FAMILIES[family], **config}
    hidden, heads, layers = (
        _size(fields, name) for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    key_value_heads = (
        heads if fields.get("num_key_value_heads") is None else _size(fields, "num_key_value_heads")
    )
    window, sliding = _sliding(family, fields, layers)
    attention_bias = bool(fields["attention_bias"])
    return ModelShape(
        family=family,
        hidden=hidden,
        intermediate=_size(fields, "intermediate_size"),
        layers=layers,
        heads=heads,
        key_value_heads=key_value_heads,
        head_width=hidden // heads if fields.get("head_dim") is None else _size(fields, "head_dim"),
        vocabulary=_size(fields, "vocab_size"),
        tied_head=bool(fields["tie_word_embeddings"]),
        norms=4 if family == "gemma2" else 2,
        head_norms=family == "qwen3",
        query_key_value_bias=family == "qwen2" or attention_bias,
        output_bias=family != "qwen2" and attention_bias,
        mlp_bias=family == "llama" and bool(fields["mlp_bias"]),
        attention_softcap=fields.get("attn_logit_softcapping") is not None,
        logit_softcap=fields.get("final_logit_softcapping") is not None,
        sliding_window=window,
        sliding_layers=sliding,
    )


def _sliding(family: str, fields: Mapping[str, object], layers: int) -> tuple[int | None, int]:
    """The window and how many layers have it."""
    asked = family in {"mistral", "gemma2"} or bool(fields.get("use_sliding_window"))
    if not asked or fields.get("sliding_window") is None:
        return None, 0
    types = fields.get("layer_types")
    if isinstance(types, list):
        sliding = types.count("sliding_attention")
    elif family == "gemma2":
        sliding = (layers + 1) // 2
    elif family == "mistral":
        sliding = layers
    else:
        first = fields.get("max_window_layers", 28)
        sliding = max(0, layers - first) if isinstance(first, int) else 0
    return _size(fields, "sliding_window"), sliding


def _size(fields: Mapping[str, object], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnknownShape(f"config.json: {name} is {value!r}; it must be a whole number over 0")
    return value
