"""The verbs of triggers and events, on behalf of principals, and what keeps them going."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from uuid import uuid4

import anyio
import anyio.abc
import orjson
import structlog

from interhub.adapters import BadEndpoint, Principal
from interhub.adapters.expand import expand
from interhub.agent_cards import Json, JsonObject
from interhub.hub.auth import LOCAL
from interhub.hub.errors import (
    BadRequest,
    HookRefused,
    Mistake,
    NotAllowed,
    PlanInvalid,
    TriggerExists,
    TriggerNotFound,
    shown,
)
from interhub.hub.service import Hub
from interhub.hub.supervisor.model import EVENT_NAME
from interhub.hub.supervisor.plan_check import check_plan
from interhub.registry import AgentNotFound, RegistryError

from .clock import Clock, moment_id
from .document import Trigger, read_trigger
from .events import Events
from .signatures import event_id, new_secret
from .store import RETRY_S, Delivery, Occurrence, Registered, TriggerStore
from .watching import Relays, Watching

log = structlog.get_logger()

MAX_EVENT_BYTES = 256 * 1024
"""Of an event's data as JSON: it goes into every run that it begins."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What became of an event."""

    occurrence: Occurrence
    new: bool
    """False when it was taken before."""
    deliveries: Sequence[Delivery]


