"""How much memory a training step needs, before a weight is loaded or a GPU is asked for.

Arithmetic over the model's sizes, the spec and the longest row of tokens. What autograd keeps on a CPU is reckoned from
what the layers, the adapter and `attention.py` do, operation by operation; on a GPU layers are compiled, and keep what
torch's partitioner leaves of that. Pure; must not know torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from finetune_contract.run_spec import OptimizerKind, TrainingSpec
from finetune_trainer.training.head_chunks import tokens_at_once
from finetune_trainer.training.model_shape import ModelShape

CUDA_CONTEXT_BYTES = 512 * 2**20
"""What a process takes on a GPU before its first tensor: context, kernels, cuBLAS workspace. Assumed, not measured."""
HOST_PROCESS_BYTES = 640 * 2**20
"""Python with torch, transformers and peft loaded: 0.5 GiB measured, and some room. Not in it: pages of libraries,
which the kernel may drop, and what malloc keeps between tensors."""
QUANTIZATION_BLOCK = 64
"""Weights that share a scale."""
SCALE_BLOCK = 256
"""Scales that share a scale, with double quantisation."""
MOMENT_BLOCK = 256
"""Moments of 8 bits that share a scale."""
SMALLEST_8BIT_MATRIX = 4096
"""Weights; smaller ones keep moments of 32 bits."""
LAYERS_GATHERED = 2
"""Of a base that is dealt out: the layer in use and the next."""
SHORTEST_SEQUENCE = 64
"""What the spec allows."""
FLOAT32 = 4


@dataclass(frozen=True)
class Numbers:
    """Where the step runs and how wide its numbers are."""

    device: str
    """cuda or cpu."""
    value_bytes: int
    """Of a value that flows between layers, and of a weight that is not quantised: 4 or 2."""

    @property
    def autocast(self) -> bool:
        """The adapter's products are made in 16 bits, from a 16-bit copy of its weights."""
        return self.device == "cuda" and self.value_bytes == 2

    @property
    def adapter_bytes(self) -> int:
        """Width of what flows through the adapter."""
        return self.value_bytes if self.autocast else FLOAT32

    @property
    def adapter_copies_input(self) -> bool:
        """The adapter widens each layer's input to a copy of its own."""
        return self.adapter_bytes != self.value_bytes


@dataclass(frozen=True)
class BranchSize:
    """Tokens that one example adds to the row, and those before them that they see."""

    new: int
    old: int = 0

    @property
    def seen(self) -> int:
        """Keys of the branch."""
        return self.old + self.new


@dataclass(frozen=True)
class RowSize:
    """What matters of a micro-batch."""

    branches: tuple[BranchSize, ...]
    labels: int
    """Answer tokens: as many rows of logits are made."""

    @property
    def tokens(self) -> int:
        """Length of the packed row."""
        return sum(branch.new for branch in self.branches)


