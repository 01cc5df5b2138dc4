"""What every request passes before a face sees it."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import httpx
import pytest
from structlog.testing import capture_logs

from interhub.hub.faces.http import Perimeter
from tests.support.face_site import Site, face_site

pytestmark = pytest.mark.anyio


def stranger(site: Site, **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(site.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://hub.test", headers=headers)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/agents"),
        ("POST", "/api/runs"),
        ("POST", "/a2a"),
        ("POST", "/a2a/"),
        ("POST", "/a2a/rest/message:send"),
        ("GET", "/a2a/rest/tasks"),
        ("GET", "/a2a/rest/extendedAgentCard"),
        ("POST", "/agents/clerk/a2a"),
        ("POST", "/agents/clerk/a2a/rest/message:send"),
        ("POST", "/mcp"),
        ("GET", "/nowhere"),
    ],
)
async def test_a_request_without_a_key_is_refused_everywhere_in_the_face_s_own_form(method: str, path: str) -> None:
    async with face_site() as site, stranger(site) as client:
        answer = await client.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="interhub"'
    body = answer.json()
    if "/rest" in path:
        assert body["error"]["status"] == "UNAUTHENTICATED"
    elif path.startswith("/api") or path == "/nowhere":
        assert answer.headers["content-type"] == "application/problem+json"
        assert body["code"] == "UNAUTHENTICATED"
    else:
        assert body["jsonrpc"] == "2.0"
        assert body["error"]["data"][0]["reason"] == "UNAUTHENTICATED"


async def test_a_wrong_key_is_told_apart_from_none_and_is_refused_on_open_paths_too() -> None:
    async with face_site() as site, stranger(site, Authorization="Bearer wrong") as client:
        for path in ("/api/agents", "/.well-known/agent-card.json"):
            answer = await client.get(path)
            assert answer.status_code == 401
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert (await client.get("/healthz")).status_code == 200


async def test_a_key_is_taken_from_either_header() -> None:
    async with face_site() as site:
        for headers in ({"Authorization": "Bearer bob-key"}, {"X-API-Key": "bob-key"}):
            async with stranger(site, **headers) as client:
                assert (await client.get("/api/agents")).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("hub.test", 200),
        ("hub.test:8080", 200),
        ("localhost:7337", 200),
        ("127.0.0.1", 200),
        ("[::1]:7337", 200),
        ("evil.example", 421),
        ("hub.test.evil.example", 421),
        ("", 421),
    ],
)
async def test_only_known_host_names_are_answered_to(host: str, status: int) -> None:
    async with face_site() as site:
        answer = await site.client.get("/api/agents", headers={"Host": host})
    assert answer.status_code == status


async def test_a_pattern_of_hosts_covers_names_below_it_only() -> None:
    perimeter = Perimeter(hosts=frozenset({"*.example.com"}))
    assert perimeter.knows_host("hub.example.com:443")
    assert not perimeter.knows_host("example.com")
    assert not perimeter.knows_host("badexample.com")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:6274", 200),
        ("http://hub.test", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("http://localhost.evil.example", 403),
    ],
)
async def test_a_web_page_of_elsewhere_may_not_use_the_hub(origin: str, status: int) -> None:
    async with face_site() as site:
        answer = await site.client.get("/api/agents", headers={"Origin": origin})
    assert answer.status_code == status


async def test_allowing_every_host_does_not_allow_every_origin() -> None:
    perimeter = Perimeter(hosts=frozenset({"*"}))
    assert perimeter.knows_host("anything.example")
    assert not perimeter.knows_origin("https://anything.example")


@pytest.mark.parametrize("path", ["/api/runs", "/a2a", "/a2a/rest/message:send"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused(path: str, chunked: bool) -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    async with face_site() as site:
        content = chunks() if chunked else b"x" * (40 * 65536)
        answer = await site.client.post(path, content=content)
        assert answer.status_code == 413
        assert (await site.client.get("/api/agents")).status_code == 200


async def test_a_chunked_body_under_the_limit_arrives_whole() -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        yield b'{"goal": '
        yield b'"echo whole", "wait_s": 5}'

    async with face_site() as site:
        answer = await site.client.post("/api/runs", content=chunks())
    assert answer.json()["parts"] == [{"text": "whole"}]


async def test_every_request_leaves_one_line_with_who_what_and_how() -> None:
    async with face_site() as site:
        with capture_logs() as lines:
            answer = await site.client.get("/api/agents/nobody", headers={"X-Request-Id": "abc-1"})
    (line,) = [line for line in lines if line["event"] == "request"]
    assert line["principal"] == "default/alice"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/agents/nobody", 404)
    assert line["operation"] == "show_agent"
    assert line["duration_ms"] > 0
    assert "alice-key" not in json.dumps(lines, default=str)
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.json()["request_id"] == "abc-1"


async def test_an_odd_request_id_is_replaced() -> None:
    async with face_site() as site:
        answer = await site.client.get("/api/agents", headers={"X-Request-Id": "a b\tc"})
    assert len(answer.headers["x-request-id"]) == 32


async def test_an_unforeseen_failure_is_logged_and_says_nothing_of_the_inside() -> None:
    async with face_site() as site:

        async def broken(*_: object, **__: object) -> object:
            raise RuntimeError("secret detail")

        site.supervisor.get = broken  # type: ignore[method-assign,assignment]
        with capture_logs() as lines:
            rest = await site.client.get("/api/runs/x")
            rpc = await site.client.post(
                "/a2a",
                headers={"A2A-Version": "1.0"},
                json={"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}},
            )
    assert rest.status_code == 500
    assert rest.json()["code"] == "INTERNAL"
    assert rpc.json()["error"]["code"] == -32603
    assert "secret" not in rest.text + rpc.text
    assert {line["event"] for line in lines} >= {"request_failed", "a2a_request_failed"}


async def test_the_caller_s_trace_goes_on_to_the_agent() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with face_site() as site:
        await site.client.post("/api/agents/clerk/call", json={}, headers={"traceparent": parent})
        await site.client.post("/api/agents/clerk/call", json={}, headers={"traceparent": "nonsense"})
    assert "0af7651916cd43dd8448eb211c80319c" in site.clerk.calls[0].trace["traceparent"]
    assert "traceparent" not in site.clerk.calls[1].trace


async def test_what_is_not_there_is_said_in_the_face_s_form() -> None:
    async with face_site() as site:
        assert (await site.client.get("/api/nowhere")).json()["code"] == "NOT_FOUND"
        wrong = await site.client.put("/api/agents")
        assert wrong.status_code == 405
        assert "POST" in wrong.headers["allow"] or "GET" in wrong.headers["allow"]
        assert (await site.client.get("/a2a")).status_code == 405


async def test_a_web_socket_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await anyio.sleep_forever()

    async with face_site() as site:
        await site.app({"type": "websocket", "path": "/mcp", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
