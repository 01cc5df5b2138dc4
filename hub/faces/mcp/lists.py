"""What the hub offers, listed: written to bytes once for each change of the agents, and served as bytes, page by page.

A page begins after the name that its cursor holds, whatever was added or removed meanwhile: nothing that stays is
listed twice or left out.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import mcp_types as types
import orjson
import structlog
from anyio import to_thread
from mcp.server.context import CallNext, HandlerResult
from mcp.shared.exceptions import MCPError
from mcp_types import SERVER_INFO_META_KEY
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from interhub.adapters import Principal
from interhub.adapters.exact_json import read_json
from interhub.agent_cards import JsonObject, visible
from interhub.registry import Agent

from .catalogue import Catalogue, Catalogues
from .inbound import Inbound
from .listed import KEYS, written
from .profiles import Profile
from .turn import Context, principal_of, profile_of

MAX_NAMED = 20
MAX_PAGE_BYTES = 4 * 1024 * 1024
"""A page ends before it is larger than this, unless it holds one definition alone."""
_CURSOR = "after "
_OWN = " {:03}"
"""Keys of the hub's own tools: a blank comes before every name that an agent's tool can have."""

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class _Whose:
    """Whose list, and in which words: all who have this in common are told the same bytes."""

    tenant: str
    profile: Profile
    method: str
    version: str


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """One list, whole."""

    keys: Sequence[str]
    items: Sequence[bytes]
    pages: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """Results by cursor, as far as they have been asked for."""
    issued: set[str] = field(default_factory=lambda: {""})
    """The cursors that lead from page to page, from the start on: only their pages are kept."""


class Lists:
    """Serves the lists: the hub's own tools first, then what the catalogue holds for the caller."""

    def __init__(
        self,
        catalogues: Catalogues,
        own: Sequence[types.Tool],
        *,
        search_above: int,
        page_size: int,
        ttl_s: float,
        server_info: JsonObject,
    ) -> None:
        """`ttl_s` is how long a modern client may keep a list; `server_info` is what a modern result is stamped with.

        The scope of the hint is `private`: what is listed depends on the caller's tenant and profile.
        """
        self._catalogues = catalogues
        self._own = own
        self._search_above = search_above
        self._page_size = page_size
        hints = {"ttlMs": int(ttl_s * 1000), "cacheScope": "private", "resultType": "complete"}
        self._modern_tail = orjson.dumps({**hints, "_meta": {SERVER_INFO_META_KEY: server_info}})[1:]
        self._listings: dict[_Whose, _Listing] = {}
        self._stale: list[_Whose] = []
        self._some_stale = anyio.Event()
        self._writing = anyio.Lock()

    def forget(self, tenant: str) -> None:
        """Take note that a tenant's agents changed; `run` writes anew what was in use."""
        for whose in [whose for whose in self._listings if whose.tenant == tenant]:
            del self._listings[whose]
            self._stale.append(whose)
        self._some_stale.set()

    async def run(self) -> None:
        """Write lists that were in use anew after a change, so that nobody has to wait for them. Until cancelled."""
        while True:
            await self._some_stale.wait()
            self._some_stale = anyio.Event()
            stale, self._stale = self._stale, []
            for whose in stale:
                try:
                    await self._page(whose, "")
                except Exception:  # whoever asks for it is told; the others go on being written
                    log.exception("mcp_list_not_written", method=whose.method, tenant=whose.tenant)

    # The two ways in

    def shortcut(self, inbound: Inbound) -> bytes | None:
        """Answer a list request at the entrance (`inbound.Shortcut`) with a page that has been written already.

        What is not in order, or is to be written first, is left to the long way.

        A legacy client's session has been looked up. Its version is the one that it names in the header, as it must
        (MCP 2025-11-25, basic/transports, protocol version header); one that names none is left too.
        """
        cursor = inbound.params.get("cursor", "")
        version = inbound.headers.get(b"mcp-protocol-version", b"").strip(b" \t").decode("latin-1")
        if not version or not isinstance(cursor, str):
            return None
        whose = _Whose(
            tenant=inbound.principal.tenant,
            profile=inbound.caller.profile,
            method=inbound.method,
            version=version,
        )
        listing = self._listings.get(whose)
        return listing.pages.get(cursor) if listing is not None else None

    async def middleware(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Answer a list request within the SDK's server, and write who is there into what a client reads first."""
        if ctx.method in ("initialize", "server/discover"):
            result = await call_next(ctx)
            if isinstance(result, dict):
                catalogue = await self._catalogues.of(principal_of(ctx), profile_of(ctx))
                result["instructions"] = instructions(catalogue.agents)
            return result
        modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        ready = modern or ctx.session.client_params is not None
        cursor = (ctx.params or {}).get("cursor", "")
        if ctx.method not in KEYS or not ready or not isinstance(cursor, str):
            return await call_next(ctx)  # the SDK says what is wrong
        return await self.result(principal_of(ctx), profile_of(ctx), ctx.method, ctx.protocol_version, cursor)

    async def result(
        self, principal: Principal, profile: Profile, method: str, version: str, cursor: str = ""
    ) -> dict[str, Any]:
        """Return the result of a list request.

        Raises:
            MCPError: the cursor is none of ours.
        """
        whose = _Whose(tenant=principal.tenant, profile=profile, method=method, version=version)
        return cast("dict[str, Any]", read_json(await self._page(whose, cursor)))

    # Pages

    async def _page(self, whose: _Whose, cursor: str) -> bytes:
        listing = self._listings.get(whose)
        if listing is None:
            listing = await self._write(whose)
        page = listing.pages.get(cursor)
        if page is None:
            start = bisect_right(listing.keys, _after(cursor)) if cursor else 0
            page, following = self._cut(whose, listing, start)
            if cursor in listing.issued:
                listing.pages[cursor] = page
                listing.issued.add(following)
        return page

    async def _write(self, whose: _Whose) -> _Listing:
        async with self._writing:
            listing = self._listings.get(whose)
            if listing is not None:
                return listing
            generation = self._catalogues.generation
            principal = Principal(subject="interhub", tenant=whose.tenant)
            catalogue = await self._catalogues.of(principal, whose.profile)
            # In a thread: ten thousand definitions take about a second at the first time.
            listing = await to_thread.run_sync(self._listing, whose, catalogue)
            if generation == self._catalogues.generation:
                self._listings[whose] = listing
            return listing

    def _listing(self, whose: _Whose, catalogue: Catalogue) -> _Listing:
        keys: list[str] = []
        items: list[bytes] = []
        if whose.method == "tools/list":
            items = written(self._own, whose.method, whose.version)
            keys = [_OWN.format(place) for place in range(len(items))]
        if whose.method != "tools/list" or self._lists_all(whose.profile, catalogue):
            found = catalogue.definitions(whose.method, whose.version)
            keys += [definition.key for definition in found]
            items += [definition.wire for definition in found]
        return _Listing(keys=keys, items=items)

    def _lists_all(self, profile: Profile, catalogue: Catalogue) -> bool:
        match profile.mode:
            case "all":
                return True
            case "search":
                return False
            case "auto":
                return len(catalogue.tools) + len(self._own) <= self._search_above

    def _cut(self, whose: _Whose, listing: _Listing, start: int) -> tuple[bytes, str]:
        """Return the page that begins at a place, and the cursor of the next one."""
        end, size = start, 0
        for item in listing.items[start : start + self._page_size]:
            size += len(item)
            if size > MAX_PAGE_BYTES and end > start:
                break
            end += 1
        following = _cursor(listing.keys[end - 1]) if end < len(listing.items) else ""
        body = b'{"%b":[%b]' % (KEYS[whose.method].encode(), b",".join(listing.items[start:end]))
        if following:
            body += b',"nextCursor":"%b"' % following.encode()
        return body + (b"," + self._modern_tail if whose.version in MODERN_PROTOCOL_VERSIONS else b"}"), following


def instructions(agents: Sequence[Agent]) -> str:
    """Say, for a model, what the hub is and how to use it; names the teams and workflows."""
    lines = [
        "interhub connects you to agents and tools of any framework.",
        "`delegate` hands a goal to them as durable work that survives a disconnect; `run_result` gets the result.",
        "`find` says who can meet a need; `call` uses one capability directly.",
        "When a result holds questions, ask the user and pass the reply to `answer`; never answer for them.",
    ]
    for adapter, noun in (("team", "Teams"), ("workflow", "Workflows")):
        named = [_line(agent) for agent in agents if agent.adapter == adapter]
        if named:
            lines.append(f"{noun} (give their id to `delegate` as `agent`):")
            lines += named[:MAX_NAMED]
            if len(named) > MAX_NAMED:
                lines.append(f"- and {len(named) - MAX_NAMED} more: see `find`")
    return "\n".join(lines)


def _line(agent: Agent) -> str:
    about = " ".join(visible(agent.card.description).split())
    return f"- {agent.id}: {about[:160]}" if about else f"- {agent.id}"


def _cursor(key: str) -> str:
    return urlsafe_b64encode(f"{_CURSOR}{key}".encode()).decode().rstrip("=")


def _after(cursor: str) -> str:
    try:
        key = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (BadBase64, ValueError) as error:
        raise MCPError(types.INVALID_PARAMS, "this cursor is none of ours; list from the start") from error
    if not key.startswith(_CURSOR):
        raise MCPError(types.INVALID_PARAMS, "this cursor is none of ours; list from the start")
    return key.removeprefix(_CURSOR)
