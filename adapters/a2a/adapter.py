"""Speaks to A2A agents: versions 1.0 and 0.3, over JSON-RPC, HTTP+JSON and, with the extra, gRPC.

The pieces: `a2a_cards` finds the card, `a2a_message` says what we have to say, `a2a_wire` writes requests,
`a2a_tolerance` reads answers into `a2a_events`, `a2a_client` does both over HTTP, `a2a_task` keeps what is known of one
task, and `a2a_exchange` sees one call through.
"""

import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio
import httpx
import orjson
import structlog

from interhub.adapters.addresses import ALLOW_PRIVATE, Reach
from interhub.adapters.base import Call, Connection, Outcome, Report
from interhub.adapters.egress import EgressLimits, check_headers, check_url, open_client
from interhub.adapters.errors import (
    AdapterError,
    AnswerTooLarge,
    BadEndpoint,
    ProtocolViolation,
    RemoteDenied,
    RemoteRefused,
    RemoteTimeout,
    UnusableCard,
)
from interhub.adapters.expand import expand_all
from interhub.adapters.http1_transport import Http1Transport
from interhub.agent_cards import AgentCard, Binding, CardError, Endpoint, read_card
from interhub.agent_cards.security import SecurityNeeds, read_security

from .authorized import AuthorizedTransport, Authorizer
from .card_cache import CardCache
from .cards import CARD_URL, check_binding, checked_card, find_card, interface_for, moved
from .client import A2aClient
from .credentials import CREDENTIALS, asked_for, check_given, credentials_for
from .exchange import Delivery, Exchange, Patience
from .extensions import Extensions
from .grpc_target import grpc_target
from .peer import Peer
from .signatures import CardTrust
from .tokens import TokenStore
from .tolerance import TolerantReader
from .wire import Dialect, Fault, HttpJson, JsonRpc, WireVersion, wire_version

_log = structlog.get_logger(__name__)

DELIVERY = "delivery"
"""Key in `Endpoint.options`: one of Delivery's values, for an agent that is better waited for in another way."""

_MAX_CONTEXTS = 4096


Speak: TypeAlias = Callable[[WireVersion, str], Peer]
"""Makes what speaks a version to an interface; the text names the agent in errors."""


@dataclass(frozen=True, kw_only=True)
class A2aSettings:
    """What an agent may take of us."""

    card: EgressLimits = field(default_factory=EgressLimits)
    """For reading a card."""
    trust: CardTrust = field(default_factory=CardTrust)
    """What is asked of a card's signatures."""
    connect_s: float = 5.0
    max_answer_bytes: int = 48 * 1024 * 1024
    """One answer or event, as it comes over the wire."""
    max_artifact_bytes: int = 32 * 1024 * 1024
    """All artifacts of one task."""
    patience: Patience = field(default_factory=Patience)


