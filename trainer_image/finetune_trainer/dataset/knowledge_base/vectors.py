"""Named vectors of the knowledge base: how a collection is made with them, and which text each one stands for.

Three kinds: none (BM25 alone), our own from a sentence model, or those of a module of the server. Knows no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from weaviate.classes.config import Configure
from weaviate.collections.classes.config import CollectionConfig

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import VectorsSpec

SOURCE_PROPERTIES: dict[str, list[str]] = {
    "title": ["postTitle"],
    "excerpt": ["postExcerpt"],
    "content": ["postAuthor", "postCategories", "postContent", "postTags", "postTitle"],
}
"""What a module of the server reads for each vector; it joins them in this, the alphabetical, order."""
_NO_MODULE = "none"
_MODEL_OF = re.compile(r"sentence model ([0-9a-f]+)")


class Vectoriser(Protocol):
    """Turns documents into vectors."""

    def identity(self) -> str:
        """Digest of the model; vectors of two models must not stand in one collection."""

    def vectors(self, documents: Sequence[Document]) -> list[dict[str, list[float]]]:
        """By name of the vector, for each document; a text that is empty has none."""


def vector_texts(document: Document) -> dict[str, str]:
    """The text behind each vector. Facts come before the content, so that no length limit cuts them off."""
    facts = {
        "Title": document.post_title,
        "Date": document.post_date[:10],
        "Author": document.post_author,
        "Categories": ", ".join(document.post_categories),
        "Tags": ", ".join(document.post_tags),
        "URL": document.post_url,
    }
    header = "\n".join(f"{name}: {value}" for name, value in facts.items() if value)
    texts = {
        "title": document.post_title,
        "excerpt": document.post_excerpt,
        "content": f"{header}\n\n{document.post_content}",
    }
    return {name: text for name, text in texts.items() if text.strip()}


def vector_config(spec: VectorsSpec | None) -> list[Any]:
    """How a new collection is told of its vectors. Without any it says so, or the server's default module would run."""
    if spec is None:
        return [Configure.Vectors.self_provided(name="default")]
    if spec.module is None:
        return [Configure.Vectors.self_provided(name=name) for name in SOURCE_PROPERTIES]
    return [
        Configure.Vectors.custom(
            name=name,
            module_name=spec.module,
            module_config=module_settings(spec),
            source_properties=properties,
        )
        for name, properties in SOURCE_PROPERTIES.items()
    ]


def module_settings(spec: VectorsSpec) -> dict[str, Any]:
    """The spec's settings; whole numbers and true or false as such, which modules ask for."""
    return {"vectorizeClassName": False} | {
        name: _plain_value(value) for name, value in spec.module_settings.items()
    }


def _plain_value(text: str) -> str | int | bool:
    if text in {"true", "false"}:
        return text == "true"
    return int(text) if re.fullmatch(r"0|-?[1-9][0-9]{0,8}", text) else text  # 007 is a name


def description(spec: VectorsSpec | None, identity: str) -> str:
    """Description of a new collection; it keeps the model's digest, which Weaviate has no other place for."""
    posts = "Posts, written by the dataset stage."
    if spec is None or spec.sentence_model is None:
        return posts
    return f"{posts} Vectors: sentence model {identity}."


def vector_differences(found: CollectionConfig, spec: VectorsSpec | None, identity: str) -> list[str]:
    """In words, how the vectors of a collection differ from the spec's; empty when they do not."""
    wanted = dict.fromkeys(SOURCE_PROPERTIES, (spec.module or _NO_MODULE) if spec else "")
    actual = _modules_by_vector(found)
    if spec is None:
        if set(actual.values()) <= {_NO_MODULE} and set(actual) <= {"default"}:
            return []
        return [f"it has vectors ({_in_words(actual)}) and the spec has none"]
    if actual != wanted:
        return [f"its vectors are {_in_words(actual) or 'none'} instead of {_in_words(wanted)}"]
    if spec.module is not None:
        return _setting_differences(found, spec)
    match = _MODEL_OF.search(found.description or "")
    if match is None:
        return [f'its description does not say whose vectors it has ("sentence model {identity}")']
    return [] if match[1] == identity else [f"its vectors are of sentence model {match[1]}, not {identity}"]


def _modules_by_vector(found: CollectionConfig) -> dict[str, str]:
    """By name of the vector, the module; a collection of the old form has one without a name."""
    named = found.vector_config
    if named is None:
        module = _name(found.vectorizer or _NO_MODULE)
        return {} if module == _NO_MODULE else {"default": module}
    return {name: _name(entry.vectorizer.vectorizer) for name, entry in named.items()}


def _setting_differences(found: CollectionConfig, spec: VectorsSpec) -> list[str]:
    differences = []
    for name, properties in SOURCE_PROPERTIES.items():
        there = (found.vector_config or {})[name].vectorizer
        if sorted(there.source_properties or []) != properties:
            differences.append(f"vector {name} is made of {', '.join(there.source_properties or ['all'])}")
        for setting, value in module_settings(spec).items():
            if setting in spec.module_settings and there.model.get(setting) != value:
                differences.append(
                    f"vector {name}: {setting} is {there.model.get(setting)} instead of {value}"
                )
    return differences


def _in_words(modules: Mapping[str, str]) -> str:
    return ", ".join(f"{name} by {module}" for name, module in sorted(modules.items()))


def _name(module: Any) -> str:
    return str(getattr(module, "value", module))
