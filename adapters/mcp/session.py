"""One session with an MCP server, of either era, over raw JSON: nothing that a server or client says is lost in models.

The SDK gives transports and the JSON-RPC dispatcher; negotiation and the per-request envelope are here, because the
SDK's own session parses every message into models that drop what they do not know (reference: mcp.md, section 1.7).
"""

import math
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast
from weakref import WeakKeyDictionary

import anyio
import anyio.abc
import httpx2
import structlog
from mcp import MCPError
from mcp.client._transport import TransportStreams
from mcp.shared.dispatcher import CallOptions, DispatchContext
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
)
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp.shared.transport_context import TransportContext
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    PROTOCOL_VERSION_META_KEY,
    REQUEST_TIMEOUT,
    UNSUPPORTED_PROTOCOL_VERSION,
)
from mcp_types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    LATEST_MODERN_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)

from interhub.adapters.errors import (
    AdapterError,
    BadEndpoint,
    ProtocolViolation,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
)
from interhub.adapters.exact_json import write_json
from interhub.agent_cards import JsonObject

from .direct import DirectExchange, DirectWay, handed_over
from .http import Exchange, ServerBusy, Sink, current_exchange, http_error

_DIAGNOSIS_S = 2.0
_MOST_FIELDS = 1000
_HURRY_S = 1.0
"""How long requests that went directly may take to be taken over; one that ends first never is."""
PROBE_S = 10.0
"""How long `server/discover` may take before the server is taken for one that ignores what it does not know."""
ENVELOPE = (PROTOCOL_VERSION_META_KEY, CLIENT_INFO_META_KEY, CLIENT_CAPABILITIES_META_KEY)
"""The members of `_meta` that make a 2026-07-28 request's envelope."""

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Client:
    """Who we say we are, and what we say we can do for the server."""

    info: JsonObject
    capabilities: JsonObject = field(default_factory=dict[str, Any])


class SessionEvents:
    """What a server says that belongs to no request. The default takes notice of nothing and offers nothing."""

    async def notified(self, method: str, params: JsonObject) -> None:
        """Take a notification."""

    async def asked(self, method: str, params: JsonObject) -> JsonObject:
        """Answer a request.

        Raises:
            MCPError: it is not answered.
        """
        raise MCPError(METHOD_NOT_FOUND, f"{method} is not offered on this connection")


Diagnose = Callable[[AdapterError], Awaitable[AdapterError]]
"""Turns the fact that a connection ended into the reason why, where the transport knows it."""


async def no_diagnosis(error: AdapterError) -> AdapterError:
    """Know no more than the error says."""
    return error


