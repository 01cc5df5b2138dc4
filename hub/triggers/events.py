"""Events on their way: taken once, then delivered to each subscription once, over crashes and replicas.

What is to be delivered is written together with the event; then it is carried out, and noted. A hub that dies between
leaves it open, and whichever hub looks next carries it out again: a run's id follows from trigger and event, so that
the second time begins no other, and a waiting step takes an event once (`supervisor.waits`).
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

import structlog

from interhub.adapters import AdapterError, Message, Principal, Role, TextPart
from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import BadRequest, HubError, NotAllowed, Unusable
from interhub.hub.service import Hub
from interhub.hub.supervisor.run import Assignment
from interhub.hub.supervisor.template import TemplateFailed, render, render_all
from interhub.hub.supervisor.waits import Signal, fits
from interhub.registry import DatabaseError, RegistryError

from .store import RETRY_S, Delivery, Occurrence, Registered, TriggerStore

log = structlog.get_logger()


class Events:
    """Takes events, and delivers them."""

    def __init__(
        self, store: TriggerStore, hub: Hub, *, accepted: Callable[[Principal], bool] = lambda principal: True
    ) -> None:
        """`accepted` says on whose behalf triggers still act."""
        self._store = store
        self._hub = hub
        self._accepted = accepted

    async def take(self, occurrence: Occurrence, only: Registered | None = None) -> tuple[list[Delivery], bool]:
        """Take an event and deliver it; returns what became of it, and whether it was new.

        With `only`, that trigger acts on it, whatever its `match` says, and no other.

        Raises:
            DatabaseUnusable: the database cannot be written; the event is not taken, or is delivered later.
        """
        subscriptions = await self._subscriptions(occurrence) if only is None else self._own(only)
        new = await self._store.take(occurrence, subscriptions)
        if new:
            log.info("event_taken", name=occurrence.name, source=occurrence.source or "api", occurrence=occurrence.id)
            for delivery in await self._store.deliveries_of(occurrence.tenant, occurrence):
                await self._deliver(delivery)
        return await self._store.deliveries_of(occurrence.tenant, occurrence), new

    async def deliver_due(self, *, all_open: bool = False) -> int:
        """Carry out the deliveries that are overdue; at start-up those too that a dead hub was about to do."""
        before = datetime.now(UTC)
        if all_open:
            before += timedelta(seconds=2 * RETRY_S)
        due = await self._store.due(before)
        for delivery in due:
            await self._deliver(delivery)
        return len(due)

    async def _subscriptions(self, occurrence: Occurrence) -> list[str]:
        known = await self._store.all(occurrence.tenant)
        wanting = [one.id for one in known if wants(one, occurrence)]
        source = next((one for one in known if one.id == occurrence.source), None)
        if source is not None and not self._accepted(source.owner):
            return list(dict.fromkeys([*wanting, source.id]))  # its own fails, and so says why nothing is woken
        return ["", *wanting] if source is None or _matches(source, occurrence) else wanting

    def _own(self, one: Registered) -> list[str]:
        """Return what a trigger itself subscribes to: its run, and the steps that wait for its events."""
        if not self._accepted(one.owner):
            return [one.id]
        wakes = [""] if not one.trigger.event else []
        return [*wakes, one.id] if one.trigger.run is not None else wakes

    async def _deliver(self, delivery: Delivery) -> None:
        occurrence = delivery.occurrence
        try:
            if delivery.subscription:
                begun = await self._begin(delivery)
            else:
                begun = await self._hub.deliver(
                    Signal(
                        tenant=occurrence.tenant,
                        name=occurrence.name,
                        data=occurrence.data,
                        id=f"{occurrence.source}/{occurrence.id}",
                        at=occurrence.at,
                    )
                )
        except _StillGoingOn as error:
            log.info("delivery_skipped", trigger=delivery.subscription, occurrence=occurrence.id, run=error.run_id)
            await self._store.skipped(delivery, str(error))
        except (DatabaseError, Unusable) as error:
            log.warning("delivery_put_off", trigger=delivery.subscription, occurrence=occurrence.id, why=str(error))
            await self._store.failed(delivery, str(error), again=True)
        except (HubError, RegistryError, AdapterError, TemplateFailed) as error:
            log.warning("delivery_failed", trigger=delivery.subscription, occurrence=occurrence.id, why=str(error))
            await self._store.failed(delivery, str(error), again=False)
        except Exception as error:  # the edge: one delivery's trouble takes no other with it
            log.exception("delivery_broke", trigger=delivery.subscription, occurrence=occurrence.id)
            await self._store.failed(delivery, f"the hub failed: {type(error).__name__}", again=True)
        else:
            await self._store.delivered(delivery, begun=begun)

    async def _begin(self, delivery: Delivery) -> tuple[str, ...]:
        """Begin the run that a trigger has for an event.

        Raises:
            BadRequest, PlanInvalid, AgentNotFound, CapabilityNotFound, TemplateFailed: it cannot be begun.
            NotAllowed: whoever added the trigger may not use the hub any more.
        """
        occurrence = delivery.occurrence
        one = await self._store.get(occurrence.tenant, delivery.subscription)
        if one is not None and not self._accepted(one.owner):
            why = f"the key of {one.owner.subject}, who added it, is not accepted any more; the hub's own may remove it"
            raise NotAllowed(f"what trigger {one.id} does", why)
        if one is None or one.trigger.run is None:
            raise BadRequest(f"trigger {delivery.subscription} was removed before the event was delivered")
        if one.trigger.run.overlap == "skip" and (going := await self._store.under_way(delivery)):
            raise _StillGoingOn(going)
        run = await self._hub.submit(assignment_of(one, occurrence))
        return (run.id,)


class _StillGoingOn(Exception):
    """The trigger is to begin no run beside another of its own."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"{self.run_id} that it began before still goes on"


def wants(one: Registered, occurrence: Occurrence) -> bool:
    """Return whether a trigger begins a run for an event."""
    trigger = one.trigger
    mine = trigger.event == occurrence.name if trigger.event else one.id == occurrence.source
    return mine and trigger.run is not None and _matches(one, occurrence)


def _matches(one: Registered, occurrence: Occurrence) -> bool:
    return fits(cast("JsonObject", one.trigger.match), occurrence.data)


def assignment_of(one: Registered, occurrence: Occurrence) -> Assignment:
    """Return what a trigger asks for on an event; the same each time, under the same key.

    Raises:
        TemplateFailed: one of its templates cannot be rendered.
    """
    spec = one.trigger.run
    assert spec is not None, "only triggers that begin runs are asked"
    event: dict[str, Json] = {
        "name": occurrence.name,
        "id": occurrence.id,
        "at": occurrence.at.isoformat(),
        "data": dict(occurrence.data),
    }
    values: Mapping[str, object] = {"event": event}
    goal = str(render(spec.goal, values)) if spec.goal else ""
    inputs = cast("JsonObject", render_all(cast("Json", spec.inputs), values))
    return Assignment(
        principal=one.owner,
        goal=Message(role=Role.USER, parts=(TextPart(text=goal),) if goal else ()),
        agent_id=spec.agent,
        capability=spec.capability,
        arguments=inputs if spec.capability else {},
        workflow=cast("JsonObject | None", spec.workflow),
        inputs={} if spec.capability else inputs,
        idempotency_key=f"trigger/{one.id}/{one.created_at.isoformat()}/{occurrence.source}/{occurrence.id}",
    )
