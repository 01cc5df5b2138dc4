"""Where the hub connects to: what is refused, what is allowed, and that what was checked is what is connected to."""

import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from interhub.adapters import BadEndpoint, RemoteUnavailable
from interhub.adapters.a2a import A2aAdapter
from interhub.adapters.addresses import AddressRefused, Reach, resolve
from interhub.adapters.egress import EgressLimits, PinningTransport, fetch, open_client, tls_context
from interhub.adapters.keepalive import KEEPALIVE
from interhub.adapters.mcp.network import ReachingTransport
from interhub.agent_cards import Binding, Endpoint

pytestmark = pytest.mark.anyio

PUBLIC = ("8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")
REFUSED = (
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "fe80::1",
    "fd00:ec2::254",
    "fc00::1",
    "ff02::1",
)


@asynccontextmanager
async def web(answer: bytes, *, tls: ssl.SSLContext | None = None) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """Serve one answer to whatever comes to a port of loopback; yields the port and what was asked."""
    asked: list[bytes] = []

    async def handle(stream: Any) -> None:
        async with stream:
            asked.append(await stream.receive())
            await stream.send(answer)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port: int = listener.extra(anyio.abc.SocketAttribute.local_port)
    served: Any = listener
    if tls is not None:
        from anyio.streams.tls import TLSListener

        served = TLSListener(listener, tls, standard_compatible=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(served.serve, handle)
        yield port, asked
        tasks.cancel_scope.cancel()


def plain(body: bytes, status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n%s" % (status, len(body), extra, body)


@pytest.mark.parametrize("written", PUBLIC)
def test_public_addresses_are_within_reach(written: str) -> None:
    assert Reach().permits(ipaddress.ip_address(written))


@pytest.mark.parametrize("written", REFUSED)
def test_all_others_are_not_however_they_are_written(written: str) -> None:
    assert not Reach().permits(ipaddress.ip_address(written))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost", "[::1]", "::ffff:127.0.0.1", "0"]
)
async def test_every_spelling_of_loopback_is_refused_after_resolution(host: str) -> None:
    with pytest.raises(AddressRefused, match="allow"):
        await resolve(host, 80, Reach())


async def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    with pytest.raises(RemoteUnavailable, match="does not resolve"):
        await resolve("no.such.host.invalid", 80, Reach())


def test_an_allowance_opens_what_it_names_and_never_the_cloud_s_metadata_by_the_way() -> None:
    ten = Reach.of(["10.0.0.0/8"])
    assert ten.permits(ipaddress.ip_address("10.1.2.3"))
    assert ten.permits(ipaddress.ip_address("::ffff:10.1.2.3"))
    assert not ten.permits(ipaddress.ip_address("192.168.0.1"))
    private = Reach().with_private()
    for written in ("127.0.0.1", "10.1.2.3", "192.168.1.1", "fc00::1", "::1"):
        assert private.permits(ipaddress.ip_address(written))
    for written in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "224.0.0.1"):
        assert not private.permits(ipaddress.ip_address(written))
    assert Reach.of(["169.254.169.254/32"]).permits(ipaddress.ip_address("169.254.169.254"))
    with pytest.raises(ValueError, match="10"):
        Reach.of(["10.0.0.0.0/8"])


def test_what_the_operator_wrote_is_allowed_as_an_address_and_not_as_a_name() -> None:
    loopback = Reach().with_host("localhost")
    assert loopback.permits(ipaddress.ip_address("127.0.0.1"))
    assert loopback.permits(ipaddress.ip_address("::1"))
    assert not loopback.permits(ipaddress.ip_address("10.0.0.1"))
    one = Reach().with_host("10.0.0.1")
    assert one.permits(ipaddress.ip_address("10.0.0.1"))
    assert not one.permits(ipaddress.ip_address("10.0.0.2"))
    assert Reach().with_host("agent.example.com") == Reach()
    assert Reach().with_host("169.254.169.254") == Reach()


