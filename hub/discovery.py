"""How an agent becomes known: from an address, a command, a file or a document, to a record in the registry."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit

import structlog

from interhub.adapters import (
    Adapter,
    AdapterError,
    AdapterNotFound,
    BadEndpoint,
    ProtocolViolation,
    RemoteDenied,
    RemoteUnavailable,
    UnusableCard,
)
from interhub.agent_cards import AgentCard, Binding, Endpoint, Json, JsonObject
from interhub.agent_cards.canonical import digest
from interhub.agent_cards.signature import SignatureState
from interhub.registry import Agent, Health, HealthState, check_id, slug

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class FromUrl:
    """An A2A agent (its card, or its base address) or an MCP server, by URL."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    protocol: str = ""
    """"a2a" or "mcp"; empty finds out."""
    allow_private: bool = False
    """It may be at an address of loopback or of a private network."""
    allow_bad_signature: bool = False
    """Its card is taken even where a signature does not fit."""
    credentials: Mapping[str, str] = field(default_factory=dict[str, str])
    """By the name of a security scheme of an A2A agent's card, what satisfies it (`adapters.a2a.credentials`)."""

    @property
    def options(self) -> dict[str, Json]:
        """What is allowed and given, as options of the endpoint."""
        allowed = {"allow_private": self.allow_private, "allow_bad_signature": self.allow_bad_signature}
        options: dict[str, Json] = {name: True for name, value in allowed.items() if value}
        return {**options, "credentials": dict(self.credentials)} if self.credentials else options


@dataclass(frozen=True, kw_only=True)
class FromCommand:
    """An MCP server over stdio, by its argument list."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str = ""


@dataclass(frozen=True, kw_only=True)
class FromWorker:
    """An object of a framework, in a Python file."""

    target: str
    """`path.py:object`."""
    framework: str
    requirements: str = ""
    """A requirements file to install besides the framework."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str = ""


@dataclass(frozen=True, kw_only=True)
class FromDocument:
    """A team or a workflow, by its document (parsed YAML or JSON with `kind: team` or `kind: workflow`)."""

    document: JsonObject
    source: str = "the document"
    """Where it came from, for errors."""


@dataclass(frozen=True, kw_only=True)
class FromEndpoint:
    """An endpoint that is known in full, as an import gives it."""

    adapter: str
    endpoint: Endpoint


Source: TypeAlias = FromUrl | FromCommand | FromWorker | FromDocument | FromEndpoint


class Documents(Protocol):
    """Turns a team's or workflow's document into an agent: the supervisor."""

    async def agent_of_document(
        self, tenant: str, document: JsonObject, source: str
    ) -> tuple[str, AgentCard, Endpoint]:
        """Return the adapter's name, the card and the endpoint.

        Raises:
            PlanInvalid: the document has mistakes.
        """
        ...


