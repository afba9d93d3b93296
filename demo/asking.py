"""Asking the Django site as a program would, and showing answers of two models side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.errors import DemoError
from demo.questions import Answer, Question, faults
from finetune_contract.prompt import cited_numbers


def ask(site: str, question: str, timeout_seconds: float = 120) -> Answer:
    """One question to `/api/chat`, answered as one JSON object."""
    started = time.monotonic()
    try:
        reply = httpx.post(
            f"{site}/api/chat",
            json={"question": question},
            headers={"Accept": "application/json"},
            timeout=timeout_seconds,
        )
        reply.raise_for_status()
    except httpx.HTTPError as error:
        raise DemoError(f"{site}/api/chat: no answer to {question!r} ({error})") from error
    body = reply.json()
    sources = [source["url"] for source in body["sources"]]
    cited = [] if body["refused"] else cited_numbers(body["answer"])
    return Answer(
        text=body["answer"],
        links=tuple(sources[number - 1] for number in cited if number <= len(sources)),
        model=body.get("model") or "",
        refused=body["refused"],
        seconds=time.monotonic() - started,
    )


def ask_all(site: str, questions: Sequence[Question]) -> list[Answer]:
    """Every question, one after the other."""
    return [ask(site, question.question) for question in questions]


def keep(answers: Sequence[Answer], path: Path) -> None:
    """Write answers down, so that a broken-off demo need not ask again."""
    path.write_text(json.dumps([asdict(answer) for answer in answers], indent=1, ensure_ascii=False))


def kept(path: Path) -> list[Answer] | None:
    """The answers that were written down, if any."""
    if not path.is_file():
        return None
    return [Answer(**{**entry, "links": tuple(entry["links"])}) for entry in json.loads(path.read_text())]


def right_answers(questions: Sequence[Question], answers: Sequence[Answer]) -> int:
    """How many have no fault."""
    return sum(not faults(question, answer) for question, answer in zip(questions, answers, strict=True))


def side_by_side(
    questions: Sequence[Question],
    before: Sequence[Answer],
    after: Sequence[Answer],
    console: Console,
    models: tuple[str, str] = ("untuned", "tuned"),
) -> None:
    """The table at the end of the demo.

    Args:
        models: what the models of the two columns are called, before and after.
    """
    table = Table(title="The same questions, before and after", title_justify="left", show_lines=True)
    table.add_column("question", ratio=2)
    table.add_column(f"{models[0]} {_digest(before)}", ratio=4)
    table.add_column(f"{models[1]} {_digest(after)}", ratio=4)
    for question, old, new in zip(questions, before, after, strict=True):
        table.add_row(question.question, _cell(question, old), _cell(question, new))
    console.print(table)
    console.print(
        f"right: {right_answers(questions, before)} of {len(questions)} before, "
        f"{right_answers(questions, after)} of {len(questions)} after"
    )


def _digest(answers: Sequence[Answer]) -> str:
    model = next((answer.model for answer in answers if answer.model), "")
    return model.removeprefix("sha256:")[:12]


def _cell(question: Question, answer: Answer) -> Text:
    found = faults(question, answer)
    words = answer.text.split()
    cell = Text(" ".join(words[:60]) + (" …" if len(words) > 60 else ""))
    for link in answer.links[:2]:
        cell.append(f"\n{link}", style="blue")
    verdict = "right" if not found else "wrong: " + ", ".join(found)
    cell.append(f"\n{verdict}, {answer.seconds:.1f} s", style="green" if not found else "red")
    return cell
