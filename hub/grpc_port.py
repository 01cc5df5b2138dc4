"""The port of A2A over gRPC, where the settings want one. gRPC is an extra, and imported only then."""

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol
from urllib.parse import urlsplit

from .errors import SettingsInvalid
from .faces.http import Authenticator
from .settings import Settings


class GrpcPort(Protocol):
    """A port that is bound: `faces.a2a.grpc_server.GrpcServer`."""

    @property
    def port(self) -> int:
        """Its number."""
        ...

    def serving(self, handler: Any) -> AbstractAsyncContextManager[None]:
        """Answer calls by the A2A face's handler, whose type only the face may import."""
        ...


def open_grpc_port(settings: Settings, authenticator: Authenticator) -> GrpcPort | None:
    """Bind the gRPC port; None where none is set. Calls wait until it serves.

    Raises:
        SettingsInvalid: the extra is not installed, or the certificate cannot be used.
        AddressInUse: the port is taken.
    """
    a2a = settings.a2a
    if a2a.grpc_port is None:
        return None
    try:
        from .faces.a2a.grpc_server import GrpcServer, Tls
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "grpc":
            raise
        raise SettingsInvalid(["a2a.grpc_port needs the extra `grpc`: install interhub[grpc]"]) from error
    tls = None
    if a2a.grpc_certificate is not None and a2a.grpc_private_key is not None:
        tls = Tls(certificate=a2a.grpc_certificate, private_key=a2a.grpc_private_key)
    return GrpcServer(
        host=settings.server.host.strip("[]"),
        port=a2a.grpc_port,
        authenticator=authenticator,
        max_message_bytes=settings.server.max_body_bytes,
        tls=tls,
    )


def grpc_address(settings: Settings, port: GrpcPort | None, url: str) -> str:
    """Return where callers reach the port, `host:port`, as cards say it; empty without one. `url` is the hub's own."""
    if port is None:
        return ""
    host = urlsplit(settings.server.public_url or url).hostname or "127.0.0.1"
    return settings.a2a.grpc_address or f"{f'[{host}]' if ':' in host else host}:{port.port}"
