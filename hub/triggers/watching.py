"""Resources of MCP servers that are watched: what a server says of them, and what they hold.

A server's notice says only that a resource may have changed. It is read, and an event is what differs from what was
read last; so several hubs see one event, and what changed while none ran, or while a subscription was lost, is seen.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from typing import TYPE_CHECKING, cast

import anyio
import anyio.abc
import orjson
import structlog

from interhub.adapters import AdapterError, Call, Principal
from interhub.agent_cards import Json, JsonObject, Kind
from interhub.hub.errors import HubError
from interhub.hub.service import Hub
from interhub.registry import RegistryError

from .document import ResourceSpec
from .events import Events
from .store import Occurrence, Registered, TriggerStore

if TYPE_CHECKING:  # importing it brings the MCP SDK, which only hubs that watch resources need
    from interhub.adapters.mcp.relay import McpRelay

log = structlog.get_logger()

Relays = Callable[[Principal, str], "AbstractAsyncContextManager[McpRelay]"]
"""Holds the connection to an MCP server, by its agent's id."""

MAX_TEXT_CHARS = 100_000
"""Most characters of a resource's text that go with an event."""
_LOOK_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


class Watching:
    """Watches the resources that triggers name."""

    def __init__(
        self,
        store: TriggerStore,
        events: Events,
        hub: Hub,
        relays: Relays,
        *,
        look_s: float = _LOOK_S,
    ) -> None:
        """`look_s` is how long a resource is not read at most, whatever its server says."""
        self._store = store
        self._events = events
        self._hub = hub
        self._relays = relays
        self._look_s = look_s
        self._scopes: dict[tuple[str, str, str], anyio.CancelScope] = {}

    async def follow(self, tasks: anyio.abc.TaskGroup) -> None:
        """Watch what triggers name now, in `tasks`, and no longer what they named before."""
        wanted = {_key(one): one for one in await self._store.all() if one.trigger.resource is not None}
        for key in self._scopes.keys() - wanted.keys():
            self._scopes.pop(key).cancel()
        for key, one in wanted.items():
            if key not in self._scopes:
                self._scopes[key] = scope = anyio.CancelScope()
                tasks.start_soon(self._watch, one, scope, tasks)

    async def _watch(self, one: Registered, scope: anyio.CancelScope, tasks: anyio.abc.TaskGroup) -> None:
        spec = one.trigger.resource
        assert spec is not None, "only resources are watched"
        pause_s = _FIRST_PAUSE_S
        with scope:
            while True:
                try:
                    await self._watch_once(one, spec, tasks)
                    pause_s = _FIRST_PAUSE_S
                    continue
                except (AdapterError, HubError, RegistryError) as error:
                    log.info("resource_not_watched", trigger=one.id, agent=spec.agent, why=str(error))
                except Exception:  # one resource's trouble takes no other with it
                    log.exception("resource_watch_broke", trigger=one.id, agent=spec.agent)
                await anyio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _watch_once(self, one: Registered, spec: ResourceSpec, tasks: anyio.abc.TaskGroup) -> None:
        """Subscribe, and look whenever there is news; returns when it is to be subscribed to anew."""
        async with self._relays(one.owner, spec.agent) as relay:
            notice = _Notice(spec.uri)
            listening = anyio.CancelScope()
            unwatch = relay.watch(notice.heard, notice.lose)
            try:
                if (await relay.facts()).modern:
                    tasks.start_soon(_listen, relay, one, notice, listening)
                else:
                    await _sent(relay, one, "resources/subscribe", {"uri": spec.uri})
                while not notice.lost:
                    news = notice.next()
                    await self._look(relay, one, spec)
                    with anyio.move_on_after(self._look_s):
                        await news.wait()
            finally:
                listening.cancel()
                unwatch()

    async def _look(self, relay: "McpRelay", one: Registered, spec: ResourceSpec) -> None:
        """Read the resource, and take an event where it differs from what was read last.

        Raises:
            AdapterError, HubError, RegistryError: it cannot be read, or not be noted.
        """
        agent = await self._hub.agent(one.owner, spec.agent)
        self._hub.admit(
            agent, Call(capability=spec.uri, kind=Kind.RESOURCE, principal=one.owner, idempotency_key=f"watch/{one.id}")
        )
        contents = await _sent(relay, one, "resources/read", {"uri": spec.uri})
        known = await self._store.get(one.tenant, one.id)
        if known is None:
            return
        found = contents.get("contents")
        digest = f"sha256:{sha256(orjson.dumps(found, option=orjson.OPT_SORT_KEYS)).hexdigest()}"
        if digest == known.mark:
            return
        if known.mark:  # the first reading is only what others are compared with
            await self._events.take(
                Occurrence(
                    tenant=one.tenant,
                    source=one.id,
                    id=f"{known.serial + 1}:{digest}",
                    name=one.trigger.send or one.id,
                    data={"agent": spec.agent, "uri": spec.uri, "text": _text(found)},
                )
            )
        await self._store.change(known, digest)