async def test_a_name_is_resolved_once_and_that_address_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    real, answers = socket.getaddrinfo, ["127.0.0.1", "10.0.0.1"]
    asked: list[str] = []

    def name_server(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host not in ("rebinding.test", b"rebinding.test"):
            return real(host, port, *args, **options)
        asked.append("rebinding.test")  # another address every time: what a rebinding attack does
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers[min(len(asked), 2) - 1], port))]

    monkeypatch.setattr(socket, "getaddrinfo", name_server)
    async with web(plain(b"here")) as (port, requests), open_client(reach=Reach.of(["127.0.0.0/8"])) as http:
        answer = await http.get(f"http://rebinding.test:{port}/x")
        assert answer.content == b"here"
        assert f"host: rebinding.test:{port}".encode() in requests[0].lower()
        assert asked == ["rebinding.test"]
        with pytest.raises(AddressRefused, match=r"10\.0\.0\.1"):
            await http.get(f"http://rebinding.test:{port}/x")


async def test_the_certificate_is_checked_for_the_name_and_not_for_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    tls_context.cache_clear()
    try:
        async with web(plain(b"safe"), tls=context) as (port, _), open_client(reach=Reach().with_host("::1")) as http:
            assert (await http.get(f"https://localhost:{port}/")).content == b"safe"
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await http.get(f"https://127.0.0.1:{port}/")
    finally:
        tls_context.cache_clear()


@pytest.mark.parametrize(("library", "transport"), [(httpx, PinningTransport), (httpx2, ReachingTransport)])
async def test_a_silent_peer_is_asked_whether_it_is_still_there(library: Any, transport: Any) -> None:
    reach = Reach().with_host("localhost")
    async with (
        web(plain(b"x" * 1000)) as (port, _),
        library.AsyncClient(transport=transport(reach)) as http,
        http.stream("GET", f"http://127.0.0.1:{port}/") as answer,
    ):
        connected = answer.extensions["network_stream"].get_extra_info("socket")
        assert [connected.getsockopt(level, name) for level, name, _ in KEEPALIVE] == [1, 30, 10, 3]


async def test_a_redirect_to_another_origin_is_refused_and_so_is_a_body_without_end() -> None:
    moved = plain(b"", b"302 Found", b"Location: http://169.254.169.254/latest/meta-data\r\n")
    reach = Reach().with_host("localhost")
    async with web(moved) as (port, _), open_client(reach=reach) as http:
        with pytest.raises(BadEndpoint, match="another origin"):
            await fetch(http, f"http://127.0.0.1:{port}/", limits=EgressLimits())
    async with web(plain(b"x" * 5000)) as (port, _), open_client(reach=reach) as http:
        with pytest.raises(Exception, match="larger than the 4,000 bytes"):
            await fetch(http, f"http://127.0.0.1:{port}/", limits=EgressLimits(max_body_bytes=4000))


async def test_a_card_does_not_lead_the_adapter_into_the_network_it_stands_in() -> None:
    """The operator's address is on loopback, and its card names a private one: that is the card's word alone."""
    body = (
        b'{"name":"spy","version":"1","supportedInterfaces":[{"url":"http://10.255.255.1/rpc",'
        b'"protocolBinding":"JSONRPC","protocolVersion":"1.0"}],"capabilities":{},"skills":[]}'
    )
    async with web(plain(body)) as (port, _):
        adapter = A2aAdapter()
        card = await adapter.describe(Endpoint(binding=Binding.A2A_JSONRPC, url=f"http://127.0.0.1:{port}/"))
        async with adapter.connect(card.interfaces[0], card=card, label="spy") as connection:
            with pytest.raises(AddressRefused, match=r"10\.255\.255\.1"):
                await connection.cancel("a-task")


async def test_an_agent_by_a_name_within_a_private_network_needs_the_allowance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.getaddrinfo

    def name_server(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host in ("agent.internal", b"agent.internal") else host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", name_server)
    body = b'{"name":"inner","skills":[],"url":"http://agent.internal:%d/","protocolVersion":"0.3.0"}'
    async with web(b"") as (port, _):
        endpoint = Endpoint(binding=Binding.A2A_JSONRPC, url=f"http://agent.internal:{port}/")
        with pytest.raises(AddressRefused, match="--allow-private"):
            await A2aAdapter().describe(endpoint)
    async with web(plain(body % 80)) as (port, _):
        allowed = Endpoint(
            binding=Binding.A2A_JSONRPC, url=f"http://agent.internal:{port}/", options={"allow_private": True}
        )
        assert (await A2aAdapter().describe(allowed)).name == "inner"


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """Make a certificate for a name, write it to a folder, and return a server's context that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
