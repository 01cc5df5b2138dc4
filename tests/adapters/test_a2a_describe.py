"""A card is found from whatever address a person has, and what is no card is said to be what it is."""

import datetime
import ipaddress
import sys
from collections.abc import Generator
from pathlib import Path

import anyio
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from interhub.adapters import (
    AnswerTooLarge,
    BadEndpoint,
    ProtocolViolation,
    RemoteDenied,
    RemoteTimeout,
    RemoteUnavailable,
)
from interhub.adapters.a2a import A2aAdapter, A2aSettings
from interhub.adapters.a2a.cards import CARD_URL, find_card
from interhub.adapters.a2a.grpc_target import grpc_target
from interhub.adapters.egress import EgressLimits
from interhub.agent_cards import AgentCard, Binding, Endpoint, Json
from tests.support.processes import ROOT, Peer, environment, peer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("version", ["1.0", "0.3"])
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_an_agent_is_known_by_its_extended_card_where_we_have_its_key(version: str, binding: str) -> None:
    script = AGENTS / "extended_agent.py"
    with peer(sys.executable, script, "--version", version, "--binding", binding) as agent:
        skills: list[list[str]] = []
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer ${KEY}"}):
            endpoint = Endpoint(binding=Binding.A2A_JSONRPC, url=agent.url, headers=headers)
            card = await A2aAdapter(env={"KEY": "open sesame"}).describe(endpoint)
            skills.append([capability.name for capability in card.capabilities])
            assert card.interfaces[0].headers == headers
    assert skills == [["greet"], ["greet"], ["greet", "pay"]]


AGENTS = ROOT / "tests" / "support" / "agents"


@pytest.fixture(scope="module")
def bending() -> Generator[Peer]:
    with peer(sys.executable, AGENTS / "bending_agent.py") as running:
        yield running


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Generator[Peer]:
    with peer(sys.executable, AGENTS / "sdk_13_agent.py", log=tmp_path_factory.mktemp("four") / "log") as running:
        yield running


async def describe(url: str, *, headers: dict[str, str] | None = None, total_s: float = 10.0) -> AgentCard:
    adapter = A2aAdapter(settings=A2aSettings(card=EgressLimits(total_s=total_s)), env={"KEY": "value"})
    return await adapter.describe(Endpoint(binding=Binding.A2A_JSONRPC, url=url, headers=headers or {}))


@pytest.mark.parametrize("path", ["", "/", "/.well-known/agent-card.json", "/rpc", "/rest"])
async def test_the_agents_address_its_cards_and_its_interfaces_all_lead_to_the_card(four: Peer, path: str) -> None:
    card = await describe(f"{four.url}{path}")
    assert card.name == "four"
    assert [(each.binding, each.version) for each in card.interfaces] == [
        (Binding.A2A_JSONRPC, "1.0"),
        (Binding.A2A_REST, "1.0"),
        (Binding.A2A_JSONRPC, "0.3"),
        (Binding.A2A_REST, "0.3"),
    ]
    found_at = {str(each.options[CARD_URL]) for each in card.interfaces}
    assert found_at == {f"{four.url}/.well-known/agent-card.json"}


async def test_an_interface_described_again_leads_to_the_same_card(four: Peer) -> None:
    first = await describe(four.url)
    again = await A2aAdapter().describe(first.interfaces[1])
    assert again == first


async def test_a_0_3_agent_is_described_too(tmp_path: Path) -> None:
    python = environment(ROOT / "tests" / "adapters" / "requirements" / "a2a_sdk_03.txt")
    with peer(python, AGENTS / "sdk_03_agent.py", log=tmp_path / "log") as old:
        card = await describe(old.url)
    assert {each.version for each in card.interfaces} == {"0.3"}
    assert card.streaming


async def test_credentials_go_to_the_agents_origin_only(bending: Peer) -> None:
    headers = {"Authorization": "Bearer ${KEY}"}
    own = await describe(f"{bending.url}/echo", headers=headers)
    other = await describe(f"{bending.url}/cards/elsewhere", headers=headers)
    assert [dict(each.headers) for each in own.interfaces] == [headers], "unexpanded: no secret is stored"
    assert [dict(each.headers) for each in other.interfaces] == [{}]


async def test_an_interface_at_any_address_is_one_at_the_cards_host(bending: Peer) -> None:
    card = await describe(f"{bending.url}/cards/any")
    assert card.interfaces[0].url == f"{bending.url}/echo"


