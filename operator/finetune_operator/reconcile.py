"""Gather, decide, act: the one place where the pure core meets the cluster. Must not know kopf or the queue."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from finetune_contract.run_status import ConditionStatus, ConditionType, FineTuneRunStatus, Phase, Reason
from finetune_operator import reading
from finetune_operator.actions import Action, Decision
from finetune_operator.conditions import false, merged, true
from finetune_operator.errors import ClusterRefused, InvalidRun, NotFound, OperatorError, StaleObject
from finetune_operator.events import Repeats, RunEvent, transitions
from finetune_operator.lifecycle import (
    children_tell_all,
    decide,
    is_over,
    only_notes,
    refused,
    rollout_targets,
)
from finetune_operator.memory import Memory, Sight
from finetune_operator.observed import Observed, Run, RunKey
from finetune_operator.operator_log import about
from finetune_operator.outlook import RUNNING_SECONDS, Unhurried
from finetune_operator.timestamps import to_rfc3339
from finetune_operator.turns import AGAIN_SECONDS, Turns
from finetune_operator.usage import NO_PRICES, Prices

logger = logging.getLogger(__name__)

AT_ONCE = 0.0
INVALID_SECONDS = 300.0
LOOKS_A_SECOND = 20.0
"""At runs of which only progress is expected; where there are more, each is looked at less often."""

Children = TypeVar("Children")
Written = Callable[[RunKey, FineTuneRunStatus, FineTuneRunStatus], None]
"""The run, its status before the write and after it."""


class RunCluster(Protocol[Children]):
    """What reconciling needs of the cluster."""

    async def read_run(self, key: RunKey) -> dict[str, Any] | None: ...
    async def read_children(self, run: Run) -> Children: ...
    async def observe(self, run: Run, children: Children, *, logs: bool = True) -> Observed: ...
    async def apply(self, run: Run, actions: tuple[Action, ...]) -> None: ...
    async def write_status(self, run: Run, status: FineTuneRunStatus) -> str: ...
    async def write_status_of(
        self, key: RunKey, resource_version: str, status: dict[str, object]
    ) -> object: ...
    async def publish(self, run: Run, events: tuple[RunEvent, ...], now: str) -> None: ...


class _LookAnew(Exception):
    """What is remembered does not do."""


@dataclass(frozen=True)
class _NotWritten:
    """The status write was refused: when to look again instead."""

    look_again: float | None


class Reconciler(Generic[Children]):
    """Brings one run a step further."""

    def __init__(
        self,
        cluster: RunCluster[Children],
        clock: Callable[[], datetime],
        prices: Prices = NO_PRICES,
        memory: Memory[Children] | None = None,
        call: Callable[[RunKey], None] = lambda key: None,
        chance: Callable[[], float] = random.random,
        written: Written = lambda key, before, after: None,
        refusal: Callable[[OperatorError], None] = lambda error: None,
    ) -> None:
        """`call` has a run worked on soon: one that waited for its turn at a target.

        Args:
            written: told of each status write that succeeded.
            refusal: told why a pass did not get on where only a person can help.
            memory: whoever hears that something happened to a run makes it forget the run.
        """
        self._cluster = cluster
        self._clock = clock
        self._prices = prices
        self._chance = chance
        self._written = written
        self._refusal = refusal
        self._repeats = Repeats()
        self.memory: Memory[Children] = Memory() if memory is None else memory
        self._turns = Turns(call)

    async def reconcile(self, key: RunKey) -> float | None:
        """One pass over one run.

        Returns:
            Seconds until the next pass; None when an event will call for it.

        Raises:
            ClusterUnavailable: nothing was decided, or not all of it was done; try again.
        """
        with about(key):
            return await self._look(key)

    async def _look(self, key: RunKey) -> float | None:
        sight = self.memory.recall(key)
        if sight is not None:
            try:
                return await (self._first_look(key, sight) if sight.listed else self._from_memory(key, sight))
            except _LookAnew:
                self.memory.forget(key)
        look = self.memory.begin(key)
        body = await self._cluster.read_run(key)
        if body is None:
            self.memory.forget(key)
            return None
        try:
            run = reading.run(body)
        except InvalidRun as error:
            self._refusal(error)
            return await self._say_invalid(key, body, str(error))
        if run.deleting:
            return None
        return await self._in_turn(run, body, look)

    async def _first_look(self, key: RunKey, sight: Sight[Children]) -> float:
        """After a start everything was listed: where nothing is to be done, the logs are read by and by."""
        look = self.memory.begin(key)
        run, decision = await self._decided(sight)
        if not only_notes(run.status, decision):
            raise _LookAnew
        self.memory.keep(key, look, sight.run, sight.children)
        return Unhurried(max(RUNNING_SECONDS, len(self.memory) / LOOKS_A_SECOND) * self._chance())

    async def _from_memory(self, key: RunKey, sight: Sight[Children]) -> float | None:
        """Nothing was heard of the run since it was read: note what its log and the clock say."""
        look = self.memory.begin(key)
        run, decision = await self._decided(sight)
        if not only_notes(run.status, decision):
            raise _LookAnew
        if decision.status != run.status:
            try:
                version = await self._cluster.write_status(run, decision.status)
            except (StaleObject, NotFound, ClusterRefused) as error:
                raise _LookAnew from error
            await self._tell(run, decision)
            self.memory.keep(key, look, _as_written(sight.run, decision, version), sight.children)
        return self._delay(decision)

    async def _decided(self, sight: Sight[Children]) -> tuple[Run, Decision]:
        """What would be decided if all were still as it was read."""
        try:
            run = reading.run(sight.run)
        except InvalidRun as error:
            raise _LookAnew from error
        if run.deleting or not children_tell_all(run):
            raise _LookAnew
        observed = await self._cluster.observe(run, sight.children, logs=not sight.listed)
        return run, decide(run, observed, self._clock(), self._prices)

    def _delay(self, decision: Decision) -> float | None:
        """When the next look is due. There is a limit to what looking for progress may cost."""
        delay = decision.requeue_after
        if isinstance(delay, Unhurried):
            return Unhurried(max(delay, len(self.memory) / LOOKS_A_SECOND))
        return delay

    async def _in_turn(self, run: Run, body: dict[str, Any], look: object) -> float | None:
        """Runs that roll out to one target take turns from seeing it to writing what they did to it.

        All targets of a row or none: nobody holds one and waits for another.
        """
        taken: list[str] = []
        try:
            for target in rollout_targets(run):
                place = f"{run.namespace}/{target}"
                if not self._turns.take(place, run.key):
                    return AGAIN_SECONDS
                taken.append(place)
            return await self._one_pass(run, body, look)
        finally:
            for place in taken:
                self._turns.end(place)

    async def _one_pass(self, run: Run, body: dict[str, Any], look: object) -> float | None:
        try:
            children = await self._cluster.read_children(run)
            observed = await self._cluster.observe(run, children)
            decision = decide(run, observed, self._clock(), self._prices)
            await self._cluster.apply(run, decision.actions)
        except StaleObject as error:
            logger.info("target changed meanwhile, looking again: run=%s: %s", run.key, error)
            return AT_ONCE
        except ClusterRefused as error:
            logger.warning("action refused: run=%s: %s", run.key, error)
            self._refusal(error)
            decision = refused(run, str(error), self._clock())
            written = await self._write(run, decision)
            return written.look_again if isinstance(written, _NotWritten) else decision.requeue_after
        written = await self._write(run, decision)
        if isinstance(written, _NotWritten):
            return written.look_again
        seen = _as_written(body, decision, written)
        if not decision.actions and children_tell_all(reading.run(seen)):
            self.memory.keep(run.key, look, seen, children)
        return self._delay(decision)

    async def _write(self, run: Run, decision: Decision) -> str | _NotWritten:
        """One status write a pass, only when it says something new; events only after it. The run's version."""
        if decision.status == run.status:
            return run.resource_version
        try:
            version = await self._cluster.write_status(run, decision.status)
        except StaleObject:
            return _NotWritten(AT_ONCE)
        except NotFound:
            return _NotWritten(None)
        except ClusterRefused as error:
            logger.warning("status refused: run=%s: %s", run.key, error)
            self._refusal(error)
            return _NotWritten(await self._say_refused(run, str(error)))
        await self._tell(run, decision)
        return version

    async def _tell(self, run: Run, decision: Decision) -> None:
        """What a status write was news of."""
        self._written(run.key, run.status, decision.status)
        if decision.status.phase is not run.status.phase:
            logger.info(
                "run moved: run=%s phase=%s from=%s", run.key, decision.status.phase, run.status.phase or "-"
            )
        now = self._clock()
        events = transitions(run.status, decision.status)
        told = self._repeats.kept_down(run.uid, events, now)
        if len(told) < len(events):
            logger.info("events held back: run=%s events=%d", run.key, len(events) - len(told))
        if told:
            await self._cluster.publish(run, told, to_rfc3339(now))

    async def _say_refused(self, run: Run, message: str) -> float | None:
        """Tell in the status that is there that the newest one cannot be written; what was done is found again."""
        decision = refused(run, message, self._clock())
        if decision.status != run.status:
            await self._cluster.write_status(run, decision.status)
        return decision.requeue_after

    async def _say_invalid(self, key: RunKey, body: dict[str, Any], message: str) -> float:
        """Tell the user about a run that cannot be read. Its other status is left alone where it can be.

        Nothing is to be done for one that has ended, and it came to what it came to.
        """
        metadata = body["metadata"]
        generation = int(metadata.get("generation") or 0)
        try:
            before = FineTuneRunStatus.model_validate(body.get("status") or {})
        except ValueError:
            logger.warning("run not readable: run=%s: %s", key, message)
            return INVALID_SECONDS
        if is_over(before):
            logger.warning("ended run not readable: run=%s: %s", key, message)
            return INVALID_SECONDS
        conditions = merged(
            before.conditions,
            (
                false(ConditionType.READY, Reason.INVALID_SPEC, message),
                false(ConditionType.RECONCILING, Reason.INVALID_SPEC),
                true(ConditionType.STALLED, Reason.INVALID_SPEC, message),
            ),
            generation,
            self._clock(),
        )
        after = before.model_copy(
            update={
                "observed_generation": generation,
                "conditions": conditions,
                "phase": before.phase or Phase.PENDING,
            }
        )
        stalled = next((c for c in before.conditions if c.type == ConditionType.STALLED), None)
        if stalled is None or stalled.status is not ConditionStatus.TRUE:
            logger.warning("run not readable: run=%s: %s", key, message)
        if after != before:
            await self._cluster.write_status_of(key, str(metadata["resourceVersion"]), after.to_wire())
        return INVALID_SECONDS


def _as_written(body: dict[str, Any], decision: Decision, version: str) -> dict[str, Any]:
    """The run as it is read again once the decision's status is written."""
    metadata = body["metadata"] | {"resourceVersion": version}
    return body | {"metadata": metadata, "status": decision.status.to_wire()}
