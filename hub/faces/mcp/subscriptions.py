"""Who listens to which resource of a server of the older era, which is told of each once, whoever else listens."""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

import anyio
import structlog
from mcp.shared.exceptions import MCPError

from interhub.adapters import AdapterError

_LEAVE_S = 2.0

log = structlog.get_logger()

Send = Callable[[str, str], Awaitable[None]]
"""Sends a request, by method and URI."""


class Subscriptions:
    """The resource subscriptions of modern clients on the sessions that they share."""

    def __init__(self) -> None:
        self._held: Counter[tuple[frozenset[str], str]] = Counter()

    @asynccontextmanager
    async def held(self, uris: Collection[str], *, session: frozenset[str], send: Send) -> AsyncGenerator[None]:
        """Subscribe, and unsubscribe in the end from what nobody else on the session (by what it lends) listens to.

        Raises:
            MCPError, AdapterError: the server did not take it.
        """
        begun: list[str] = []
        try:
            for uri in uris:
                self._held[session, uri] += 1
                begun.append(uri)
                await send("resources/subscribe", uri)
            yield
        finally:
            left = [uri for uri in begun if self._leave(session, uri)]
            with anyio.move_on_after(_LEAVE_S, shield=True):
                for uri in left:
                    try:
                        await send("resources/unsubscribe", uri)
                    except (MCPError, AdapterError) as error:
                        log.debug("mcp_unsubscribe_failed", uri=uri, why=str(error))

    def _leave(self, session: frozenset[str], uri: str) -> bool:
        self._held[session, uri] -= 1
        if self._held[session, uri]:
            return False
        del self._held[session, uri]
        return True
