"""README.md of a packaged model: what it is, from what, and how to ask it. Pure text."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_contract.prompt import user_message
from finetune_contract.sections import Passage

_EXAMPLE = user_message("Your question?", [Passage("Title of a post", "Heading", "Text of the section.", "")])


def model_card(name: str, facts: Mapping[str, object], licence: str) -> str:
    """Markdown with the front matter that model hubs read."""
    front = ["---", f"base_model: {facts['baseModel']}", "library_name: transformers"]
    if licence:
        front.append(f"license: {licence}")
    rows = "\n".join(f"| {key} | {value} |" for key, value in sorted(facts.items()) if value != "")
    return "\n".join(
        [
            *front,
            "---",
            f"# {name}",
            "",
            "A model that answers from the pages of one site. It is asked with up to two passages of the site and the",
            "question, cites the passages by number, and says so when they do not hold the answer.",
            "",
            "| fact | value |",
            "|---|---|",
            rows,
            "",
            "`model.gguf` is for llama.cpp, `safetensors/` for transformers; both carry the chat template.",
            "A user turn looks so:",
            "",
            "```",
            _EXAMPLE,
            "```",
            "",
            "Licence: that of the base model" + (f" ({licence})." if licence else "."),
            "",
        ]
    )
