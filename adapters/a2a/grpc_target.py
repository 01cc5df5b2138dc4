"""Where an agent is reached over gRPC: what its card's URL says, and whether this installation can."""

from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

from interhub.adapters.errors import BadEndpoint
from interhub.agent_cards import Endpoint

TLS = "tls"
"""Key in `Endpoint.options`: whether a gRPC address that does not say so by its scheme is secured by TLS."""

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_PORTS = {"http": 80, "grpc": 80, "https": 443, "grpcs": 443}


@dataclass(frozen=True, kw_only=True)
class GrpcTarget:
    """A host and port that speaks gRPC."""

    host: str
    port: int
    tls: bool


def grpc_installed() -> bool:
    """Whether the extra `grpc` is there."""
    return find_spec("grpc") is not None


def grpc_target(endpoint: Endpoint) -> GrpcTarget:
    """Return where an endpoint's gRPC interface is: `host:port`, or a URL of http, https, grpc or grpcs.

    An address without a scheme is taken to speak TLS, but for one of this machine, and where the option `tls` says
    otherwise: credentials must not leave the machine in the clear by a slip.

    Raises:
        BadEndpoint: it is none of these.
    """
    url = endpoint.url
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    except ValueError as error:
        raise BadEndpoint(url, f"is no gRPC address: {error}", "give host:port") from error
    if not host or not port or parts.scheme not in ("", *_PORTS) or parts.username is not None:
        raise BadEndpoint(url or "(no address)", "is no gRPC address", "give host:port, or https://host:port")
    asked = endpoint.options.get(TLS)
    if parts.scheme:
        tls = parts.scheme in ("https", "grpcs")
    else:
        tls = asked if isinstance(asked, bool) else host not in LOOPBACK_NAMES
    return GrpcTarget(host=host, port=port, tls=tls)
