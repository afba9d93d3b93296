"""Which Service brings readers to a target, told from the API server's JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]
HEADLESS = "None"


@dataclass(frozen=True)
class FoundService:
    """Where it is asked; or why it cannot be."""

    name: str = ""
    ip: str = ""
    port: int = 0
    problem: str = ""


def find_service(
    services: Iterable[Json], deployment: Json, name: str | None, serving_port: int
) -> FoundService:
    """The named one, or the one that selects the pods of a Deployment and leads to their serving port.

    Of several that do, the one with the Deployment's own name, else the first by name.
    """
    template = ((deployment.get("spec") or {}).get("template") or {}) if deployment else {}
    known = {str(body["metadata"]["name"]): body for body in services}
    place = f"deployment/{deployment['metadata']['name']}"
    if name is not None:
        if name not in known:
            return FoundService(
                problem=f'Service "{name}" (spec.rollout.service.name) does not exist; create it, or leave the name out'
            )
        return _judged(known[name], template, place, serving_port)
    own = str(deployment["metadata"]["name"])
    problem = ""
    for candidate in sorted(known, key=lambda found: (found != own, found)):
        if not _selects(known[candidate], template):
            continue
        found = _judged(known[candidate], template, place, serving_port)
        if found.name:
            return found
        problem = problem or found.problem
    return FoundService(problem=problem or f"no Service selects the pods of {place}")


def _judged(service: Json, template: Json, place: str, serving_port: int) -> FoundService:
    name, spec = str(service["metadata"]["name"]), service.get("spec") or {}
    ip = str(spec.get("clusterIP") or "")
    if not _selects(service, template):
        return FoundService(problem=f'Service "{name}" does not select the pods of {place}')
    if ip in ("", HEADLESS):
        return FoundService(problem=f'Service "{name}" has no address of its own (it is headless)')
    for port in spec.get("ports") or ():
        if (
            port.get("protocol", "TCP") == "TCP"
            and _pod_port(port.get("targetPort", port["port"]), template) == serving_port
        ):
            return FoundService(name, ip, int(port["port"]))
    return FoundService(
        problem=f'Service "{name}" has no port that leads to port {serving_port} of the pods '
        "(spec.rollout.servingPort)"
    )


def _selects(service: Json, template: Json) -> bool:
    """Its selector matches the template's labels; without a selector it matches nothing."""
    selector = (service.get("spec") or {}).get("selector") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def _pod_port(target: object, template: Json) -> int:
    """A number, or the number of the container port with that name; 0 when there is none."""
    if isinstance(target, int):
        return target
    pod = template.get("spec") or {}
    for container in (*(pod.get("containers") or ()), *(pod.get("initContainers") or ())):
        for port in container.get("ports") or ():
            if port.get("name") == target:
                return int(port["containerPort"])
    return 0