class McpSession:
    """A session that has been negotiated. Used by many requests at once."""

    def __init__(
        self,
        dispatcher: JSONRPCDispatcher[TransportContext],
        *,
        label: str,
        client: Client,
        events: SessionEvents,
        diagnose: Diagnose = no_diagnosis,
        way: DirectWay | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._way = way
        self._fields: dict[tuple[str, str], bytes] = {}
        self._diagnose = diagnose
        self._label = label
        self._client = client
        self._events = events
        self._live: dict[int, Exchange] = {}
        self._idle = anyio.Event()
        self._direct: WeakKeyDictionary[DirectExchange, str] = WeakKeyDictionary()
        """Requests of the older era that went directly, by whose they are."""
        self._progress: dict[str, Exchange] = {}
        self._listening: dict[str, Exchange] = {}
        self._numbers = count(1)
        self.tasks: anyio.abc.TaskGroup | None = None
        """Where what nobody waits for is sent, while the session is open."""
        self.version = ""
        """The negotiated protocol version."""
        self.server: dict[str, Any] = {}
        """What the server answered to `server/discover` or `initialize`, as it came."""
        self.lost = anyio.Event()
        """Set when the session has come to its end."""

    @property
    def modern(self) -> bool:
        """Whether it speaks 2026-07-28 or later: no handshake, an envelope on every request."""
        return self.version in MODERN_PROTOCOL_VERSIONS

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """What the server says it offers."""
        return _object(self.server.get("capabilities"))

    async def request(
        self,
        method: str,
        params: JsonObject,
        *,
        sink: Sink | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Send a request and return its result as it came. Here, and in `begin`, requests leave for a server.

        A request that was begun directly and has been handed over to this one is followed instead.

        Members of the envelope that `params` brings are kept (a relay's client speaks for itself); the rest is added.
        A `progressToken` in `params` asks for progress; it is replaced by one of ours on the way, and put back.

        Raises:
            MCPError: the server answered with a JSON-RPC error.
            AdapterError: it did not answer in the protocol, or not at all.
        """
        exchange = Exchange(sink=sink)
        number = next(self._numbers)
        if (begun := handed_over(method)) is not None:
            self._live[number] = exchange
            try:
                return await begun.finish(sink, timeout_s)
            except TimeoutError:
                raise RemoteTimeout(self._label, timeout_s or 0.0) from None
            finally:
                self._finished(number)
        meta = dict(_object(params.get("_meta")))
        sent = dict(params)
        fields = dict(headers or {})
        if self.modern:
            meta.setdefault(PROTOCOL_VERSION_META_KEY, self.version)
            meta.setdefault(CLIENT_INFO_META_KEY, self._client.info)
            meta.setdefault(CLIENT_CAPABILITIES_META_KEY, self._client.capabilities)
            fields[MCP_PROTOCOL_VERSION_HEADER] = self.version
            fields[MCP_METHOD_HEADER] = method
            key = NAME_BEARING_METHODS.get(method)
            if key is not None and isinstance(name := sent.get(key), str):
                fields[MCP_NAME_HEADER] = encode_header_value(name)
        else:
            for reserved in ENVELOPE:
                meta.pop(reserved, None)
            if self.version:
                fields[MCP_PROTOCOL_VERSION_HEADER] = self.version
        token = f"p-{number}"
        if "progressToken" in meta and sink is not None:
            meta["progressToken"] = token
            self._progress[token] = exchange
        if meta:
            sent["_meta"] = meta
        else:
            sent.pop("_meta", None)
        options: CallOptions = {"headers": fields}
        if timeout_s is not None:
            options["timeout"] = timeout_s
        if method in ("initialize", "server/discover"):
            options["cancel_on_abandon"] = False
        if method == "subscriptions/listen":
            options["request_id"] = f"listen-{number}"
            self._listening[f"listen-{number}"] = exchange
        self._live[number] = exchange
        held = current_exchange.set(exchange)
        try:
            return await self._dispatcher.send_raw_request(method, sent, options)
        except MCPError as error:
            if exchange.fault is not None:
                raise exchange.fault from error
            translated = self._translated(error, timeout_s)
            if isinstance(translated, RemoteUnavailable) and not isinstance(translated, RemoteTimeout):
                translated = await self._diagnose(translated)
            raise translated from error
        finally:
            current_exchange.reset(held)
            self._finished(number)
            self._progress.pop(token, None)
            self._listening.pop(f"listen-{number}", None)

    def _finished(self, number: int) -> None:
        del self._live[number]
        if not self._live:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no request is under way; those that went directly do not count."""
        while self._live:
            if self._idle.is_set():
                self._idle = anyio.Event()
            await self._idle.wait()

    def begin(
        self,
        method: str,
        params: dict[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        trace: Mapping[str, str] | None = None,
        repeatable: bool = False,
        owner: str = "",
    ) -> DirectExchange | None:
        """Send a request directly, past the SDK; None where there is no such way to this server, or not now.

        As in `request`, but what follows is the caller's: see `DirectExchange`. `trace` goes into headers and `_meta`.
        `params` become the session's own. `repeatable`: the server may be given it twice. `owner`: see `Sink.owner`.
        """
        way = self._way
        if way is None or way.blocked or self.lost.is_set() or not self.version:
            return None
        number = f"d-{next(self._numbers)}"
        meta: dict[str, Any] = {**_object(params.get("_meta")), **(trace or {})}
        named = ""
        if self.modern:
            meta.setdefault(PROTOCOL_VERSION_META_KEY, self.version)
            meta.setdefault(CLIENT_INFO_META_KEY, self._client.info)
            meta.setdefault(CLIENT_CAPABILITIES_META_KEY, self._client.capabilities)
            key = NAME_BEARING_METHODS.get(method)
            if key is not None and isinstance(name := params.get(key), str):
                named = name
        else:
            for reserved in ENVELOPE:
                meta.pop(reserved, None)
        if "progressToken" in meta:
            meta["progressToken"] = number
        if meta:
            params["_meta"] = meta
        else:
            params.pop("_meta", None)
        fields = self._fields.get((method, named)) or self._fields_for(method, named, way)
        more = {**(headers or {}), **(trace or {})}
        if len(more) == 1 and "traceparent" in more:
            fields = b"%btraceparent: %b\r\n" % (fields, more["traceparent"].encode("ascii"))
        elif more:
            lines = "".join(f"{name}: {value}\r\n" for name, value in more.items())
            if max(lines.count("\r"), lines.count("\n")) > len(more) or "\0" in lines or not lines.isascii():
                return None  # no header can hold it: the slow way says so
            fields += lines.encode("ascii")
        body = write_json({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        exchange = DirectExchange(
            way,
            label=self._label,
            method=method,
            number=number,
            fields=fields,
            request=way.post(fields, body),
            repeatable=repeatable,
            modern=self.modern,
            heard=self._events.notified,
            tell=self.notify,
            tell_soon=self.notify_soon,
        )
        if not self.modern:
            self._direct[exchange] = owner
        return exchange

    def _fields_for(self, method: str, name: str, way: DirectWay) -> bytes:
        """Return the header lines of the session and of one method and name; most calls are of a few tools."""
        fields = {MCP_PROTOCOL_VERSION_HEADER: self.version}
        if self.modern:
            fields[MCP_METHOD_HEADER] = method
            if name:
                fields[MCP_NAME_HEADER] = encode_header_value(name)
        elif way.session_id:
            fields["mcp-session-id"] = way.session_id
        lines = "".join(f"{key}: {value}\r\n" for key, value in fields.items()).encode("ascii")
        if len(self._fields) < _MOST_FIELDS:
            self._fields[method, name] = lines
        return lines

    async def notify(self, method: str, params: JsonObject | None = None) -> None:
        """Send a notification; dropped when the session has ended."""
        options: CallOptions = {"headers": {MCP_PROTOCOL_VERSION_HEADER: self.version}} if self.version else {}
        await self._dispatcher.notify(method, params, options)

    def notify_soon(self, method: str, params: JsonObject) -> None:
        """Send a notification that nobody waits for."""
        if self.tasks is not None and not self.lost.is_set():
            self.tasks.start_soon(self.notify, method, params)

    async def negotiate(self, version: str) -> None:
        """Agree on a protocol version: the one given, or the newest that both know.

        Raises:
            AdapterError: there is none, or no MCP server answers.
        """
        if version in HANDSHAKE_PROTOCOL_VERSIONS:
            await self._initialize(version)
        elif version in MODERN_PROTOCOL_VERSIONS:
            await self._discover(version)
        elif version:
            known = ", ".join((*HANDSHAKE_PROTOCOL_VERSIONS, *MODERN_PROTOCOL_VERSIONS))
            raise BadEndpoint(self._label, f"MCP has no version {version!r}", f"leave it out, or use one of {known}")
        else:
            await self._negotiate_any()

    async def _negotiate_any(self) -> None:
        """Try the newest era, then the handshake: whatever is not proof of a modern server falls back.

        An answer at HTTP level other than "denied" falls back too: older servers answer an unknown version with almost
        anything. Only where nothing was reached is there nobody to shake hands with.
        """
        try:
            await self._discover(LATEST_MODERN_VERSION, timeout_s=PROBE_S)
        except MCPError as error:
            supported = cast("list[object] | None", _object(error.data).get("supported"))
            if error.code == UNSUPPORTED_PROTOCOL_VERSION and isinstance(supported, list):
                mutual = [v for v in MODERN_PROTOCOL_VERSIONS if v in supported]
                if mutual:
                    return await self._discover(mutual[-1])
                if not any(v in HANDSHAKE_PROTOCOL_VERSIONS for v in supported):
                    raise ProtocolViolation(
                        self._label, f"it speaks only MCP {', '.join(map(str, supported))}"
                    ) from error
        except RemoteTimeout:
            log.debug("mcp_discover_unanswered", agent=self._label)
        except (ServerBusy, ProtocolViolation) as error:
            log.debug("mcp_discover_refused", agent=self._label, why=str(error))
        else:
            return None
        try:
            await self._initialize(LATEST_HANDSHAKE_VERSION)
        except MCPError as error:
            if error.code == UNSUPPORTED_PROTOCOL_VERSION:  # it was slow to start, and has taken our first question
                return await self._discover(LATEST_MODERN_VERSION)
            raise
        return None

    async def _discover(self, version: str, timeout_s: float | None = None) -> None:
        self.version = version
        try:
            found = await self.request("server/discover", {}, timeout_s=timeout_s)
        except BaseException:
            self.version = ""
            raise
        supported = found.get("supportedVersions")
        offered = [v for v in MODERN_PROTOCOL_VERSIONS if isinstance(supported, list) and v in supported]
        if not offered:
            self.version = ""
            raise ProtocolViolation(
                self._label, f"it answers server/discover without a version that we know: {supported!r}"
            )
        self.version = version if version in offered else offered[-1]
        self.server = found

    async def _initialize(self, version: str) -> None:
        asked: JsonObject = {
            "protocolVersion": version,
            "capabilities": self._client.capabilities,
            "clientInfo": self._client.info,
        }
        found = await self.request("initialize", asked)
        agreed = found.get("protocolVersion")
        if agreed not in HANDSHAKE_PROTOCOL_VERSIONS:
            raise ProtocolViolation(self._label, f"it wants to speak MCP {agreed!r}, which we do not know")
        self.version = agreed
        self.server = found
        await self.notify("notifications/initialized")

    def _translated(self, error: MCPError, timeout_s: float | None) -> Exception:
        """Tell the SDK's own made-up errors from those that the server sent."""
        text = error.message
        if error.code == CONNECTION_CLOSED and (text == "Connection closed" or text.startswith("SSE stream")):
            return RemoteUnavailable(self._label, "the connection ended before the answer came")
        if error.code == REQUEST_TIMEOUT and timeout_s is not None and text.endswith("timed out"):
            return RemoteTimeout(self._label, timeout_s)
        if error.code == PARSE_ERROR and text.startswith("Failed to parse"):
            return ProtocolViolation(self._label, f"its answer is not JSON-RPC{_syntax(text)}")
        if error.code == INVALID_REQUEST and text.startswith(
            ("Unexpected content type", "Redirect to", "server answered a")
        ):
            return ProtocolViolation(self._label, text)
        return error

    def _exchange(self, *, asking: bool = False) -> Exchange | None:
        """The request that what just arrived belongs to; None when that cannot be told.

        Over HTTP it is the one on whose stream it came. Over stdio, and on the stream that servers of the older era
        have for what belongs to no request, the protocol does not say; many ask there in the middle of one. The newest
        is as good a guess as there is while all of them are one principal's, and nobody's business while they are not.
        """
        exchange = current_exchange.get()
        if exchange is not None and exchange.sink is not None:
            return exchange
        subscriptions = [id(listening) for listening in self._listening.values()]
        live = [
            (exchange, exchange.sink)
            for exchange in self._live.values()
            if exchange.sink is not None and id(exchange) not in subscriptions
        ]
        # One that waits for an answer says nothing meanwhile, unless it asks several things at once.
        live = [(exchange, sink) for exchange, sink in live if not sink.waiting] or live
        owners = {sink.owner for _, sink in live} | {owner for begun, owner in self._direct.items() if begun.alone}
        if len(owners) != 1:
            return None
        found = [exchange for exchange, sink in live if sink.askable or not asking]
        return found[-1] if found else None

    async def _end_short_ways(self) -> None:
        """Have requests that went directly be followed on the way on which their callers can be asked."""
        let_go = [begun.hurry() for begun in list(self._direct) if begun.alone]
        with anyio.move_on_after(_HURRY_S):
            for event in let_go:
                await event.wait()

    async def on_request(
        self, context: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Answer the server."""
        if method == "ping":
            return {}
        if current_exchange.get() is None:
            await self._end_short_ways()
        exchange = self._exchange(asking=True)
        if exchange is not None and exchange.sink is not None:
            return dict(await exchange.sink.ask(method, params or {}))
        return dict(await self._events.asked(method, params or {}))

    async def on_notify(
        self, context: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
    ) -> None:
        """Hand a notification to whom it belongs."""
        said = params or {}
        exchange: Exchange | None = None
        if method == "notifications/progress":
            exchange = self._progress.get(str(said.get("progressToken")))
            if exchange is None:
                return
        elif (subscription := _object(said.get("_meta")).get(SUBSCRIPTION_ID_META_KEY)) is not None:
            exchange = self._listening.get(str(subscription))
        elif method in ("notifications/message", "notifications/elicitation/complete"):
            exchange = self._exchange()
        if exchange is not None and exchange.sink is not None:
            await exchange.sink.notify(method, said)
        else:
            await self._events.notified(method, said)


@asynccontextmanager
async def open_session(
    streams: AbstractAsyncContextManager[TransportStreams],
    *,
    label: str,
    client: Client,
    events: SessionEvents,
    version: str,
    startup_timeout_s: float,
    diagnose: Diagnose = no_diagnosis,
    way: DirectWay | None = None,
) -> AsyncGenerator[McpSession]:
    """Open a session and negotiate. Enter and exit it in the same task; the owner waits on `lost`.

    Raises:
        AdapterError: no MCP server answers, or we speak no version in common.
        RemoteTimeout: it did not answer in time.
    """
    # The time to start is a scope around everything, because some transports take their time while they are entered.
    with anyio.CancelScope(deadline=anyio.current_time() + startup_timeout_s + _DIAGNOSIS_S) as starting:
        try:
            async with streams as (read, write):
                dispatcher: JSONRPCDispatcher[TransportContext] = JSONRPCDispatcher(read, write)
                session = McpSession(dispatcher, label=label, client=client, events=events, diagnose=diagnose, way=way)
                async with anyio.create_task_group() as tasks:
                    session.tasks = tasks
                    await tasks.start(_pump, dispatcher, session)
                    try:
                        with anyio.fail_after(startup_timeout_s):
                            await session.negotiate(version)
                    except TimeoutError:
                        raise await diagnose(RemoteTimeout(label, startup_timeout_s)) from None
                    except MCPError as error:
                        raise RemoteRefused(label, error.message, (), error.code) from error
                    starting.deadline = math.inf
                    try:
                        yield session
                    finally:
                        session.tasks = None
                    tasks.cancel_scope.cancel()
        except (BaseExceptionGroup, httpx2.HTTPError) as error:
            found = adapter_error(error, label)
            if found is None:
                raise
            raise found from error
    if starting.cancelled_caught:
        raise RemoteTimeout(label, startup_timeout_s)


async def _pump(
    dispatcher: JSONRPCDispatcher[TransportContext], session: McpSession, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    try:
        await dispatcher.run(session.on_request, session.on_notify, task_status=task_status)
    finally:
        session.lost.set()


def adapter_error(error: BaseException, label: str) -> AdapterError | None:
    """Find the error in the groups that task groups wrap it in; a transport's own is translated."""
    if isinstance(error, AdapterError):
        return error
    if isinstance(error, httpx2.HTTPError):
        return http_error(error, label)
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            if (found := adapter_error(inner, label)) is not None:
                return found
    return None


def _object(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if type(value) is dict or isinstance(value, Mapping) else {}


def _syntax(text: str) -> str:
    """Return where JSON is broken, out of what pydantic says about it; nothing where it is not that."""
    found = re.search(r"Invalid JSON: ([^\[\n]+)", text)
    return f" ({found[1].strip()})" if found else ""