class A2aAdapter:
    """Speaks A2A."""

    def __init__(
        self,
        *,
        settings: A2aSettings | None = None,
        env: Mapping[str, str] | None = None,
        reach: Reach | None = None,
    ) -> None:
        """`env` is where `${NAME}` in headers is taken from, else the process's environment.

        `reach` is what may be connected to besides public addresses. What the operator wrote as an agent's own address
        is as well where that is an IP address or `localhost`; the option `allow_private` opens private networks.
        """
        self._settings = settings or A2aSettings()
        self._env = os.environ if env is None else env
        self._reach = reach or Reach()
        self._tokens = TokenStore()
        self._cards = CardCache()

    @property
    def name(self) -> str:
        """`a2a`."""
        return "a2a"

    async def describe(self, endpoint: Endpoint) -> AgentCard:
        """Find the agent's card from its own address, the agent's, or an interface's (see `a2a_cards.find_card`).

        `interfaces` names those that we speak, preferred first, with the endpoint's headers on those of its origin.

        Raises:
            RemoteUnavailable: nothing answers there.
            RemoteDenied: it wants credentials.
            ProtocolViolation: something answers that is not an A2A agent.
            BadEndpoint: the address cannot be used, or the card names no interface that we speak.
        """
        check_binding(endpoint)
        check_given(endpoint)
        headers = self._headers(endpoint, endpoint.url)
        limits = self._settings.card
        async with open_client(
            reach=self._reach_of(endpoint), connect_s=limits.connect_s, read_s=limits.total_s
        ) as http:
            card = await find_card(
                http, endpoint, headers=headers, limits=limits, trust=self._settings.trust, cache=self._cards
            )
            first = card.interfaces[0]
            credentials_for(first, read_security(card.raw), card_url=_card_url(first), env=None)
            return await self._extended(http, card, endpoint)

    async def _extended(self, http: httpx.AsyncClient, card: AgentCard, endpoint: Endpoint) -> AgentCard:
        """Return the card that the agent shows to whom it knows, where it has one and we have credentials for it.

        One that cannot be read for a reason that may pass is an error: else the agent would seem to have changed.

        Raises:
            RemoteUnavailable, RemoteTimeout: it did not answer.
            UnusableCard: the card has a bad signature, or lacks what is needed.
        """
        spoken = [each for each in card.interfaces if each.binding is not Binding.A2A_GRPC]
        known = [each for each in spoken if each.headers or CREDENTIALS in each.options]
        if not card.extended_card or not known:
            return card
        interface, limits = known[0], self._settings.card
        where, url = interface.url.partition("?")[0], _card_url(interface)
        try:
            with anyio.fail_after(limits.total_s):
                authorizer = self._authorizer(interface, card, where, endpoint)
                headers = self._headers(interface, where)
                async with self._http(endpoint, interface, headers, authorizer, ()) as speak:
                    client = speak(wire_version(interface.version) or WireVersion.V1, where)
                    assert isinstance(client, A2aClient), "over HTTP"
                    document = await client.extended_card()
            full = read_card(orjson.dumps(document), source=url)
        except TimeoutError:
            raise RemoteTimeout(where, limits.total_s) from None
        except CardError as error:
            raise UnusableCard(where, f"its extended card: {error}") from error
        except (Fault, RemoteRefused, RemoteDenied, ProtocolViolation, BadEndpoint) as error:
            _log.warning("a2a_no_extended_card", agent=where, why=str(error))
            return card
        return await checked_card(http, full, endpoint, url=url, limits=limits, trust=self._settings.trust)

    def _authorizer(self, interface: Endpoint, card: AgentCard, where: str, endpoint: Endpoint) -> Authorizer | None:
        credentials = credentials_for(interface, read_security(card.raw), card_url=_card_url(interface), env=self._env)
        if not credentials:
            return None
        return Authorizer(credentials, self._tokens, where=where, reach=self._reach_of(endpoint))

    def connect(self, endpoint: Endpoint, *, card: AgentCard, label: str) -> AbstractAsyncContextManager[Connection]:
        """Open a conversation. Nothing is sent before the first call.

        Raises:
            BadEndpoint: the address, binding, version, a header or an option cannot be used.
        """
        return self._connect(endpoint, card, label)

    @asynccontextmanager
    async def _connect(self, endpoint: Endpoint, card: AgentCard, label: str) -> AsyncGenerator[Connection]:
        terms = _Terms.of(endpoint, card, label)
        interface = terms.interface
        headers = self._headers(interface, label)
        authorizer = self._authorizer(interface, card, label, endpoint)
        opened = self._grpc if interface.binding is Binding.A2A_GRPC else self._http

        def holds(other: AgentCard) -> bool:
            try:
                return _Terms.of(moved(endpoint, other), other, label) == terms
            except AdapterError:
                return False  # whoever opens another connection is told what is wrong

        async with opened(endpoint, interface, headers, authorizer, terms.extensions.activated) as speak:
            yield A2aConnection(
                speak,
                interface,
                label=label,
                delivery=terms.delivery,
                settings=self._settings,
                extensions=terms.extensions,
                holds=holds,
                asked_for="" if authorizer is not None else asked_for(terms.security),
            )

    @asynccontextmanager
    async def _http(
        self,
        endpoint: Endpoint,
        interface: Endpoint,
        headers: dict[str, str],
        authorizer: Authorizer | None,
        extensions: tuple[str, ...],
    ) -> AsyncGenerator[Speak]:
        check_url(interface.url)

        def authorized(inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
            return inner if authorizer is None else AuthorizedTransport(inner, authorizer, url=interface.url)

        async with open_client(
            reach=self._reach_of(endpoint),
            headers=headers,
            connect_s=self._settings.connect_s,
            wrap=authorized,
            transport=Http1Transport(
                self._reach_of(endpoint),
                connect_s=self._settings.connect_s,
                max_body_bytes=self._settings.max_answer_bytes,
            ),
        ) as http:

            def speak(version: WireVersion, where: str) -> Peer:
                rest = interface.binding is Binding.A2A_REST
                dialect: Dialect = (HttpJson if rest else JsonRpc)(
                    version, tenant=interface.tenant, extensions=extensions
                )
                return A2aClient(
                    http,
                    interface.url,
                    dialect,
                    TolerantReader(where, version),
                    where=where,
                    max_answer_bytes=self._settings.max_answer_bytes,
                )

            yield speak

    @asynccontextmanager
    async def _grpc(
        self,
        endpoint: Endpoint,
        interface: Endpoint,
        headers: dict[str, str],
        authorizer: Authorizer | None,
        extensions: tuple[str, ...],
    ) -> AsyncGenerator[Speak]:
        from .grpc_peer import GrpcPeer, open_channels  # an extra, and the SDK's: imported where it is needed

        settings = self._settings
        if authorizer is not None and (authorizer.credentials.query or authorizer.credentials.cookies):
            raise BadEndpoint(
                interface.url, "gRPC has neither query nor cookies for a key", "use another interface of the agent"
            )
        async with open_channels(
            grpc_target(interface),
            headers=headers,
            authorizer=authorizer,
            reach=self._reach_of(interface),
            connect_s=settings.connect_s,
            max_answer_bytes=settings.max_answer_bytes,
        ) as channels:

            def speak(version: WireVersion, where: str) -> Peer:
                return GrpcPeer(
                    channels,
                    version,
                    TolerantReader(where, version),
                    tenant=interface.tenant,
                    extensions=extensions,
                    where=where,
                    max_answer_bytes=settings.max_answer_bytes,
                )

            yield speak

    def _headers(self, endpoint: Endpoint, where: str) -> dict[str, str]:
        headers = expand_all(endpoint.headers, self._env)
        check_headers(where, headers)
        return headers

    def _reach_of(self, endpoint: Endpoint) -> Reach:
        reach = self._reach.with_private() if endpoint.options.get(ALLOW_PRIVATE) is True else self._reach
        # The interface's address is the card's word; where the card was found is the operator's.
        card_url = endpoint.options.get(CARD_URL)
        if isinstance(card_url, str) and card_url:
            return reach.with_host(check_url(card_url).host)
        if endpoint.binding is Binding.A2A_GRPC:
            return reach.with_host(grpc_target(endpoint).host)
        return reach.with_host(check_url(endpoint.url).host)


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """What of an agent's card a connection is opened by."""

    interface: Endpoint
    delivery: Delivery
    extensions: Extensions
    security: SecurityNeeds

    @classmethod
    def of(cls, endpoint: Endpoint, card: AgentCard, label: str) -> "_Terms":
        """Read them.

        Raises:
            BadEndpoint: the binding, the version or the delivery is none that we know.
        """
        interface = interface_for(endpoint, card)
        return cls(
            interface=interface,
            delivery=_delivery(interface, card, label),
            extensions=Extensions.of(card),
            security=read_security(card.raw),
        )


class A2aConnection:
    """An open conversation with one A2A agent; used by many calls at once."""

    def __init__(
        self,
        speak: Speak,
        interface: Endpoint,
        *,
        label: str,
        delivery: Delivery,
        settings: A2aSettings,
        extensions: Extensions,
        holds: Callable[[AgentCard], bool],
        asked_for: str = "",
    ) -> None:
        """`holds` says whether all that this was opened by is the same with another card of the agent's.

        `asked_for` says what the agent's card asks for and was not given.
        """
        self._speak = speak
        self._holds = holds
        self._asked_for = asked_for
        self._extensions = extensions
        # In errors and logs without its query, which can hold a secret.
        self._where = f"{label} ({interface.url.partition('?')[0]})"
        self._delivery = delivery
        self._settings = settings
        self._contexts: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._negotiable = not interface.version
        self._client = speak(wire_version(interface.version) or WireVersion.V1, self._where)

    @property
    def reader(self) -> TolerantReader:
        """What reads the agent's answers, and knows which leniencies it needed."""
        return self._client.reader

    def renew(self, card: AgentCard) -> bool:
        """Go by this card from now on, where it changes nothing of how the agent is spoken to (`Renewable`)."""
        return self._holds(card)

    async def call(self, call: Call, report: Report) -> Outcome:
        """Send a message, or go on with its task, and return how it ended.

        A cancelled call, and one that outlasts `timeout_s`, is told to the agent (A2A CancelTask).

        Raises:
            RemoteUnavailable: the agent could not be reached, or lost the task: a retry with the same key is safe.
            RemoteTimeout: it lasted longer than `call.timeout_s`.
            RemoteDenied: it wants credentials, or other ones.
            RemoteCanceled: the agent says that the task was canceled.
            RemoteRefused: the task failed or was rejected, or the message was answered with an error.
            ProtocolViolation: it answered with what A2A does not allow, and what we cannot read all the same.
            AnswerTooLarge: it answered with more than we take.
        """
        self._extensions.check(call, self._where)
        with anyio.move_on_after(call.timeout_s):
            try:
                return await self._negotiated(call, report)
            except RemoteDenied as error:
                if not self._asked_for:
                    raise
                why = f"{error.why.partition('; ')[0]}; {self._asked_for}"
                raise RemoteDenied(error.where, why, error.parts, error.code) from error
        raise RemoteTimeout(self._where, call.timeout_s or 0.0)

    async def cancel(self, remote_task: str) -> None:
        """Ask the agent to stop a task; that it knows none, or that it has ended, is no error.

        Raises:
            RemoteUnavailable: the agent could not be reached.
            RemoteDenied: it wants credentials, or other ones.
        """
        try:
            await self._client.cancel_task(remote_task, headers={})
        except Fault as fault:
            _log.info("a2a_not_canceled", agent=self._where, task=remote_task, reason=fault.reason or fault.message)
        except RemoteDenied:
            raise
        except RemoteRefused as error:
            _log.info("a2a_not_canceled", agent=self._where, task=remote_task, reason=str(error))

    async def _negotiated(self, call: Call, report: Report) -> Outcome:
        try:
            return await self._exchange(call, report)
        except Fault as fault:
            unknown = fault.reason in ("VERSION_NOT_SUPPORTED", "METHOD_NOT_FOUND")
            if not (self._negotiable and unknown and self._client.reader.version is WireVersion.V1):
                raise self._refused(fault) from fault
        # Nothing was executed: what it does not know is the version, and nobody said which one it speaks.
        self._client = self._speak(WireVersion.V03, self._where)
        self._negotiable = False
        try:
            return await self._exchange(call, report)
        except Fault as fault:
            raise self._refused(fault) from fault

    async def _exchange(self, call: Call, report: Report) -> Outcome:
        known = self._context_of(call)
        exchange = Exchange(
            self._client,
            call,
            report,
            where=self._where,
            context_id=known,
            delivery=self._delivery,
            may_subscribe=self._delivery is Delivery.STREAM,
            patience=self._settings.patience,
            max_artifact_bytes=self._settings.max_artifact_bytes,
        )
        try:
            return await exchange.run()
        except (anyio.get_cancelled_exc_class(), AnswerTooLarge):
            with anyio.move_on_after(self._settings.patience.cancel_s, shield=True):
                await exchange.stop()
            raise
        finally:
            self._remember(call, known, exchange.view.context_id)

    def _context_of(self, call: Call) -> str:
        """Return the agent's own id of the conversation; empty when it is new to it."""
        if call.remote_context or not call.context_id:
            return call.remote_context
        return self._contexts.get((call.principal.key, call.context_id), "")

    def _remember(self, call: Call, known: str, context_id: str) -> None:
        """Keep the agent's id of a conversation.

        Of several calls that begin it together the first stays; an agent that goes on under another id is followed.
        """
        if not context_id or not call.context_id:
            return
        key = (call.principal.key, call.context_id)
        if known and context_id != known:
            self._contexts[key] = context_id
        self._contexts.setdefault(key, context_id)
        self._contexts.move_to_end(key)
        if len(self._contexts) > _MAX_CONTEXTS:
            self._contexts.popitem(last=False)

    def _refused(self, fault: Fault) -> AdapterError:
        why = fault.message
        if fault.reason == "VERSION_NOT_SUPPORTED":
            why += "; look at the agent's card again, its version has changed"
        if isinstance(fault.data, str) and fault.data not in why:
            why += f" ({fault.data})"
        return RemoteRefused(self._where, why, code=fault.code)


def _card_url(interface: Endpoint) -> str:
    known = interface.options.get(CARD_URL)
    return known if isinstance(known, str) and known else interface.url


def _delivery(interface: Endpoint, card: AgentCard, label: str) -> Delivery:
    asked = interface.options.get(DELIVERY)
    if asked is None or asked == "auto":
        return Delivery.STREAM if card.streaming else Delivery.POLL
    try:
        return Delivery(str(asked))
    except ValueError as error:
        known = ", ".join(["auto", *Delivery])
        raise BadEndpoint(label, f"{DELIVERY} {asked!r} is not known", f"use one of {known}") from error
