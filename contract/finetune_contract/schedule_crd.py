"""FineTuneSchedule as a CustomResourceDefinition; its template is checked as a FineTuneRun is."""

from __future__ import annotations

from finetune_contract.crd_schema import (
    Kind,
    Rule,
    Schema,
    add_rules,
    at,
    mark_lists,
    object_schema,
    rules,
    say_forms,
)
from finetune_contract.schedule_spec import FineTuneScheduleSpec
from finetune_contract.schedule_status import FineTuneScheduleStatus

KIND = "FineTuneSchedule"
PLURAL = "finetuneschedules"
MAX_NAME_LENGTH = 30
"""Longest metadata.name: the names of its runs add why and when they were made, and end at 45."""

SCHEDULE_RULES: dict[str, list[Rule]] = {
    "": [
        Rule(
            f"self.metadata.name.size() <= {MAX_NAME_LENGTH}",
            f"metadata.name is longer than {MAX_NAME_LENGTH} characters: choose a shorter name, "
            "the names of runs are made from it",
            "metadata.name",
        )
    ],
    "spec": [
        Rule(
            "has(self.cron) || has(self.revision) || has(self.onContentChange)",
            "spec says nothing about when to train: set cron, onContentChange or revision, or several of them",
        )
    ],
    "spec.template": [
        Rule(
            "!has(self.spec.compareWith)",
            "spec.template.spec.compareWith is filled in by the schedule: leave it out",
            "spec.compareWith",
        ),
        Rule(
            "!has(self.spec.cancel) || !self.spec.cancel",
            "spec.template.spec.cancel would end each run at once: leave it out, or suspend the schedule",
            "spec.cancel",
        ),
    ],
}

COLUMNS: tuple[Schema, ...] = (
    {"name": "CRON", "type": "string", "jsonPath": ".spec.cron"},
    {"name": "SUSPEND", "type": "boolean", "jsonPath": ".spec.suspend"},
    {"name": "LAST RUN", "type": "string", "jsonPath": ".status.lastRun.name"},
    {"name": "PHASE", "type": "string", "jsonPath": ".status.lastRun.phase"},
    {"name": "CHANGED", "type": "integer", "jsonPath": ".status.content.changedPosts"},
    {"name": "NEXT", "type": "string", "jsonPath": ".status.nextScheduleTime", "priority": 1},
    {"name": "NEXT CHECK", "type": "string", "jsonPath": ".status.nextCheckTime", "priority": 1},
    {
        "name": "REASON",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].reason',
        "priority": 1,
    },
    {"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)


def schedule_schema() -> Schema:
    """openAPIV3Schema of FineTuneSchedule."""
    words = "Makes a FineTuneRun at fixed times, when the posts have changed, or when Git says so."
    root = object_schema(KIND, words, FineTuneScheduleSpec, FineTuneScheduleStatus)
    template = at(root, "spec.template")
    mark_lists({"properties": {"spec": template["properties"]["spec"]}}, "")
    of_template = {path: here for path, here in rules().items() if path.partition(".")[0] == "spec"}
    for path, here in of_template.items():
        if stays := [rule for rule in here if "oldSelf" not in rule.expression]:
            add_rules(at(template, path), stays)
    for path, here in SCHEDULE_RULES.items():
        add_rules(at(root, path), here)
    say_forms(root)
    return root


SCHEDULE = Kind(KIND, PLURAL, "finetuneschedule", "fts", COLUMNS, schedule_schema)
