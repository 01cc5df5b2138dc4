"""What a card asks for is shown to its own interface, to nobody else, and what is missing is named."""

import json
import sys
from collections.abc import Generator, Mapping
from typing import Any
from urllib.request import urlopen

import pytest

from interhub.adapters import BadEndpoint, Call, Completed, DataPart, Principal, RemoteDenied, ignore
from interhub.adapters.a2a import A2aAdapter
from interhub.adapters.a2a.credentials import credentials_for
from interhub.agent_cards import Binding, Endpoint, Json
from interhub.agent_cards.security import read_security
from tests.support.processes import ROOT, Peer, peer

pytestmark = pytest.mark.anyio

ENV = {"KEY": "open sesame", "OTHER": "open sesame", "USER": "ann", "PASSWORD": "open sesame"}
LOGIN = "${USER}:${PASSWORD}"


@pytest.fixture(scope="module")
def guarded() -> Generator[Peer]:
    with peer(sys.executable, ROOT / "tests" / "support" / "agents" / "guarded_agent.py") as running:
        yield running


def call() -> Call:
    return Call(
        capability="",
        arguments={"message": "let me in"},
        principal=Principal(subject="ann"),
        idempotency_key="run/step",
    )


def endpoint_of(
    guarded: Peer, name: str, credentials: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> Endpoint:
    options = {"credentials": dict(credentials)} if credentials else {}
    return Endpoint(binding=Binding.A2A_JSONRPC, url=f"{guarded.url}/{name}", headers=headers or {}, options=options)


async def ask(
    guarded: Peer,
    name: str,
    credentials: Mapping[str, str],
    *,
    times: int = 1,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """Add an agent and call it; return what it saw of the last call."""
    adapter = A2aAdapter(env=ENV)
    card = await adapter.describe(endpoint_of(guarded, name, credentials, headers or {}))
    async with adapter.connect(card.interfaces[0], card=card, label=name) as connection:
        for _ in range(times - 1):
            await connection.call(call(), ignore)
        outcome = await connection.call(call(), ignore)
    assert isinstance(outcome, Completed)
    assert isinstance(outcome.parts[0], DataPart)
    return outcome.parts[0].data


def journal(guarded: Peer, agent: str) -> list[dict[str, Any]]:
    with urlopen(f"{guarded.url}/journal") as answer:
        return [line for line in json.load(answer) if line["agent"] == agent]


@pytest.mark.parametrize(
    ("name", "credentials"),
    [
        ("header", {"key": "${KEY}"}),
        ("query", {"key": "${KEY}"}),
        ("cookie", {"key": "${KEY}"}),
        ("bearer", {"token": "${KEY}"}),
        ("basic", {"login": LOGIN}),
        ("oauth", {"sso": LOGIN}),
        ("both", {"key": "${KEY}", "other": "${OTHER}"}),
        ("both", {"login": LOGIN}),
    ],
)
async def test_each_scheme_lets_us_in(guarded: Peer, name: str, credentials: Mapping[str, str]) -> None:
    seen = await ask(guarded, name, credentials)
    if name == "both" and "login" in credentials:
        assert "x-key" not in seen["headers"], "one alternative is enough"


async def test_a_header_satisfies_a_scheme_that_goes_together_with_another(guarded: Peer) -> None:
    seen = await ask(guarded, "both", {"other": "${OTHER}"}, headers={"X-Key": "${KEY}"})
    assert (seen["headers"]["x-key"], seen["query"]["key"]) == ("open sesame", "open sesame")


async def test_a_token_is_kept_and_got_anew_when_it_is_refused(guarded: Peer) -> None:
    before = len(journal(guarded, "token"))
    await ask(guarded, "oauth", {"sso": LOGIN}, times=5)
    forms = [line["form"] for line in journal(guarded, "token")[before:]]
    assert [form.get("client_id") for form in forms] == [None, "ann", None, "ann"], "Basic first, then in the body"
    assert all(form["grant_type"] == "client_credentials" for form in forms)


async def test_without_credentials_the_refusal_names_the_scheme_and_the_setting(guarded: Peer) -> None:
    with pytest.raises(RemoteDenied) as refused:
        await ask(guarded, "header", {})
    assert "key (an API key in the header X-Key)" in str(refused.value)
    assert "--credential key=${VARIABLE}" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "credentials", "why"),
    [
        ("header", {"pass": "${KEY}"}, "no security scheme 'pass'; it has key (an API key in the header X-Key)"),
        ("both", {"key": "${KEY}"}, "nothing was given for other; add it with --credential other=${VARIABLE}"),
        ("header", {"key": "open sesame"}, "names no variable"),
        ("basic", {"login": "${KEY}"}, "is not a pair"),
        ("stranger", {"sso": LOGIN}, "another origin than the card's"),
        ("mutual", {"tls": "${KEY}"}, "mutual TLS, which the hub cannot do"),
        ("moved", {"key": "${KEY}"}, "not sent to another host than the card's"),
    ],
)
async def test_what_cannot_satisfy_a_card_is_refused_when_the_agent_is_added(
    guarded: Peer, name: str, credentials: Mapping[str, str], why: str
) -> None:
    with pytest.raises(BadEndpoint) as refused:
        await A2aAdapter(env=ENV).describe(endpoint_of(guarded, name, credentials))
    assert why in str(refused.value)
    assert "open sesame" not in str(refused.value)


async def test_a_token_endpoint_elsewhere_is_used_where_the_operator_names_it(guarded: Peer) -> None:
    adapter = A2aAdapter(env=ENV)
    named = {"sso": f"{LOGIN}@{guarded.url}/token"}
    card = await adapter.describe(endpoint_of(guarded, "stranger", named))
    async with adapter.connect(card.interfaces[0], card=card, label="stranger") as connection:
        with pytest.raises(RemoteDenied, match="invalid_scope"):  # this card's scheme needs no scope, the server does
            await connection.call(call(), ignore)


async def test_a_variable_that_is_not_set_is_named_and_nothing_is_sent(guarded: Peer) -> None:
    adapter = A2aAdapter(env={})
    card = await adapter.describe(endpoint_of(guarded, "header", {"key": "${KEY}"}))
    before = len(journal(guarded, "header"))
    with pytest.raises(BadEndpoint, match="the environment variable KEY is not set"):
        async with adapter.connect(card.interfaces[0], card=card, label="header"):
            raise AssertionError("connected without its key")
    assert len(journal(guarded, "header")) == before


ASKED: list[dict[str, Json]] = [
    {},
    {"securityRequirements": [{"schemes": {}}]},
    {"skills": [{"id": "s", "securityRequirements": [{"schemes": {"other": {"list": []}}}]}]},
]


@pytest.mark.parametrize("asked", ASKED, ids=["nothing is asked", "nobody need be known", "a skill asks for another"])
def test_what_the_operator_gave_is_sent_also_where_the_card_does_not_ask_for_it(asked: dict[str, Json]) -> None:
    key: Json = {"apiKeySecurityScheme": {"location": "header", "name": "X-Key"}}
    needs = read_security({"securitySchemes": {"key": key, "other": key}, **asked})
    endpoint = Endpoint(
        binding=Binding.A2A_JSONRPC, url="https://a.example.com/", options={"credentials": {"key": "${KEY}"}}
    )
    found = credentials_for(endpoint, needs, card_url=endpoint.url, env=ENV)
    assert found.headers == {"X-Key": "open sesame"}
