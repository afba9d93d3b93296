"""FineTuneRun as a CustomResourceDefinition: its schema, its CEL rules, its columns.

Knows pydantic's JSON schema and what Kubernetes calls a structural schema; must not know a cluster.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from finetune_contract.model import ContractModel
from finetune_contract.run_spec import (
    LABEL_KEY,
    LABEL_KEY_WORDS,
    MOST_TRIALS,
    SOURCE_SETTINGS,
    ExampleKind,
    FineTuneRunSpec,
    MarkdownSource,
    RolloutSpec,
    RolloutTarget,
    SourceSpec,
    SweepSpec,
    VectorsSpec,
)
from finetune_contract.run_status import FineTuneRunStatus
from finetune_contract.text_forms import FORM, PRIVATE

GROUP = "finetune-operator.io"
VERSION = "v1alpha1"
KIND = "FineTuneRun"
PLURAL = "finetuneruns"
API_VERSION = f"{GROUP}/{VERSION}"

MAX_NAME_LENGTH = 45
"""Longest metadata.name: names of Jobs add the stage, the attempt and a piece of the uid, and end at 63."""
MUTABLE_SPEC_FIELDS = ("suspend", "cancel", "ttlSecondsAfterFinished")
MUTABLE_ROLLOUT_FIELDS = ("approved", "smokeTest", "service")

Schema = dict[str, Any]

LIST_TYPES: Mapping[str, Schema] = {
    "spec.dataset.sources": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    "spec.dataset.sources[].wordpress.postTypes": {"x-kubernetes-list-type": "set"},
    "spec.dataset.sources[].wordpress.rootCategories": {"x-kubernetes-list-type": "set"},
    "spec.dataset.exampleKinds": {"x-kubernetes-list-type": "set"},
    "spec.training.sweep.learningRate": {"x-kubernetes-list-type": "set"},
    "spec.training.sweep.rank": {"x-kubernetes-list-type": "set"},
    "spec.training.sweep.alpha": {"x-kubernetes-list-type": "set"},
    "spec.training.sweep.epochs": {"x-kubernetes-list-type": "set"},
    "spec.training.sweep.embeddingNoise": {"x-kubernetes-list-type": "set"},
    "spec.rollout.target.deployment.others": {"x-kubernetes-list-type": "set"},
    "status.conditions": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
}
"""How server-side apply merges a list. Every other list has one owner: atomic."""


@dataclass(frozen=True)
class Rule:
    """One CEL rule. `field` is the path that the API server names, from where the rule stands."""

    expression: str
    message: str
    field: str = ""
    forbidden: bool = False

    def to_schema(self) -> Schema:
        """As an entry of x-kubernetes-validations."""
        rule: Schema = {"rule": self.expression, "message": self.message}
        if self.field:
            rule["fieldPath"] = f".{self.field}"
        if self.forbidden:
            rule["reason"] = "FieldValueForbidden"
        return rule


def rules() -> dict[str, list[Rule]]:
    """Every CEL rule by the path that it stands at; the empty path is the whole object."""
    spec_fields = [
        name for name in _aliases(FineTuneRunSpec) if name not in (*MUTABLE_SPEC_FIELDS, "rollout")
    ]
    rollout_fields = [name for name in _aliases(RolloutSpec) if name not in MUTABLE_ROLLOUT_FIELDS]
    kinds = [kind.value for kind in ExampleKind]
    return {
        "": [
            Rule(
                f"self.metadata.name.size() <= {MAX_NAME_LENGTH}",
                f"metadata.name is longer than {MAX_NAME_LENGTH} characters: choose a shorter name, "
                "the names of Jobs are made from it",
                "metadata.name",
            )
        ],
        "spec": [
            *(_immutable(name, f"spec.{name}", _required(FineTuneRunSpec, name)) for name in spec_fields),
            Rule(
                "!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",
                "spec.cancel cannot be taken back: create a new FineTuneRun instead",
                "cancel",
                forbidden=True,
            ),
            Rule(
                "!has(self.rollout) || self.rollout.mode != 'Automatic' || !has(self.evaluation) || "
                "self.evaluation.gates.size() > 0",
                "spec.rollout.mode Automatic needs at least one gate in spec.evaluation.gates: add one, "
                "or set spec.rollout.mode to Manual",
                "evaluation.gates",
            ),
            Rule(
                "!has(self.training) || !has(self.training.sweep) || !has(self.resources) || "
                "!has(self.resources.train) || !has(self.resources.train.gpu) || "
                "((!has(self.resources.train.gpu.count) || self.resources.train.gpu.count == 1) && "
                "(!has(self.resources.train.gpu.nodes) || self.resources.train.gpu.nodes == 1))",
                "spec.training.sweep trains each trial on one GPU: set count and nodes of spec.resources.train.gpu "
                "to 1 (spec.training.sweep.parallelism trains trials side by side), or leave the sweep out",
                "training.sweep",
            ),
        ],
        "spec.dataset": [
            Rule(
                "!has(self.exampleKinds) || !self.exampleKinds.exists(kind, kind == 'generated') || "
                "has(self.generator)",
                "spec.dataset.generator is needed by the kind generated: set it, or leave the kind out",
                "generator",
            ),
            Rule(
                f"!has(self.exampleShares) || self.exampleShares.all(kind, kind in {kinds})",
                f"spec.dataset.exampleShares names a kind that is not known: choose {', '.join(kinds)}",
                "exampleShares",
            ),
        ],
        "spec.dataset.sources[]": [_exactly_one(SourceSpec, "a source", besides=SOURCE_SETTINGS)],
        "spec.dataset.sources[].wordpress": [
            Rule(
                "!has(self.credentialsSecretRef) || !has(self.tokenSecretRef)",
                "tokenSecretRef stands beside credentialsSecretRef: sign in with one of them",
                "tokenSecretRef",
            ),
            Rule(
                "!has(self.frontProxy) || (has(self.frontProxy.header) && "
                "self.frontProxy.header.lowerAscii() != 'authorization') || "
                "(!has(self.credentialsSecretRef) && !has(self.tokenSecretRef))",
                "frontProxy.header Authorization carries the sign-in to WordPress already: choose another header that "
                "the proxy reads, such as Proxy-Authorization",
                "frontProxy",
            ),
            Rule(
                "has(self.credentialsSecretRef) || has(self.tokenSecretRef) || !has(self.statuses) || "
                "self.statuses.all(status, status == 'publish')",
                "statuses names posts that are shown to signed-in users only: set credentialsSecretRef, or leave "
                "publish alone",
                "statuses",
            ),
        ],
        "spec.dataset.sources[].markdown": [
            _exactly_one(MarkdownSource, "a markdown source", besides=("base_url",))
        ],
        "spec.dataset.knowledgeBase.weaviate.vectors": [
            _exactly_one(VectorsSpec, "vectors", besides=("module_settings",))
        ],
        "spec.training": [
            Rule(
                # has(): the API server also judges the default `{}`, before the fields' own defaults are in it
                "!has(self.microBatchSize) || !has(self.effectiveBatchSize) || self.microBatchSize < 1 || "
                "self.effectiveBatchSize % self.microBatchSize == 0",
                "spec.training.microBatchSize does not divide effectiveBatchSize: choose a divisor of it, such as 1",
                "microBatchSize",
            )
        ],
        "spec.training.sweep": [
            Rule(
                f"{_trials()} >= 2",
                "spec.training.sweep has nothing to compare: name at least two values of a setting",
            ),
            Rule(
                f"{_trials()} <= {MOST_TRIALS}",
                f"spec.training.sweep makes more than {MOST_TRIALS} trials: take values away",
            ),
        ],
        "spec.evaluation.gates[]": [
            Rule(
                "has(self.minimum) || has(self.minimumGain)",
                "a gate needs minimum or minimumGain: set one of them, or both",
            )
        ],
        "spec.scheduling": [
            Rule(
                f"!has(self.nodeSelector) || self.nodeSelector.all(key, key.matches(r'{LABEL_KEY}'))",
                f"spec.scheduling.nodeSelector holds what is no label's key: {LABEL_KEY_WORDS}",
                "nodeSelector",
            )
        ],
        "spec.scheduling.tolerations[]": [
            Rule(
                "!has(self.value) || self.value == '' || self.operator != 'Exists'",
                "value stands beside operator Exists: leave it out, or set operator to Equal",
                "value",
            ),
            Rule(
                "(has(self.key) && self.key != '') || self.operator == 'Exists'",
                "key is needed by operator Equal: name it, or set operator to Exists",
                "key",
            ),
        ],
        "spec.rollout": [
            *(
                _immutable(name, f"spec.rollout.{name}", _required(RolloutSpec, name))
                for name in rollout_fields
            ),
            Rule(
                "self.mode == 'None' || has(self.target)",
                "spec.rollout.target is needed unless spec.rollout.mode is None: name the Deployment in "
                "target.deployment.name, or set mode to None",
                "target",
            ),
            Rule(
                "self.mode != 'Publish' || !has(self.target) || !has(self.target.deployment) || "
                "!has(self.target.deployment.others) || self.target.deployment.others.size() == 0",
                "spec.rollout.target.deployment.others needs mode Automatic or Manual, for Publish writes the record "
                "of one Deployment: make a run for each",
                "target",
            ),
        ],
        "spec.rollout.target": [_exactly_one(RolloutTarget, "spec.rollout.target")],
        "spec.rollout.target.deployment": [
            Rule(
                "!has(self.others) || !(self.name in self.others)",
                "spec.rollout.target.deployment.others repeats the Deployment of name: name each Deployment once",
                "others",
            ),
        ],
    }


PRINTER_COLUMNS: tuple[Schema, ...] = (
    {"name": "PHASE", "type": "string", "jsonPath": ".status.phase"},
    {"name": "MODEL", "type": "string", "jsonPath": ".spec.baseModel.uri"},
    {"name": "STEP", "type": "integer", "jsonPath": ".status.progress.step"},
    {"name": "LOSS", "type": "string", "jsonPath": ".status.progress.loss"},
    {"name": "ETA", "type": "string", "jsonPath": ".status.progress.eta"},
    {"name": "GATE", "type": "string", "jsonPath": ".status.evaluation.gate"},
    {
        "name": "REASON",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].reason',
        "priority": 1,
    },
    {
        "name": "TOKENS/S",
        "type": "string",
        "jsonPath": ".status.progress.tokensPerSecond",
        "priority": 1,
    },
    {"name": "GPU-SECONDS", "type": "integer", "jsonPath": ".status.usage.gpuSeconds", "priority": 1},
    {"name": "LOST", "type": "integer", "jsonPath": ".status.usage.lostGpuSeconds", "priority": 1},
    {"name": "COST", "type": "string", "jsonPath": ".status.usage.cost", "priority": 1},
    {"name": "RUNKEY", "type": "string", "jsonPath": ".status.runKey", "priority": 1},
    {"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)


def structural_schema(model: type[BaseModel], *, defaults: bool) -> Schema:
    """A model as Kubernetes wants it: no references, no unions with null, no titles, bounds in the old form.

    Args:
        model: a contract type.
        defaults: write the defaults of optional fields into the schema. Left out for status: the API server
            would otherwise fill in what the operator has not said.
    """
    document = model.model_json_schema(by_alias=True)
    return _structural(document, document.get("$defs", {}), defaults)


def run_schema() -> Schema:
    """openAPIV3Schema of FineTuneRun."""
    words = "One tuned model: from documents to a live answer. A new intent is a new FineTuneRun."
    root = object_schema(KIND, words, FineTuneRunSpec, FineTuneRunStatus)
    for path, here in rules().items():
        add_rules(at(root, path), here)
    say_forms(root)
    return root


def object_schema(kind: str, words: str, spec: type[BaseModel], status: type[BaseModel]) -> Schema:
    """An object of Kubernetes with that spec and status, without rules."""
    said = structural_schema(status, defaults=False)
    said["default"] = {"observedGeneration": -1}
    root: Schema = {
        "description": words,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {API_VERSION}."},
            "kind": {"type": "string", "description": f"Always {kind}."},
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": structural_schema(spec, defaults=True),
            "status": said,
        },
    }
    mark_lists(root, "")
    return root


def at(schema: Schema, path: str) -> Schema:
    """The part of a schema at a path such as `spec.dataset.sources[].wordpress`."""
    for step in path.split(".") if path else ():
        schema = schema["properties"][step.removesuffix("[]")]
        if step.endswith("[]"):
            schema = schema["items"]
    return schema


@dataclass(frozen=True)
class Kind:
    """A kind of object that the operator brings."""

    name: str
    plural: str
    singular: str
    short_name: str
    columns: tuple[Schema, ...]
    schema: Callable[[], Schema]
    """openAPIV3Schema."""


RUN = Kind(KIND, PLURAL, "finetunerun", "ftr", PRINTER_COLUMNS, run_schema)


def custom_resource_definition(kind: Kind = RUN) -> Schema:
    """The whole CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": [kind.short_name],
                "categories": ["finetune"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [dict(column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": kind.schema()},
                }
            ],
        },
    }