class _Notice:
    """What a server says of one resource."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._event = anyio.Event()
        self.lost = False
        """The subscription is not any more."""

    def next(self) -> anyio.Event:
        """Return what is set by the next notice. Take it before reading: then nothing is missed."""
        if self._event.is_set():
            self._event = anyio.Event()
        return self._event

    def heard(self, method: str, params: JsonObject) -> None:
        if method == "notifications/resources/updated" and _within(self.uri, params.get("uri")):
            self._event.set()

    def lose(self) -> None:
        self.lost = True
        self._event.set()

    async def notify(self, method: str, params: JsonObject) -> None:
        self.heard(method, params)


async def _listen(relay: "McpRelay", one: Registered, notice: _Notice, scope: anyio.CancelScope) -> None:
    """Keep a subscription of the newer era open."""
    wanted: JsonObject = {"notifications": {"resourceSubscriptions": [notice.uri]}}
    with scope:
        try:
            await relay.send("subscriptions/listen", wanted, owner=one.owner.key, notify=notice.notify)
        except Exception as error:  # whatever it is, it is subscribed to anew
            log.info("resource_subscription_lost", trigger=one.id, why=str(error))
            await anyio.sleep(_FIRST_PAUSE_S)
        notice.lose()


async def _sent(relay: "McpRelay", one: Registered, method: str, params: JsonObject) -> JsonObject:
    async def nothing(method: str, params: JsonObject) -> None:
        return None

    try:
        reply = await relay.send(method, params, owner=one.owner.key, notify=nothing)
    except AdapterError:
        raise
    except Exception as error:  # the MCP SDK's own error, which is not imported here
        raise ResourceRefused(one.id, method, str(error)) from error
    return cast("JsonObject", getattr(reply, "result", {}))


class ResourceRefused(HubError):
    """An MCP server does not let a resource be watched."""

    def __init__(self, trigger: str, method: str, why: str) -> None:
        super().__init__(trigger, method, why)
        self.trigger, self.method, self.why = trigger, method, why

    def __str__(self) -> str:
        return f"{self.method} for trigger {self.trigger} was refused: {self.why}"


def _within(uri: str, said: Json) -> bool:
    """A notice may name the resource, or one within it (MCP 2026-07-28, resources)."""
    return isinstance(said, str) and (said == uri or said.startswith(f"{uri.rstrip('/')}/"))


def _text(contents: Json) -> str:
    listed = cast("list[Mapping[str, Json]]", contents) if isinstance(contents, list) else []
    texts = [one.get("text") for one in listed]
    return "\n".join(text for text in texts if isinstance(text, str))[:MAX_TEXT_CHARS]


def _key(one: Registered) -> tuple[str, str, str]:
    return one.tenant, one.id, one.created_at.isoformat()