def unshared_row(examples: int, tokens: int, answer_tokens: int) -> RowSize:
    """Examples of equal length that have no beginning in common: the most that they can take."""
    return RowSize((BranchSize(tokens),) * examples, examples * min(answer_tokens, tokens))


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a step after the first."""

    weights: int
    """The frozen base: 4-bit layers with their scales, and what stays in 16 or 32 bits."""
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    """What autograd keeps, with the working space of the moment where that is most."""
    process: int
    """Before the first tensor."""

    @property
    def tensors(self) -> int:
        """All but the process."""
        return self.weights + self.adapter + self.gradients + self.optimizer + self.activations

    @property
    def total(self) -> int:
        """All of it."""
        return self.tensors + self.process


def estimate_memory(
    shape: ModelShape, training: TrainingSpec, numbers: Numbers, row: RowSize, pieces: int = 1
) -> MemoryEstimate:
    """The peak of training with micro-batches of this size, in each process that holds a piece of the base."""
    parameters = adapter_parameters(shape, training)
    return MemoryEstimate(
        weights=weight_bytes(shape, training, numbers, pieces),
        adapter=parameters * FLOAT32,
        gradients=parameters * FLOAT32,
        optimizer=optimizer_bytes(shape, training),
        activations=_activation_peak(shape, training, numbers, row),
        process=CUDA_CONTEXT_BYTES if numbers.device == "cuda" else HOST_PROCESS_BYTES,
    )


def weight_bytes(shape: ModelShape, training: TrainingSpec, numbers: Numbers, pieces: int = 1) -> int:
    """The frozen base as bitsandbytes holds it; of one that is dealt out a piece, and two layers that are gathered."""
    double = training.quantization.double_quantization
    layer = sum(quantized_bytes(linear.inputs * linear.outputs, double) for linear in shape.linears)
    rotary = 2 * FLOAT32 * (shape.head_width // 2)
    if pieces > 1:
        packed = [math.ceil(linear.inputs * linear.outputs / 2) for linear in shape.linears]
        pieces_of_a_layer = sum(math.ceil(size / pieces) for size in packed)
        gathered = min(shape.layers, LAYERS_GATHERED) * pieces * pieces_of_a_layer
        rest = layer - sum(packed) + pieces_of_a_layer
        return shape.layers * rest + gathered + shape.full_precision_parameters * numbers.value_bytes + rotary
    return shape.layers * layer + shape.full_precision_parameters * numbers.value_bytes + rotary


def quantized_bytes(weights: int, double_quantization: bool) -> int:
    """One linear layer in 4 bits: two weights a byte, a scale a block, and the tables to read them with."""
    blocks = math.ceil(weights / QUANTIZATION_BLOCK)
    table = 16 * FLOAT32
    if double_quantization:
        scales = blocks + math.ceil(blocks / SCALE_BLOCK) * FLOAT32 + 256 * FLOAT32 + FLOAT32
    else:
        scales = blocks * FLOAT32
    return math.ceil(weights / 2) + scales + table


def adapter_parameters(shape: ModelShape, training: TrainingSpec) -> int:
    """Two thin matrices beside every linear layer."""
    return shape.layers * training.lora.rank * sum(linear.inputs + linear.outputs for linear in shape.linears)


def optimizer_bytes(shape: ModelShape, training: TrainingSpec) -> int:
    """Two moments a weight of the adapter. In 32 bits also a step count a matrix, in 8 bits also a scale a block."""
    rank = training.lora.rank
    matrices = [rank * side for linear in shape.linears for side in (linear.inputs, linear.outputs)]
    if training.optimizer is OptimizerKind.ADAMW_8BIT:
        of_a_layer = sum(
            2 * (size + math.ceil(size / MOMENT_BLOCK) * FLOAT32)
            if size >= SMALLEST_8BIT_MATRIX
            else 2 * size * FLOAT32
            for size in matrices
        )
    else:
        of_a_layer = sum(2 * size * FLOAT32 + FLOAT32 for size in matrices)
    return shape.layers * of_a_layer


def kept_activations(shape: ModelShape, training: TrainingSpec, numbers: Numbers, row: RowSize) -> int:
    """What autograd keeps of a whole forward pass without checkpointing, with the loss."""
    layers = _layers(shape, training, numbers, row) - _norm(
        shape, row
    )  # nothing before the first norm learns
    return _around_layers(shape, training, numbers, row) + layers + _kept_loss(shape, numbers, row)


def _activation_peak(shape: ModelShape, training: TrainingSpec, numbers: Numbers, row: RowSize) -> int:
    """The larger of two moments: the loss, with all layers kept; the last layer's way back, with the loss gone."""
    kept_loss = _kept_loss(shape, numbers, row)
    last_norm = _norm(shape, row)
    if training.gradient_checkpointing:
        inputs = row.tokens * shape.hidden * numbers.value_bytes
        kept = _around_layers(shape, training, numbers, row) + shape.layers * inputs
        again = max(_layer(shape, training, numbers, row, sliding) for sliding in _kinds(shape))
        if numbers.value_bytes == FLOAT32:
            again -= inputs  # the first norm keeps its input as it is
    else:
        kept = kept_activations(shape, training, numbers, row) - kept_loss
        again = 0
    return (
        kept
        + kept_loss
        + max(_logits(shape, numbers, row), again - last_norm + _way_back(shape, numbers, row))
    )


def _norm(shape: ModelShape, row: RowSize) -> int:
    """What a norm keeps: its input in 32 bits, and a factor a token."""
    return row.tokens * (shape.hidden + 1) * FLOAT32