_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "pattern",
    FORM,
    PRIVATE,
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "multipleOf",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}


def _structural(node: Schema, definitions: Mapping[str, Schema], fill: bool) -> Schema:
    """One node, with everything below it."""
    node = _resolved(node, definitions)
    result: Schema = {key: node[key] for key in _KEPT if key in node}
    if "description" in result:
        result["description"] = " ".join(inspect.cleandoc(result["description"]).split())
    for exclusive, bound in _EXCLUSIVE.items():
        if exclusive in node:
            result[bound] = node[exclusive]
            result[exclusive] = True
    if "items" in node:
        result["items"] = _structural(node["items"], definitions, fill)
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(node["additionalProperties"], definitions, fill)
    if fill and node.get("default") is not None:
        result["default"] = _without_nulls(node["default"])
    if "properties" in node:
        result["required"] = list(node.get("required", ()))
        if not result["required"]:
            del result["required"]
        result["properties"] = {
            name: _structural(part, definitions, fill) for name, part in node["properties"].items()
        }
        if fill and isinstance(result.get("default"), dict):
            result["default"] = _beyond_defaults(result["default"], result["properties"])
    return result


def _resolved(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """The node with `$ref` replaced by what it names and `X or null` by X; what stands beside them wins."""
    while True:
        if "$ref" in node:
            named = definitions[node["$ref"].rsplit("/", 1)[-1]]
            node = {**named, **{key: value for key, value in node.items() if key != "$ref"}}
        elif "anyOf" in node:
            members = [member for member in node["anyOf"] if member.get("type") != "null"]
            if len(members) != 1:
                raise ValueError(f"a structural schema has no unions: {node['anyOf']}")
            node = {**members[0], **{key: value for key, value in node.items() if key != "anyOf"}}
        else:
            return node


def _without_nulls(value: Any) -> Any:
    """A default as it would be written: what is not set is not named."""
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _beyond_defaults(default: Schema, properties: Schema) -> Schema:
    """The part of an object's default that its fields' own defaults do not say already."""
    return {
        name: value
        for name, value in default.items()
        if value != _effective_default(properties.get(name, {}))
    }


def _effective_default(schema: Schema) -> Any:
    """What the API server fills in for a field that is left out."""
    default = schema.get("default")
    if not isinstance(default, dict) or "properties" not in schema:
        return default
    filled = {name: _effective_default(part) for name, part in schema["properties"].items()}
    return {**{name: value for name, value in filled.items() if value is not None}, **default}


def mark_lists(schema: Schema, path: str) -> None:
    """Give every list its merge type."""
    if schema.get("type") == "array":
        schema.update(LIST_TYPES.get(path, {"x-kubernetes-list-type": "atomic"}))
        mark_lists(schema["items"], f"{path}[]")
    for name, part in schema.get("properties", {}).items():
        mark_lists(part, f"{path}.{name}" if path else name)


def say_forms(schema: Schema) -> None:
    """What text and numbers must be like, in words of ours where Kubernetes' own would not do."""
    _say_private_forms(schema)
    if FORM in schema:
        add_rules(schema, [Rule(f"self.matches(r'{schema['pattern']}')", schema.pop(FORM))])
    _say_fractions(schema)
    for name in ("items", "additionalProperties"):
        if name in schema:
            say_forms(schema[name])
    for part in schema.get("properties", {}).values():
        say_forms(part)


def _say_private_forms(schema: Schema) -> None:
    """The API server repeats what it finds where a pattern or a rule stands at the text itself; of a rule that stands
    at the object it repeats nothing."""
    for name, part in schema.get("properties", {}).items():
        if part.pop(PRIVATE, False):
            there = "" if name in schema.get("required", ()) else f"!has(self.{name}) || "
            matches = f"self.{name}.matches(r'{part.pop('pattern')}')"
            words = f"what was found does not fit: {part.pop(FORM)}"
            add_rules(schema, [Rule(there + matches, words, name)])


def _say_fractions(schema: Schema) -> None:
    """Where it finds a whole number, the API server compares it with the bound's whole part: it takes 0 for 0.02, and
    says of 1 that it is over 0."""
    bounds = [schema[bound] for bound in ("minimum", "maximum") if bound in schema]
    if all(float(bound).is_integer() for bound in bounds):
        return
    words = range_in_words(schema)
    above = ">" if schema.pop("exclusiveMinimum", False) else ">="
    lowest, highest = float(schema.pop("minimum")), float(schema.pop("maximum"))
    add_rules(schema, [Rule(f"self {above} {lowest} && self <= {highest}", words)])


def range_in_words(schema: Schema) -> str:
    """Which numbers may stand there, as a remedy."""
    kind = "a whole number " if schema.get("type") == "integer" else ""
    above = "more than " if schema.get("exclusiveMinimum") else ""
    lowest, highest = schema["minimum"], schema["maximum"]
    return f"choose {kind}{above}{lowest} {'and at most' if above else 'to'} {highest}"


def add_rules(schema: Schema, here: Iterable[Rule]) -> None:
    """Beside those that stand there."""
    schema.setdefault("x-kubernetes-validations", []).extend(rule.to_schema() for rule in here)


def _aliases(model: type[ContractModel]) -> Iterable[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _required(model: type[ContractModel], alias: str) -> bool:
    return any(
        field.is_required() for name, field in model.model_fields.items() if (field.alias or name) == alias
    )


def _immutable(name: str, path: str, required: bool) -> Rule:
    same = f"self.{name} == oldSelf.{name}"
    if not required:
        same = f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || {same})"
    return Rule(same, f"{path} is immutable: create a new FineTuneRun instead", name, forbidden=True)


def _exactly_one(model: type[ContractModel], what: str, besides: tuple[str, ...] = ()) -> Rule:
    kinds = [field.alias or name for name, field in model.model_fields.items() if name not in besides]
    present = ", ".join(f"has(self.{kind})" for kind in kinds)
    return Rule(
        f"[{present}].filter(x, x).size() == 1",
        f"{what} needs exactly one kind: set one of {', '.join(kinds)}",
    )


def _trials() -> str:
    """How many combinations the values of a sweep make, in CEL."""
    sizes = (
        f"(has(self.{name}) && self.{name}.size() > 0 ? self.{name}.size() : 1)"
        for name in (SweepSpec.model_fields[field].alias or field for field in SweepSpec.settings())
    )
    return " * ".join(sizes)
