"""Which addresses we connect to: a name is resolved once, checked, and what was checked is what is connected to.

Whoever writes a webhook's URL, or a card, chooses where the hub sends requests from inside of its network. Public
addresses are open to that; all others only where the operator has said so. What is decided is decided on the address
after resolution, so that `2130706433`, `0x7f.1`, `[::ffff:127.0.0.1]` and a name that resolves to loopback are one.
"""

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

import anyio

from .errors import BadEndpoint, RemoteUnavailable

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ALLOW_PRIVATE = "allow_private"
"""Key in `Endpoint.options`: true lets the agent be at an address of loopback or of a private network."""

_LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_LINK_LOCAL: tuple[Network, ...] = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))
_METADATA = frozenset({ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200")})
"""Where clouds keep a machine's credentials, besides 169.254.169.254."""
_PRIVATE: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", *map(str, _LOOPBACK))
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_LAST_32 = 0xFFFFFFFF


class AddressRefused(BadEndpoint):
    """A host has no address that we may connect to."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What may be connected to: public addresses, and what is named here."""

    networks: tuple[Network, ...] = ()
    public: bool = True
    """False leaves only what is named."""

    @classmethod
    def of(cls, networks: Iterable[str]) -> "Reach":
        """Return the reach that names networks, such as `10.1.0.0/16` or `::1`.

        Raises:
            ValueError: one of them is no network.
        """
        return cls(networks=tuple(ipaddress.ip_network(each.strip(), strict=False) for each in networks))

    def with_private(self) -> "Reach":
        """Return this reach with loopback and the private networks, but not the link-local ones (cloud metadata)."""
        return replace(self, networks=(*self.networks, *_PRIVATE))

    def with_host(self, host: str) -> "Reach":
        """Return this reach with what a host that the operator wrote stands for: loopback, or that one address.

        A name is not enough, because others may decide what it resolves to tomorrow; `localhost` is nobody else's.
        """
        if _is_localhost(host):
            return replace(self, networks=(*self.networks, *_LOOPBACK))
        address = _literal(host)
        if address is None or address in _METADATA or _within(address, _LINK_LOCAL):
            return self
        if address.is_loopback:
            return replace(self, networks=(*self.networks, *_LOOPBACK))
        return replace(self, networks=(*self.networks, ipaddress.ip_network(address)))

    def permits(self, address: Address) -> bool:
        """Return whether an address may be connected to."""
        faces = _faces(address)
        if address in _METADATA or faces[-1] in _METADATA:
            return any(network.prefixlen == network.max_prefixlen and address in network for network in self.networks)
        return (self.public and all(_is_public(face) for face in faces)) or _within(faces[-1], self.networks)


async def resolve(host: str, port: int, reach: Reach) -> tuple[str, ...]:
    """Return the addresses of a host that may be connected to, in the order of the resolver; connect to these only.

    Raises:
        RemoteUnavailable: the name does not resolve.
        AddressRefused: none of its addresses may be connected to.
    """
    name = host.strip("[]")
    try:
        found = await anyio.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise RemoteUnavailable(f"{name}:{port}", f"its name does not resolve: {said}") from error
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    permitted = tuple(each for each in addresses if _permitted(each, reach))
    if not permitted:
        raise AddressRefused(
            f"{name}:{port}",
            f"is {_kind(addresses[0])} ({addresses[0]}), which the hub connects to only where it was allowed",
            "allow it with `--allow-private` for one agent, or its network in `egress.allowed_networks`",
        )
    return permitted


def _permitted(written: str, reach: Reach) -> bool:
    try:
        return reach.permits(ipaddress.ip_address(written.partition("%")[0]))
    except ValueError:
        return False


def _faces(address: Address) -> tuple[Address, ...]:
    """Return an address and, last, the IPv4 address that it leads to in the end, where it carries one."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    inner: ipaddress.IPv4Address | None = address.ipv4_mapped
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & _LAST_32)
    if inner is not None:
        return (inner,)  # the same address in other letters
    if address.sixtofour is not None:
        inner = address.sixtofour
    elif address.teredo is not None:
        inner = address.teredo[1]
    elif address in _COMPATIBLE and int(address) > 1:
        inner = ipaddress.IPv4Address(int(address) & _LAST_32)
    return (address,) if inner is None else (address, inner)


def _is_public(address: Address) -> bool:
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    )


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _kind(written: str) -> str:
    address = _faces(ipaddress.ip_address(written.partition("%")[0]))[-1]
    if address.is_loopback:
        return "an address of the hub's own machine"
    if address.is_link_local or address in _METADATA:
        return "a link-local address, where clouds keep a machine's credentials"
    return "a private address" if address.is_private or not address.is_global else "no address of one host"


def _is_localhost(host: str) -> bool:
    name = host.strip("[]").rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")


def _literal(host: str) -> Address | None:
    try:
        return _faces(ipaddress.ip_address(host.strip("[]").partition("%")[0]))[-1]
    except ValueError:
        return None
