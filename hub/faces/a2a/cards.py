"""The agent cards that the hub serves: its own, and one for every agent, in each version that callers ask for.

A caller of A2A 1.x gets a pure 1.0 card: in a card for both versions no signature covers the fields of 0.3. Others get
the card for both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha256
from typing import Any

import orjson
from a2a import types as a2a
from a2a.client.card_resolver import parse_agent_card
from google.protobuf.json_format import ParseDict
from starlette.requests import Request
from starlette.responses import Response

from interhub.adapters import Principal
from interhub.agent_cards import AgentCard, CardVersion, Security, agent_card_for, hub_card, write_card
from interhub.agent_cards.keys import SigningKey
from interhub.agent_cards.signing import sign_card
from interhub.hub.errors import Unauthenticated
from interhub.hub.faces.refusals import refusal
from interhub.hub.service import Hub

ANONYMOUS = Principal(subject="anonymous")
"""On whose behalf a card is read that nobody needs a key for."""

MAX_AGE_S = 60
"""Seconds that a card may be kept; agents come and go while the hub runs, and a new look costs a 304."""

_MAX_KEPT = 1000


@dataclass(frozen=True, kw_only=True)
class _Written:
    body: bytes
    etag: str
    at: str
    """When, as an HTTP date."""


@dataclass(frozen=True, kw_only=True)
class CardSigner:
    """What signs the hub's cards."""

    key: Callable[[], SigningKey]
    """Returns the key that signs now."""
    key_url: str
    """Where its public half is published."""


class Cards:
    """Writes cards, and keeps what it wrote until the tenant's agents change."""

    def __init__(
        self, hub: Hub, *, public_agents: bool = True, pushes: bool = False, signer: CardSigner | None = None
    ) -> None:
        """`public_agents` says whether callers without a key see which agents there are."""
        self._hub = hub
        self._public_agents = public_agents
        self._pushes = pushes
        self._signer = signer
        self._signed_by = ""
        self._security = Security(header="X-API-Key")
        self._kept: dict[tuple[str, str, bool, CardVersion], _Written] = {}
        hub.on_agents_changed(self._forget)

    async def serve(self, request: Request) -> Response:
        """Answer a GET of the hub's card, or of the card of the agent that the path names."""
        principal: Principal | None = request.scope["state"].get("principal")
        agent_id: str = request.path_params.get("agent_id", "")
        if principal is None and agent_id and not self._public_agents:
            return refusal(request.scope, Unauthenticated())
        version: CardVersion = "1.0" if asked_version(request).startswith("1") else "dual"
        written = await self._written(
            principal or ANONYMOUS, agent_id, full=principal is not None or self._public_agents, version=version
        )
        headers = {
            "ETag": written.etag,
            "Last-Modified": written.at,
            # A card depends on the key that came along, so that only the caller's own cache may keep it.
            "Cache-Control": f"{'public' if principal is None else 'private'}, max-age={MAX_AGE_S}",
            "Vary": "A2A-Version, Authorization, X-API-Key",
        }
        if _matches(request.headers.get("if-none-match", ""), written.etag):
            return Response(status_code=304, headers=headers)
        return Response(written.body, headers=headers, media_type="application/json")

    async def extended(self, principal: Principal, *, version: str) -> a2a.AgentCard:
        """Return the hub's card as an authenticated caller may see it, as the SDK's type.

        The SDK writes it in the version of the request: for 0.3 it looks for interfaces of 0.3.
        """
        if version.startswith("1"):
            pure = await self._written(principal, "", full=True, version="1.0")
            return ParseDict(_object(pure.body), a2a.AgentCard())
        dual = await self._written(principal, "", full=True, version="dual")
        return parse_agent_card(_object(dual.body))

    async def _written(self, principal: Principal, agent_id: str, *, full: bool, version: CardVersion) -> _Written:
        signing = self._signer.key() if self._signer is not None else None
        if signing is not None and signing.id != self._signed_by:
            self._kept.clear()  # another key signs from now on
            self._signed_by = signing.id
        key = (principal.tenant, agent_id, full, version)
        kept = self._kept.get(key)
        if kept is None:
            card = await self._card(principal, agent_id, full=full)
            written = write_card(card, version=version, security=self._security)
            # Two signatures of one card are never the same: what tells a change is what they cover.
            etag = sha256(orjson.dumps(written) + self._signed_by.encode()).hexdigest()[:32]
            if signing is not None and self._signer is not None:
                written = sign_card(written, signing, key_url=self._signer.key_url)
            at = format_datetime(datetime.now(UTC), usegmt=True)
            kept = _Written(body=orjson.dumps(written), etag=f'"{etag}"', at=at)
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            self._kept[key] = kept
        return kept

    async def _card(self, principal: Principal, agent_id: str, *, full: bool) -> AgentCard:
        info = self._hub.info
        if agent_id:
            agent = await self._hub.agent(principal, agent_id)
            return agent_card_for(
                agent.card, info.base_url, agent_id=agent.id, grpc=info.grpc, push_notifications=self._pushes
            )
        agents = {agent.id: agent.card for agent in await self._hub.agents(principal)} if full else {}
        return hub_card(
            info.base_url,
            agents,
            info.version,
            name=info.name,
            grpc=info.grpc,
            push_notifications=self._pushes,
            extended_card=True,
        )

    def _forget(self, tenant: str) -> None:
        for key in [key for key in self._kept if key[0] == tenant]:
            del self._kept[key]


def asked_version(request: Request) -> str:
    """Return the version of A2A that a request names, in the header or the query (A2A 1.0, section 3.6.1); or none."""
    return request.headers.get("a2a-version", "") or request.query_params.get("A2A-Version", "")


def _object(body: bytes) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(body)
    return read


def _matches(if_none_match: str, etag: str) -> bool:
    candidates = [candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")]
    return "*" in candidates or etag in candidates