def _around_layers(shape: ModelShape, training: TrainingSpec, numbers: Numbers, row: RowSize) -> int:
    """The last norm, sines and cosines, masks, and the 16-bit copy of the adapter."""
    angles = 2 * row.tokens * shape.head_width * numbers.value_bytes
    on_gpu = numbers.device == "cuda"  # there a mask is a number a token
    masks = 0 if on_gpu else sum(branch.new * branch.seen for branch in row.branches if branch.old)
    copies = adapter_parameters(shape, training) * numbers.adapter_bytes if numbers.autocast else 0
    return _norm(shape, row) + angles + masks + copies


def _kinds(shape: ModelShape) -> dict[bool, int]:
    """How many layers slide, and how many do not."""
    kinds = {True: shape.sliding_layers, False: shape.layers - shape.sliding_layers}
    return {sliding: count for sliding, count in kinds.items() if count}


def _layers(shape: ModelShape, training: TrainingSpec, numbers: Numbers, row: RowSize) -> int:
    return sum(
        count * _layer(shape, training, numbers, row, sliding) for sliding, count in _kinds(shape).items()
    )


def _layer(shape: ModelShape, training: TrainingSpec, numbers: Numbers, row: RowSize, sliding: bool) -> int:
    """What one decoder layer keeps for its way back."""
    if numbers.device == "cuda":
        return row.tokens * _compiled_layer(shape, training, numbers)
    norms = shape.norms * (shape.hidden + 1) * FLOAT32
    if shape.head_norms:
        norms += (shape.query_width + shape.key_width + shape.heads + shape.key_value_heads) * FLOAT32
    gate = 3 * shape.intermediate * numbers.value_bytes  # before and after the activation, and what it gates
    a_token = norms + _adapter_inputs(shape, training, numbers) + gate
    attention = sum(_attention(shape, numbers, branch, sliding) for branch in row.branches)
    return row.tokens * a_token + attention


def _compiled_layer(shape: ModelShape, training: TrainingSpec, numbers: Numbers) -> int:
    """What a compiled layer keeps of a token: what costs a product or a kernel; the rest is computed again from it.

    That is the input of every norm and of the adapter behind it, queries, keys, values and what attention makes of
    them, three of the MLP's width, and the adapter's narrow values. With dropout each linear layer has an input of its
    own, and a byte a value of it that says what was dropped. Counted with torch 2.11 for Llama and Gemma 2.
    """
    streams = (shape.norms + 2) * shape.hidden
    mixed = 2 * shape.query_width + 2 * shape.key_width
    inner = len(shape.linears) * training.lora.rank
    statistics = (shape.norms + shape.heads) * FLOAT32
    dropped = copies = 0
    if training.lora.dropout:
        query, _, _, output, gate, _, down = shape.linears
        dropped = sum(linear.inputs for linear in shape.linears)
        copies = dropped - sum(linear.inputs for linear in (query, output, gate, down))
    values = streams + mixed + 3 * shape.intermediate + inner + copies
    return values * numbers.value_bytes + dropped + statistics


def _adapter_inputs(shape: ModelShape, training: TrainingSpec, numbers: Numbers) -> int:
    """A token's inputs to the adapter, on a CPU. Layers share theirs unless dropout or widening makes copies;
    of a value that dropout may have dropped a factor is kept."""
    width = numbers.adapter_bytes
    query, _, _, output, gate, _, down = shape.linears
    inner = len(shape.linears) * training.lora.rank * width
    if training.lora.dropout:
        return inner + sum(linear.inputs for linear in shape.linears) * 2 * width
    if numbers.adapter_copies_input:
        return inner + sum(linear.inputs for linear in shape.linears) * width
    return inner + sum(linear.inputs for linear in (query, output, gate, down)) * width


def _attention(shape: ModelShape, numbers: Numbers, branch: BranchSize, sliding: bool) -> int:
    """What attention over one branch keeps on a CPU."""
    width = numbers.value_bytes
    queries, keys = branch.new * shape.query_width, branch.seen * shape.key_width
    scores = branch.new * branch.seen
    if shape.attention_softcap:
        repeated = 2 * branch.seen * shape.query_width * width
        narrowed = 0 if width == FLOAT32 else width
        return queries * width + repeated + scores * (shape.heads * (width + FLOAT32 + narrowed) + 1)
    window = shape.sliding_window if sliding else None
    masked = branch.old > 0 or (window is not None and branch.seen > window)
    mask = scores * width if masked else 0
    return (2 * queries + 2 * keys) * width + branch.new * shape.heads * FLOAT32 + mask