class Triggers:
    """What starts or wakes runs from outside."""

    def __init__(
        self,
        store: TriggerStore,
        hub: Hub,
        relays: Relays,
        *,
        env: Mapping[str, str],
        accepted: Callable[[Principal], bool] = lambda principal: True,
    ) -> None:
        """`relays` hold connections to MCP servers, for resources that are watched; `env` is what secrets name.

        `accepted` says whether a principal may still use the hub: the triggers of others do nothing.
        """
        self._env = env
        self._store = store
        self._hub = hub
        self._events = Events(store, hub, accepted=accepted)
        self._clock = Clock(store, self._events)
        self._watching = Watching(store, self._events, hub, relays)
        self._changed = anyio.Event()

    # Triggers

    async def add(
        self, principal: Principal, document: JsonObject, *, source: str = "the trigger"
    ) -> tuple[Registered, str]:
        """Register a trigger that acts on the caller's behalf; returns it, and the secret that was made for it.

        Raises:
            PlanInvalid: the document has mistakes.
            TriggerExists: there is one of its name.
        """
        trigger = await self.check(principal, document, source=source)
        made = new_secret() if trigger.webhook is not None and not trigger.webhook.secret else ""
        given = trigger.webhook.secret if trigger.webhook is not None else ""
        if trigger.webhook is not None and not given.startswith("${"):
            # A literal secret is kept sealed, not in the document that everybody may list.
            trigger = trigger.model_copy(update={"webhook": trigger.webhook.model_copy(update={"secret": ""})})
        now = datetime.now(UTC)
        one = Registered(
            owner=principal,
            trigger=trigger,
            mark=moment_id(now) if trigger.schedule else "",
            serial=int(now.timestamp() * 1000),
            created_at=now,
        )
        if not await self._store.add(one, "" if given.startswith("${") else given or made):
            raise TriggerExists(trigger.name)
        self.wake()
        self._hub.note(principal, "trigger_add", one.id)
        return one, made

    async def check(self, principal: Principal, document: JsonObject, *, source: str = "the trigger") -> Trigger:
        """Return a document as a trigger, with whom it names looked up.

        Raises:
            PlanInvalid: it has mistakes.
        """
        trigger = read_trigger(document, source=source)
        known = {agent.id: agent for agent in await self._hub.agents(principal)}
        named = {
            "run.agent": trigger.run.agent if trigger.run is not None else "",
            "resource.agent": trigger.resource.agent if trigger.resource is not None else "",
        }
        mistakes = [
            Mistake(where, str(AgentNotFound(name)) + _near(name, list(known)))
            for where, name in named.items()
            if name and name not in known
        ]
        if trigger.webhook is not None and trigger.webhook.secret.startswith("${"):
            mistakes += self._secret_mistakes(trigger.webhook.secret)
        if mistakes:
            raise PlanInvalid(source, mistakes)
        if trigger.run is not None and trigger.run.workflow is not None:
            try:
                check_plan(trigger.run.workflow, source=source, agents=known)
            except PlanInvalid as error:
                inner = [Mistake(f"run.workflow.{each.where}", each.what) for each in error.mistakes]
                raise PlanInvalid(source, inner) from None
        return trigger

    async def list(self, principal: Principal) -> list[tuple[Registered, Delivery | None]]:
        """Return the caller's triggers, by name, each with what it delivered last; LOCAL's are all of its tenant."""
        mine = [one for one in await self._store.all(principal.tenant) if _may_remove(principal, one)]
        last = await self._store.last(principal.tenant, [one.id for one in mine])
        return [(one, last.get(one.id)) for one in mine]

    async def get(self, principal: Principal, name: str) -> Registered:
        """Return one of the triggers that the caller lists.

        Raises:
            TriggerNotFound: there is none of that name, or it is somebody else's.
        """
        one = await self._store.get(principal.tenant, name)
        if one is None or not _may_remove(principal, one):
            mine = [found.id for found, _ in await self.list(principal)]
            raise TriggerNotFound(name, next(iter(get_close_matches(name, mine, n=1)), ""))
        return one

    async def remove(self, principal: Principal, name: str) -> Registered:
        """Forget a trigger. Runs that it began go on.

        Raises:
            TriggerNotFound: there is none of that name, or it is somebody else's.
        """
        one = await self.get(principal, name)
        await self._store.remove(principal.tenant, name)
        self.wake()
        self._hub.note(principal, "trigger_remove", name)
        return one

    async def fire(self, principal: Principal, name: str, data: JsonObject) -> Taken:
        """Have a trigger act now, as on an event with that data that fits its `match`; no other trigger does.

        Raises:
            TriggerNotFound: there is none of that name, or it is somebody else's.
            NotAllowed: the caller may remove it, but it acts on behalf of another.
            BadRequest: the data is too large.
        """
        one = await self.get(principal, name)
        if one.owner.subject != principal.subject:
            raise NotAllowed(f"firing {name}", f"it acts on behalf of {one.owner.subject}, who alone may")
        event = one.trigger.event or one.trigger.send or one.id
        occurrence = Occurrence(tenant=one.tenant, source=one.id, id=f"fired:{uuid4()}", name=event, data=data)
        return await self._take(occurrence, only=one)

    # Events

    async def give(self, principal: Principal, name: str, data: JsonObject, event_id: str = "") -> Taken:
        """Take an event of the caller's. The same id again is the same event.

        Raises:
            BadRequest: the name or the data cannot be an event's.
        """
        if not EVENT_NAME.fullmatch(name):
            raise BadRequest(f"{shown(name)} is no event's name", "use letters, digits and . _ : / -, at most 100")
        taken = await self._take(
            Occurrence(tenant=principal.tenant, source="", id=event_id or str(uuid4()), name=name, data=data)
        )
        self._hub.note(principal, "event", name)
        return taken

    async def hook(self, tenant: str, name: str, headers: Mapping[str, str], body: bytes) -> Taken:
        """Take a webhook's request. `headers` have small names.

        Raises:
            TriggerNotFound: there is no webhook of that name.
            HookRefused: it does not prove where it comes from, or is too old.
            BadRequest: its body is no JSON, or too large.
        """
        one = await self._store.get(tenant, name)
        if one is None or one.trigger.webhook is None:
            raise TriggerNotFound(name)
        spec = one.trigger.webhook
        if len(body) > MAX_EVENT_BYTES:
            raise BadRequest(f"an event may have {MAX_EVENT_BYTES // 1024} KiB; this one has {len(body) // 1024}")
        found = event_id(spec, await self._secret(one), headers, body)
        data = _data(headers, body)
        return await self._take(
            Occurrence(tenant=tenant, source=one.id, id=found, name=one.trigger.send or one.id, data=data)
        )

    def _secret_mistakes(self, given: str) -> Iterator[Mistake]:
        try:
            if not expand(given, self._env):
                yield Mistake("webhook.secret", f"{given} is empty in the hub's environment")
        except BadEndpoint as error:
            yield Mistake("webhook.secret", f"{error.why}; {error.remedy}")

    async def _secret(self, one: Registered) -> str:
        assert one.trigger.webhook is not None, "only webhooks have secrets"
        given = one.trigger.webhook.secret
        try:
            secret = expand(given, self._env) if given else await self._store.secret(one.tenant, one.id)
        except BadEndpoint as error:
            log.error("webhook_secret_missing", trigger=one.id, why=str(error))
            secret = ""
        if not secret:
            raise HookRefused("the hub does not know this webhook's secret; its log says why")
        return secret

    async def _take(self, occurrence: Occurrence, only: Registered | None = None) -> Taken:
        if len(orjson.dumps(occurrence.data)) > MAX_EVENT_BYTES:
            raise BadRequest(f"an event's data may have {MAX_EVENT_BYTES // 1024} KiB", "send a link to it")
        deliveries, new = await self._events.take(occurrence, only)
        return Taken(occurrence=occurrence, new=new, deliveries=deliveries)

    # Inside

    def wake(self) -> None:
        """Look at the triggers again: they have changed, here or at another hub."""
        self._changed.set()
        self._clock.wake()

    async def run(self) -> None:
        """Keep schedules, watched resources and what is to be delivered going until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._clock.run)
            tasks.start_soon(self._follow, tasks)
            await self._deliver_late()

    async def _follow(self, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            self._changed = anyio.Event()
            try:
                await self._watching.follow(tasks)
            except RegistryError as error:
                log.warning("triggers_wait_for_the_database", why=str(error))
            with anyio.move_on_after(RETRY_S):
                await self._changed.wait()

    async def _deliver_late(self) -> None:
        all_open = True
        while True:
            try:
                await self._events.deliver_due(all_open=all_open)
                all_open = False
            except RegistryError as error:
                log.warning("deliveries_wait_for_the_database", why=str(error))
            await anyio.sleep(RETRY_S)


def _may_remove(principal: Principal, one: Registered) -> bool:
    """Return whether a trigger is the principal's own, or of those that the holder of the hub's own key looks after."""
    return one.owner.subject == principal.subject or principal.key == LOCAL.key


def _near(name: str, known: Sequence[str]) -> str:
    found = get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _data(headers: Mapping[str, str], body: bytes) -> JsonObject:
    """Return a request's body as an event's data; what GitHub and others say in headers is `_headers`."""
    try:
        value: Json = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}", "send application/json") from None
    shaped = dict(value) if isinstance(value, Mapping) else {"value": value}
    told: dict[str, Json] = {name: text for name, text in headers.items() if name.endswith("-event")}
    return {**shaped, "_headers": told} if told else shaped