async def test_a_redirect_within_the_origin_is_followed_and_one_elsewhere_is_not(bending: Peer) -> None:
    assert (await describe(f"{bending.url}/cards/redirect-in?x=1")).name == "echo"
    with pytest.raises(BadEndpoint, match=r"redirects to http://127\.0\.0\.2:9/card\.json, which is another origin"):
        await describe(f"{bending.url}/cards/redirect-out?x=1")
    with pytest.raises(BadEndpoint, match="redirects more than 3 times"):
        await describe(f"{bending.url}/cards/loop?x=1")


@pytest.mark.parametrize(
    ("name", "error", "found"),
    [
        ("html", ProtocolViolation, "an HTML page"),
        ("list", ProtocolViolation, "a JSON list"),
        ("nameless", ProtocolViolation, "name: is missing; supportedInterfaces is? missing|name: is missing"),
        ("future", ProtocolViolation, r"is for A2A 2\.0, and interhub speaks 1\.x and 0\.3"),
        ("big", AnswerTooLarge, "larger than the 1,048,576 bytes we take"),
    ],
)
async def test_what_is_no_usable_card_is_named(bending: Peer, name: str, error: type[Exception], found: str) -> None:
    with anyio.fail_after(15), pytest.raises(error, match=found):
        await describe(f"{bending.url}/cards/{name}?x=1")


async def test_a_card_of_grpc_alone_needs_the_extra(bending: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    card = await describe(f"{bending.url}/cards/grpc?x=1")
    assert [(each.binding, each.url) for each in card.interfaces] == [(Binding.A2A_GRPC, "127.0.0.1:50051")]
    monkeypatch.setitem(sys.modules, "grpc", None)  # as where the extra is not installed
    with pytest.raises(BadEndpoint, match=r"GRPC at 127\.0\.0\.1:50051 \(gRPC is not spoken by this installation"):
        await describe(f"{bending.url}/cards/grpc?x=1")


async def test_a_grpc_address_without_a_card_is_refused() -> None:
    with pytest.raises(BadEndpoint, match="does not say what the agent can; give the address of its card"):
        await A2aAdapter().describe(Endpoint(binding=Binding.A2A_GRPC, url="127.0.0.1:50051"))


@pytest.mark.parametrize("url", ["", "host", "host:nope", "ftp://host:1", "user:pw@host:1", "host:0", "host:70000"])
async def test_what_is_no_grpc_address_is_refused(url: str) -> None:
    with pytest.raises(BadEndpoint):
        grpc_target(Endpoint(binding=Binding.A2A_GRPC, url=url))


@pytest.mark.parametrize(
    ("url", "options", "tls"),
    [
        ("127.0.0.1:1", {}, False),
        ("agents.example.com:1", {}, True),
        ("agents.example.com:1", {"tls": False}, False),
        ("http://agents.example.com", {}, False),
        ("grpcs://agents.example.com", {"tls": False}, True),
    ],
)
async def test_a_grpc_address_speaks_tls_unless_it_is_of_this_machine_or_says_otherwise(
    url: str, options: dict[str, bool], tls: bool
) -> None:
    assert grpc_target(Endpoint(binding=Binding.A2A_GRPC, url=url, options=options)).tls is tls


@pytest.mark.parametrize(
    ("card_url", "url", "options", "sent"),
    [
        ("https://agent.example", "grpcs://agent.example:50051", {}, True),
        ("https://agent.example", "agent.example:50051", {}, True),
        ("https://agent.example", "grpc://agent.example:50051", {}, False),
        ("https://agent.example", "http://agent.example:50051", {}, False),
        ("https://agent.example", "agent.example:50051", {"tls": False}, True),
        ("https://agent.example", "grpcs://other.example:50051", {}, False),
        ("http://agent.example", "grpc://agent.example:50051", {}, True),
        ("https://localhost", "grpc://127.0.0.1:50051", {}, True),
    ],
)
async def test_credentials_for_an_https_address_are_not_sent_in_the_clear_because_its_card_says_so(
    card_url: str, url: str, options: dict[str, Json], sent: bool
) -> None:
    card: dict[str, Json] = {
        "name": "clear",
        "description": "Speaks gRPC",
        "version": "1",
        "skills": [],
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "capabilities": {},
        "supportedInterfaces": [{"url": url, "protocolBinding": "GRPC", "protocolVersion": "1.0"}],
    }
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=card))
    given: dict[str, Json] = {"credentials": {"door": "${KEY}"}, **options}
    headers = {"X-Key": "${KEY}"}
    async with httpx.AsyncClient(transport=transport) as http:
        endpoint = Endpoint(binding=Binding.A2A_JSONRPC, url=card_url, headers=headers, options=options)
        (found,) = (await find_card(http, endpoint, headers={}, limits=EgressLimits())).interfaces
        assert found.headers == (headers if sent else {})
        endpoint = Endpoint(binding=Binding.A2A_JSONRPC, url=card_url, options=given)
        if sent:
            (found,) = (await find_card(http, endpoint, headers={}, limits=EgressLimits())).interfaces
            assert found.options["credentials"] == {"door": "${KEY}"}
        else:
            with pytest.raises(BadEndpoint, match="credentials are not sent to another host than the card's, or in"):
                await find_card(http, endpoint, headers={}, limits=EgressLimits())