def _kept_loss(shape: ModelShape, numbers: Numbers, row: RowSize) -> int:
    """The gradient of what goes into the head, made on the way forward."""
    return row.labels * shape.hidden * numbers.value_bytes


def _logits(shape: ModelShape, numbers: Numbers, row: RowSize) -> int:
    """Logits of a piece of the answer tokens, their log-probabilities and gradients; a soft cap keeps what it bent."""
    capped = numbers.value_bytes if shape.logit_softcap else 0
    tokens = min(row.labels, tokens_at_once(shape.vocabulary))
    return tokens * shape.vocabulary * (3 * FLOAT32 + capped)


def _way_back(shape: ModelShape, numbers: Numbers, row: RowSize) -> int:
    """Gradients in flight in the MLP, and one weight matrix out of its 4 bits."""
    a_token = 2 * shape.intermediate + shape.hidden
    return (row.tokens * a_token + shape.intermediate * shape.hidden) * numbers.value_bytes


def micro_batch_sizes(training: TrainingSpec) -> list[int]:
    """Sizes that fill the effective batch, the largest first."""
    batch = training.effective_batch_size
    return [size for size in range(min(batch, 1024), 0, -1) if batch % size == 0]


def remedies(training: TrainingSpec) -> Iterator[TrainingSpec]:
    """What to try when memory does not do: smaller micro-batches, then checkpointing, then shorter sequences."""
    sizes = [size for size in micro_batch_sizes(training) if size <= training.micro_batch_size]
    for checkpointing in (False, True):
        if checkpointing or not training.gradient_checkpointing:
            for size in sizes:
                yield _changed(training, micro_batch_size=size, gradient_checkpointing=checkpointing)
    length = training.sequence_length // 2
    while length >= SHORTEST_SEQUENCE:
        yield _changed(training, micro_batch_size=1, gradient_checkpointing=True, sequence_length=length)
        length //= 2


def first_that_fits(
    candidates: Iterable[TrainingSpec],
    shape: ModelShape,
    numbers: Numbers,
    row_of: Callable[[TrainingSpec], RowSize | None],
    room: int,
    pieces: int = 1,
) -> TrainingSpec | None:
    """The first whose tensors fit into `room` bytes; None when none does.

    Args:
        row_of: the heaviest micro-batch of a training; None when no example is left.
        pieces: how many processes the base is dealt out over.
    """
    for training in candidates:
        row = row_of(training)
        if row is not None and estimate_memory(shape, training, numbers, row, pieces).tensors <= room:
            return training
    return None


def first_way_that_fits(
    training: TrainingSpec,
    shape: ModelShape,
    numbers: Numbers,
    row_of: Callable[[TrainingSpec], RowSize | None],
    room: int,
    processes: int,
) -> tuple[TrainingSpec | None, int]:
    """The first remedy that fits, and how many processes the base is dealt out over for it.

    Whole in every process is tried first, for that sends no weights around; shorter sequences last.
    """
    tried = list(remedies(training))
    lossless = [one for one in tried if one.sequence_length == training.sequence_length]
    ways = [(lossless, 1), (lossless, processes), (tried, processes)]
    for candidates, pieces in ways:
        fitting = first_that_fits(candidates, shape, numbers, row_of, room, pieces)
        if fitting is not None:
            return fitting, pieces
    return None, processes


def changes_in_words(training: TrainingSpec, fitting: TrainingSpec, pieces: int = 1) -> str:
    """The fields to change, as they are written in the spec, and whether the base is dealt out."""
    changes: list[str] = []
    if fitting.micro_batch_size != training.micro_batch_size:
        changes.append(f"spec.training.microBatchSize: {fitting.micro_batch_size}")
    if fitting.gradient_checkpointing != training.gradient_checkpointing:
        changes.append("spec.training.gradientCheckpointing: true")
    if fitting.sequence_length != training.sequence_length:
        changes.append(f"spec.training.sequenceLength: {fitting.sequence_length}")
    if pieces > 1:
        changes.append(f"the base model dealt out over {pieces} processes")
    return " and ".join(changes)


def _changed(training: TrainingSpec, **fields: object) -> TrainingSpec:
    return training.model_copy(update=fields)
