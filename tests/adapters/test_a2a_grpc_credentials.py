"""Credentials over gRPC go into the metadata; a token that is refused is got anew once."""

import json
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any
from urllib.request import urlopen

import grpc.aio
import pytest
from a2a.types import a2a_pb2, a2a_pb2_grpc

from interhub.adapters import BadEndpoint, Call, Completed, Principal, RemoteDenied, ignore, text_of
from interhub.adapters.a2a import A2aAdapter
from interhub.agent_cards import AgentCard, Binding, Endpoint, Json
from tests.support.processes import ROOT, Peer, peer

pytestmark = pytest.mark.anyio


class Doorkeeper(a2a_pb2_grpc.A2AServiceServicer):
    """Answers those who show what it takes, and notes what was shown."""

    def __init__(self, *refused: str) -> None:
        self.refused = list(refused)
        self.shown: list[dict[str, Any]] = []

    async def SendMessage(self, request: a2a_pb2.SendMessageRequest, context: Any) -> a2a_pb2.SendMessageResponse:
        shown = dict(context.invocation_metadata())
        self.shown.append(shown)
        if self.refused or ("authorization" not in shown and "x-key" not in shown):
            if self.refused:
                self.refused.pop()
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        part = a2a_pb2.Part(text="come in")
        said = a2a_pb2.Message(message_id="m", role=a2a_pb2.Role.ROLE_AGENT, parts=[part])
        return a2a_pb2.SendMessageResponse(message=said)


@asynccontextmanager
async def serving(doorkeeper: Doorkeeper) -> AsyncGenerator[str]:
    server = grpc.aio.server()
    a2a_pb2_grpc.add_A2AServiceServicer_to_server(doorkeeper, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.fixture(scope="module")
def issuer() -> Generator[Peer]:
    with peer(sys.executable, ROOT / "tests" / "support" / "agents" / "guarded_agent.py") as running:
        yield running


def tokens(issuer: Peer) -> int:
    with urlopen(f"{issuer.url}/journal") as answer:
        return len([line for line in json.load(answer) if line["form"].get("client_id")])


async def call(url: str, scheme: Json, credentials: dict[str, str], scopes: tuple[str, ...] = ()) -> str:
    needs: Json = [{"schemes": {"door": {"list": list(scopes)}}}]
    card = AgentCard(name="d", raw={"securitySchemes": {"door": scheme}, "securityRequirements": needs})
    given: dict[str, Json] = {"credentials": dict(credentials)} if credentials else {}
    endpoint = Endpoint(binding=Binding.A2A_GRPC, url=url, version="1.0", options=given)
    adapter = A2aAdapter(env={"KEY": "open sesame", "ID": "ann"})
    async with adapter.connect(endpoint, card=card, label="doorkeeper") as connection:
        outcome = await connection.call(
            Call(
                capability="",
                arguments={"message": "knock"},
                principal=Principal(subject="ann"),
                idempotency_key="run/step",
            ),
            ignore,
        )
    assert isinstance(outcome, Completed)
    return text_of(outcome.parts)


def api_key(location: str) -> Json:
    return {"apiKeySecurityScheme": {"location": location, "name": "X-Key"}}


async def test_a_key_of_a_header_goes_into_the_metadata() -> None:
    doorkeeper = Doorkeeper()
    async with serving(doorkeeper) as url:
        assert await call(url, api_key("header"), {"door": "${KEY}"}) == "come in"
        with pytest.raises(RemoteDenied, match="--credential door="):
            await call(url, api_key("header"), {})
    assert doorkeeper.shown[0]["x-key"] == "open sesame"


async def test_a_silent_server_is_asked_whether_it_is_still_there_no_more_often_than_servers_let(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[dict[str, Any]] = []
    channel = grpc.aio.insecure_channel

    def noted(target: str, options: Any) -> grpc.aio.Channel:
        opened.append(dict(options))
        return channel(target, options=options)

    monkeypatch.setattr(grpc.aio, "insecure_channel", noted)
    async with serving(Doorkeeper()) as url:
        assert await call(url, api_key("header"), {"door": "${KEY}"}) == "come in"
    assert opened[0]["grpc.keepalive_time_ms"] > 300_000
    assert opened[0]["grpc.keepalive_timeout_ms"] == 20_000
    assert opened[0]["grpc.http2.max_pings_without_data"] == 0
    assert "grpc.keepalive_permit_without_calls" not in opened[0]


async def test_a_refused_token_is_got_anew_and_only_once(issuer: Peer) -> None:
    scheme: Json = {"oauth2SecurityScheme": {"flows": {"clientCredentials": {"scopes": {"read": ""}}}}}
    given = {"door": f"${{ID}}:${{KEY}}@{issuer.url}/token"}
    before = tokens(issuer)
    async with serving(once := Doorkeeper("first")) as url:
        assert await call(url, scheme, given, ("read",)) == "come in"
    assert len({shown["authorization"] for shown in once.shown}) == 2
    async with serving(never := Doorkeeper("first", "second", "third")) as url:
        with pytest.raises(RemoteDenied):
            await call(url, scheme, given, ("read",))
    assert len(never.shown) == 2
    assert tokens(issuer) - before == 4


async def test_a_key_of_the_query_is_refused_before_anything_is_sent() -> None:
    async with serving(doorkeeper := Doorkeeper()) as url:
        with pytest.raises(BadEndpoint, match="gRPC has neither query nor cookies"):
            await call(url, api_key("query"), {"door": "${KEY}"})
    assert doorkeeper.shown == []