async def test_an_address_without_any_card_says_where_it_looked(bending: Peer) -> None:
    with pytest.raises(ProtocolViolation, match=r"no agent card was found .*/one/two, .*: HTTP 404") as caught:
        await describe(f"{bending.url}/one/two")
    assert "give the card's own address" in str(caught.value)


async def test_a_card_that_never_comes_is_a_timeout(bending: Peer) -> None:
    with pytest.raises(RemoteTimeout, match=r"no answer within 0\.3 s"):
        await describe(f"{bending.url}/cards/slow?x=1", total_s=0.3)


async def test_a_dead_host_is_unavailable_and_says_what_to_check() -> None:
    with pytest.raises(RemoteUnavailable, match="is it running, and is the port right"):
        await describe("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "is not an absolute"),
        ("agent.example/card", "is not an absolute"),
        ("ftp://agent.example", "is not an absolute"),
        ("http://ann:secret@agent.example", "holds a user and password"),
        ("http://[::1", "is not a URL"),
    ],
)
async def test_an_address_that_is_none_is_refused_without_repeating_secrets(url: str, why: str) -> None:
    with pytest.raises(BadEndpoint, match=why) as caught:
        await describe(url)
    assert "secret" not in str(caught.value)


async def test_headers_that_cannot_be_sent_are_refused_without_their_value(bending: Peer) -> None:
    with pytest.raises(BadEndpoint, match="the value of header X-Key") as caught:
        await describe(bending.url, headers={"X-Key": "secret\r\nX-Other: 1"})
    assert "secret" not in str(caught.value)
    with pytest.raises(BadEndpoint, match="ABSENT is not set"):
        await describe(bending.url, headers={"X-Key": "${ABSENT}"})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


async def test_tls_that_cannot_be_trusted_or_is_none_says_what_to_do(certificate: Path, bending: Peer) -> None:
    with peer(sys.executable, AGENTS / "bending_agent.py", "--certificate", str(certificate)) as secure:
        with pytest.raises(BadEndpoint, match=r"its certificate is not trusted: self-signed.*SSL_CERT_FILE"):
            await describe(secure.url)
        with pytest.raises(RemoteUnavailable):
            await describe(secure.url.replace("https", "http"))
    with pytest.raises(BadEndpoint, match="is it http:// instead"):
        await describe(bending.url.replace("http", "https"))


async def test_a_grpc_endpoint_and_unknown_options_are_refused_on_connecting(four: Peer) -> None:
    card = await describe(four.url)
    adapter = A2aAdapter()
    refused = {
        "is no gRPC address": Endpoint(binding=Binding.A2A_GRPC, url="nowhere"),
        "A2A 2.0 is not a version": Endpoint(binding=Binding.A2A_JSONRPC, url=f"{four.url}/rpc", version="2.0"),
        "WORKER is not a binding of A2A": Endpoint(binding=Binding.WORKER),
        "use one of auto": Endpoint(binding=Binding.A2A_REST, url=four.url, options={"delivery": "pigeon"}),
    }
    for why, endpoint in refused.items():
        with pytest.raises(BadEndpoint, match=why):
            async with adapter.connect(endpoint, card=card, label="four"):
                pass


async def test_a_card_shown_to_others_only_is_denied(bending: Peer) -> None:
    with pytest.raises(RemoteDenied, match="HTTP 401"):
        await describe(f"{bending.url}/cards/locked?x=1")
