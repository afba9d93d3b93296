"""The rows that trainings are timed with: lengths and common beginnings as real ones have them, tokens of no meaning.

`site_rows.csv` holds the shape of a real training set: `python benchmarks/training_rows.py TRAIN_JSONL TOKENIZER COUNT`
writes it, from the first rows of a dataset and a model's tokenizer. Rows in token order; each tells how many tokens it
has in common with the one before, and that is enough to know what any two of them have in common.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from finetune_contract.artifacts import Example
from finetune_contract.run_spec import PromptFormat, TrainingSpec
from finetune_trainer.training.encoding import EncodedExample, encode_rows, load_tokenizer
from finetune_trainer.training.packing import TrainingPlan, common_beginning

SITE_ROWS = Path(__file__).parent / "site_rows.csv"
LONGEST = 1024
KINDS = ("site", "unshared")
FIELDS = ("place", "shared", "prompt", "answer")


def rows_of(kind: str, vocabulary: int) -> list[EncodedExample]:
    """The rows of a kind, more than a timing needs."""
    return site_rows(vocabulary) if kind == "site" else unshared_rows(2000, vocabulary)


def unshared_rows(count: int, vocabulary: int) -> list[EncodedExample]:
    """Lognormal lengths of 32 to 1,024 tokens with a median of 160, a quarter of them answer; nothing is shared."""
    numbers = random.Random(0)  # noqa: S311 - tokens, not a secret
    rows = []
    for number in range(count):
        length = min(LONGEST, max(32, int(numbers.lognormvariate(5.075, 0.6))))
        tokens = _tokens(numbers, vocabulary, length)
        cut = length - length // 4
        rows.append(EncodedExample(f"{number:06d}", tokens[:cut], tokens[cut:]))
    return rows


def site_rows(vocabulary: int) -> list[EncodedExample]:
    """In the order of the dataset: questions about a blog, some with the passages that answer them in the prompt."""
    numbers = random.Random(0)  # noqa: S311 - tokens, not a secret
    placed: dict[int, EncodedExample] = {}
    before: tuple[int, ...] = ()
    with SITE_ROWS.open(encoding="utf-8", newline="") as file:
        for fields in csv.DictReader(file):
            place, shared, prompt, answer = (int(fields[name]) for name in FIELDS)
            tokens = before[:shared] + _tokens(numbers, vocabulary, prompt + answer - shared)
            placed[place] = EncodedExample(f"{place:06d}", tokens[:prompt], tokens[prompt:])
            before = tokens
    return [placed[place] for place in sorted(placed)]


def _tokens(numbers: random.Random, vocabulary: int, count: int) -> tuple[int, ...]:
    return tuple(numbers.randrange(10, min(vocabulary, 32000)) for _ in range(count))


def largest_plan(rows: Sequence[EncodedExample], training: TrainingSpec, row_tokens: int) -> TrainingPlan:
    """A row a step, of as many examples as keep the longest row within so many tokens."""
    whole = TrainingPlan.of(rows, training)
    for examples in range(256, 1, -1):
        plan = replace(whole, effective_batch_size=examples, micro_batch_size=examples)
        used = (batch for step in range(plan.total_steps) for batch in plan.step_micro_batches(step))
        if all(len(batch) <= row_tokens for batch in used):
            return plan
    raise SystemExit(f"--row-tokens: two examples are longer than {row_tokens} tokens; raise it")


def write_shapes(dataset: Path, tokenizer: Path, count: int) -> None:
    """The shape of a dataset's first rows, to standard output."""
    with dataset.open(encoding="utf-8") as lines:
        examples = [Example.model_validate_json(line) for _, line in zip(range(count), lines, strict=False)]
    loaded = load_tokenizer(tokenizer, PromptFormat.QUESTION_ANSWER)
    encoded = encode_rows(loaded, examples, LONGEST).rows
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(FIELDS)
    before: tuple[int, ...] = ()
    for place, row in sorted(enumerate(encoded), key=lambda numbered: numbered[1].token_ids):
        tokens = row.token_ids
        table.writerow((place, common_beginning(before, tokens), len(row.prompt_ids), len(row.answer_ids)))
        before = tokens


if __name__ == "__main__":
    write_shapes(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
