"""Access tokens by OAuth's client credentials (RFC 6749, section 4.4): kept until shortly before their end."""

import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote_plus

import anyio
import httpx
import orjson

from interhub.adapters.addresses import Reach
from interhub.adapters.egress import EgressLimits, check_url, failed, open_client, read_body
from interhub.adapters.errors import ProtocolViolation, RemoteDenied, RemoteTimeout, RemoteUnavailable
from interhub.agent_cards import Json

from .credentials import Grant

_EARLY_S = 30.0
"""A token is not used in its last seconds: it must outlast the way to the agent."""
_UNSTATED_S = 300.0
"""How long one is used that does not say how long it holds."""
_LIMITS = EgressLimits(max_body_bytes=64 * 1024)


@dataclass(frozen=True)
class _Token:
    value: str
    good_until: float


class TokenStore:
    """The tokens of one adapter. Who asks for the same one at the same time waits for the one request."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens: dict[Grant, _Token] = {}
        self._asking: dict[Grant, anyio.Lock] = {}

    async def token(self, grant: Grant, *, where: str, reach: Reach, refused: str = "") -> str:
        """Return an access token; one that was `refused` is not given again.

        Raises:
            RemoteDenied: the token endpoint does not give us one.
            RemoteUnavailable: it could not be reached.
            ProtocolViolation: its answer is none of OAuth's.
        """
        async with self._asking.setdefault(grant, anyio.Lock()):
            known = self._tokens.get(grant)
            if known is not None and known.good_until > self._clock() and known.value != refused:
                return known.value
            self._tokens.pop(grant, None)
            token = await self._fetch(grant, where, reach)
            self._tokens[grant] = token
            return token.value

    async def _fetch(self, grant: Grant, where: str, reach: Reach) -> _Token:
        if grant.by_operator:
            reach = reach.with_host(check_url(grant.token_url).host)
        with anyio.move_on_after(_LIMITS.total_s):
            async with open_client(reach=reach, connect_s=_LIMITS.connect_s, read_s=_LIMITS.total_s) as http:
                try:
                    status, answer = await _ask(http, grant, in_body=False)
                    if status in (400, 401) and _error(answer) == "invalid_client":
                        # Most take the client's secret as Basic, which all must; some only in the body.
                        status, answer = await _ask(http, grant, in_body=True)
                except httpx.HTTPError as error:
                    raise failed(error, grant.token_url) from error
            return self._read(grant, where, status, answer)
        raise RemoteTimeout(grant.token_url, _LIMITS.total_s)

    def _read(self, grant: Grant, where: str, status: int, answer: Json) -> _Token:
        if status in (429, 500, 502, 503, 504):
            raise RemoteUnavailable(grant.token_url, f"HTTP {status}; try again later")
        if status != 200:
            why = _error(answer) or f"HTTP {status}"
            raise RemoteDenied(
                where, f"{grant.token_url} gave no token: {why}; check the client's id, secret and scopes", code=status
            )
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(answer, dict) or not isinstance(token, str) or not token.isascii():
            raise ProtocolViolation(grant.token_url, "its answer holds no access token")
        kind = answer.get("token_type")
        if isinstance(kind, str) and kind.lower() != "bearer":
            raise RemoteDenied(where, f"{grant.token_url} gives tokens of the type {kind[:40]}, the hub knows bearer")
        lasts = answer.get("expires_in")
        try:
            lasts_s = float(lasts) if isinstance(lasts, int | float | str) else _UNSTATED_S
        except ValueError:
            lasts_s = _UNSTATED_S
        return _Token(token, self._clock() + max(lasts_s - _EARLY_S, min(lasts_s, 1.0)))


async def _ask(http: httpx.AsyncClient, grant: Grant, *, in_body: bool) -> tuple[int, Json]:
    form = {"grant_type": "client_credentials"}
    if grant.scopes:
        form["scope"] = " ".join(grant.scopes)
    headers = {"Accept": "application/json"}
    if in_body:
        form |= {"client_id": grant.client_id, "client_secret": grant.client_secret}
    else:
        pair = f"{quote_plus(grant.client_id)}:{quote_plus(grant.client_secret)}"
        headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode("ascii")
    async with http.stream("POST", grant.token_url, data=form, headers=headers) as response:
        body = await read_body(response, grant.token_url, max_bytes=_LIMITS.max_body_bytes)
    try:
        return response.status_code, orjson.loads(body)
    except orjson.JSONDecodeError:
        return response.status_code, None


def _error(answer: Json) -> str:
    said = answer.get("error") if isinstance(answer, dict) else None
    return said[:80] if isinstance(said, str) else ""