class Discovery:
    """Finds out what an agent is and what it says about itself."""

    def __init__(self, *, adapters: Mapping[str, Adapter], documents: Documents) -> None:
        self._adapters = adapters
        self._documents = documents

    async def look(self, source: Source, *, tenant: str, agent_id: str = "") -> Agent:
        """Reach the agent that a source names and return its record, not yet registered.

        `agent_id` is taken from the card's name when it is not given.

        Raises:
            InvalidAgentId: the id is not of the allowed form.
            AdapterError: nothing usable is there; the message says what was found and what to do.
            PlanInvalid: a document has mistakes.
        """
        if agent_id:
            check_id(agent_id)
        match source:
            case FromDocument():
                adapter, card, endpoint = await self._documents.agent_of_document(
                    tenant, source.document, source.source
                )
            case FromUrl():
                adapter, card, endpoint = await self._look_at_url(source)
            case FromCommand():
                endpoint = Endpoint(binding=Binding.MCP_STDIO, command=source.command, env=source.env, cwd=source.cwd)
                adapter, card = "mcp", await self._describe("mcp", endpoint)
            case FromWorker():
                adapter, endpoint = "worker", _worker_endpoint(source)
                card = await self._describe("worker", endpoint)
            case FromEndpoint():
                adapter, endpoint = source.adapter, source.endpoint
                card = await self._describe(adapter, endpoint)
        now = datetime.now(UTC)
        return Agent(
            id=agent_id or slug(card.name),
            tenant=tenant,
            adapter=adapter,
            card=card,
            endpoint=endpoint,
            digest=digest(card),
            health=Health(state=HealthState.HEALTHY, checked_at=now),
            created_at=now,
            updated_at=now,
        )

    async def look_again(self, agent: Agent) -> Agent:
        """Return the record with what the agent says about itself now, how it is spoken to by that, and its health.

        Raises:
            UnusableCard: its card was signed by a key that we trust, and is no longer.
            AdapterError: it could not be reached.
        """
        if agent.adapter in ("team", "workflow"):
            return agent
        card = await self._describe(agent.adapter, agent.endpoint)
        known, found = agent.card.signature, card.signature
        if known.state is SignatureState.VERIFIED and found.state is not SignatureState.VERIFIED:
            raise UnusableCard(
                agent.endpoint.url,
                f"the card of {agent.id!r} was {known}, and is now {found}; if that is meant, remove the agent and add "
                "it again",
            )
        now = datetime.now(UTC)
        return replace(
            agent,
            card=card,
            endpoint=_endpoint_now(agent, card),
            digest=digest(card),
            health=Health(state=HealthState.HEALTHY, checked_at=now),
            updated_at=now,
        )

    async def _describe(self, adapter: str, endpoint: Endpoint) -> AgentCard:
        if adapter not in self._adapters:
            raise AdapterNotFound(adapter, tuple(sorted(self._adapters)))
        return await self._adapters[adapter].describe(endpoint)

    async def _look_at_url(self, source: FromUrl) -> tuple[str, AgentCard, Endpoint]:
        from interhub.adapters.addresses import AddressRefused
        from interhub.adapters.egress import check_url  # late: it brings httpx

        check_url(source.url)
        asked = source.protocol or ("a2a" if source.credentials else "")  # only cards have schemes
        order = [asked] if asked else _likely_protocols(source.url)
        failures: list[AdapterError] = []
        for protocol in order:
            try:
                return await self._look_with(protocol, source)
            except (RemoteDenied, AddressRefused):
                raise
            except AdapterError as failure:
                log.debug("discovery_failed", url=source.url, protocol=protocol, error=str(failure))
                failures.append(failure)
        # A dead host says so once; a live one that is neither says what each of the two readers found.
        if all(isinstance(failure, RemoteUnavailable) for failure in failures) or len(failures) == 1:
            raise failures[0]
        # Only now: a site that redirects every unknown path elsewhere may still be an MCP server at this one.
        for certain in failures:
            if isinstance(certain, UnusableCard | BadEndpoint):
                raise certain
        found = "; ".join(f"as {name}: {_reason(each)}" for name, each in zip(order, failures, strict=True))
        raise ProtocolViolation(source.url, f"neither an A2A agent nor an MCP server answers there ({found})")

    async def _look_with(self, protocol: str, source: FromUrl) -> tuple[str, AgentCard, Endpoint]:
        if protocol == "mcp":
            binding = Binding.MCP_SSE if urlsplit(source.url).path.rstrip("/").endswith("/sse") else Binding.MCP_HTTP
            endpoint = Endpoint(binding=binding, url=source.url, headers=source.headers, options=source.options)
            return "mcp", await self._describe("mcp", endpoint), endpoint
        probe = Endpoint(binding=Binding.A2A_JSONRPC, url=source.url, headers=source.headers, options=source.options)
        card = await self._describe("a2a", probe)
        # The adapter lists what it can speak, preferred first, and has put our headers on what shares the card's
        # origin only: a card that names another host must not be sent our credentials.
        return "a2a", card, card.interfaces[0]


def _endpoint_now(agent: Agent, card: AgentCard) -> Endpoint:
    if agent.adapter != "a2a":
        return agent.endpoint
    from interhub.adapters.a2a.cards import moved  # late: it brings httpx

    return moved(agent.endpoint, card)


def _reason(failure: AdapterError) -> str:
    """Return what is wrong without the place, which is said once."""
    match failure:
        case ProtocolViolation():
            return failure.what
        case RemoteUnavailable():
            return failure.why
        case _:
            return str(failure)


def _likely_protocols(url: str) -> list[str]:
    path = urlsplit(url).path.rstrip("/")
    return ["mcp", "a2a"] if path.endswith(("/mcp", "/sse")) else ["a2a", "mcp"]


def _worker_endpoint(source: FromWorker) -> Endpoint:
    path, _, name = source.target.rpartition(":")
    if not path or not name:
        raise BadEndpoint(source.target, "names no object", "give it as path.py:object, for example agent.py:graph")
    file = Path(path).expanduser()
    if not file.is_absolute():
        raise BadEndpoint(source.target, "is not an absolute path", "the command line makes it absolute for you")
    if not file.is_file():
        raise BadEndpoint(source.target, f"there is no file {path}")
    options: dict[str, Json] = {"target": f"{file}:{name}", "framework": source.framework}
    if source.requirements:
        options["requirements"] = source.requirements
    return Endpoint(binding=Binding.WORKER, env=source.env, cwd=source.cwd or str(file.parent), options=options)
