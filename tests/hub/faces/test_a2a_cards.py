"""The cards that the hub serves: which version, to whom, how long they hold."""

from typing import Any

import httpx
import pytest
from a2a.client import A2ACardResolver
from a2a.client.card_resolver import parse_agent_card

from interhub.agent_cards import Binding, Endpoint, read_card
from interhub.hub.discovery import FromEndpoint
from tests.support.face_site import ALICE, Site, face_site

pytestmark = pytest.mark.anyio

CARD = "/.well-known/agent-card.json"
V1 = {"A2A-Version": "1.0"}


def stranger(site: Site) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url="http://hub.test")


async def test_a_1_0_caller_gets_a_pure_1_0_card_and_others_one_for_both() -> None:
    async with face_site() as site:
        pure = (await site.client.get(CARD, headers=V1)).json()
        dual = (await site.client.get(CARD)).json()
    assert [face["protocolVersion"] for face in pure["supportedInterfaces"]] == ["1.0", "1.0"]
    assert not {"url", "preferredTransport", "protocolVersion", "additionalInterfaces"} & pure.keys()
    assert dual["url"] == "http://hub.test/a2a"
    assert dual["protocolVersion"].startswith("0.3")
    assert {(face["protocolBinding"], face["protocolVersion"]) for face in dual["supportedInterfaces"]} == {
        ("JSONRPC", "1.0"),
        ("HTTP+JSON", "1.0"),
        ("JSONRPC", "0.3"),
        ("HTTP+JSON", "0.3"),
    }


async def test_the_card_says_what_the_hub_does_and_asks_for() -> None:
    async with face_site() as site:
        card = read_card((await site.client.get(CARD, headers=V1)).content, source="the hub")
        raw = (await site.client.get(CARD, headers=V1)).json()
    assert (card.streaming, card.push_notifications, card.extended_card) == (True, False, True)
    assert [face.url for face in card.interfaces] == ["http://hub.test/a2a", "http://hub.test/a2a/rest"]
    assert set(raw["securitySchemes"]) == {"bearer", "apiKey"}


async def test_every_agent_has_its_own_card_with_its_tools_as_skills() -> None:
    async with face_site() as site:
        for path in (f"/agents/tools{CARD}", f"/agents/tools/a2a{CARD}"):
            card = (await site.client.get(path, headers=V1)).json()
            assert card["name"] == "tools"
            assert [skill["id"] for skill in card["skills"]] == ["add", "divide"]
            assert card["supportedInterfaces"][0]["url"] == "http://hub.test/agents/tools/a2a"
        missing = await site.client.get(f"/agents/nobody{CARD}")
    assert missing.status_code == 404
    assert missing.json()["code"] == "AGENT_NOT_FOUND"


async def test_a_card_that_has_not_changed_costs_a_304_and_a_change_shows() -> None:
    async with face_site() as site:
        first = await site.client.get(CARD, headers=V1)
        assert "max-age=" in first.headers["cache-control"]
        assert "A2A-Version" in first.headers["vary"]
        etag = first.headers["etag"]
        for candidate in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            again = await site.client.get(CARD, headers={**V1, "If-None-Match": candidate})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert (await site.client.get(CARD)).headers["etag"] != etag
        endpoint = Endpoint(binding=Binding.LOCAL, url="scripted:clerk")
        await site.hub.add_agent(ALICE, FromEndpoint(adapter="scripted", endpoint=endpoint), agent_id="second")
        changed = await site.client.get(CARD, headers={**V1, "If-None-Match": etag})
    assert changed.status_code == 200
    assert "second" in changed.text


async def test_cards_are_public_but_of_one_s_own_tenant_with_a_key() -> None:
    async with face_site() as site, stranger(site) as client:
        public = await client.get(CARD, headers=V1)
        assert (await client.get(f"/agents/clerk{CARD}")).status_code == 200
        elsewhere = await client.get(CARD, headers={**V1, "X-API-Key": "eve-key"})
        theirs = await client.get(f"/agents/clerk{CARD}", headers={"X-API-Key": "eve-key"})
    assert [skill["id"] for skill in public.json()["skills"]] == ["delegate", "clerk", "tools"]
    assert public.headers["cache-control"].startswith("public")
    assert [skill["id"] for skill in elsewhere.json()["skills"]] == ["delegate"]
    assert elsewhere.headers["cache-control"].startswith("private")
    assert theirs.status_code == 404


async def test_agents_may_be_kept_from_callers_without_a_key() -> None:
    async with face_site(public_agents=False) as site, stranger(site) as client:
        public = (await client.get(CARD, headers=V1)).json()
        assert [skill["id"] for skill in public["skills"]] == ["delegate"]
        for agent in ("clerk", "nobody"):
            assert (await client.get(f"/agents/{agent}{CARD}")).status_code == 401
        full = (await site.client.get(CARD, headers=V1)).json()
    assert len(full["skills"]) == 3


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_the_extended_card_needs_a_key_and_says_everything(version: str) -> None:
    methods = {"1.0": "GetExtendedAgentCard", "0.3": "agent/getAuthenticatedExtendedCard"}
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": methods[version], "params": {}}
    headers = {"A2A-Version": version}
    async with face_site(public_agents=False) as site, stranger(site) as client:
        assert (await client.post("/a2a", json=body, headers=headers)).status_code == 401
        card: dict[str, Any] = (await site.client.post("/a2a", json=body, headers=headers)).json()["result"]
        agent = (await site.client.post("/agents/clerk/a2a", json=body, headers=headers)).json()
    assert [skill["id"] for skill in card["skills"]] == ["delegate", "clerk", "tools"]
    assert ("url" in card) == (version == "0.3")
    assert agent["error"]["code"] == -32004


async def test_the_sdk_s_own_readers_take_both_cards() -> None:
    async with face_site() as site:
        card = await A2ACardResolver(site.client, "http://hub.test").get_agent_card()
        assert card.name == "interhub"
        assert parse_agent_card((await site.client.get(CARD, headers=V1)).json()).name == "interhub"
