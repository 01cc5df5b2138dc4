"""The floor: a relay that does nothing but relay, `python -m benchmarks.direct.relay FD URL`.

Raw ASGI in, the hub's own outbound client out: no authentication, policy, audit, validation, trace or log, and nothing
is parsed.
"""

import sys
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from benchmarks.direct.serving import serve
from interhub.adapters.addresses import Reach
from interhub.adapters.mcp.direct import DirectWay, pool_for
from interhub.agent_cards import Binding, Endpoint

_PASSED = frozenset({b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"mcp-session-id"})


class Relay:
    def __init__(self, url: str) -> None:
        pool = pool_for(Endpoint(binding=Binding.MCP_HTTP, url=url), Reach().with_host(urlsplit(url).hostname or ""))
        assert pool is not None, f"{url} is an http URL"
        self._pool = pool
        self._way = DirectWay(url, {}, pool)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body", False):
            message = await receive()
            body += message.get("body", b"")
        fields = b"".join([b"%b: %b\r\n" % each for each in scope["headers"] if each[0] in _PASSED])
        request = self._way.post(fields, body)
        response = self._pool.send(request) or await self._pool.connect_and_send(request)
        while not response.ended:
            await response.changed(60.0)
        answer = response.take()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        if b"mcp-session-id" in response.headers:
            headers.append((b"mcp-session-id", response.headers[b"mcp-session-id"]))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    serve(Relay(sys.argv[2]), int(sys.argv[1]))
