"""A2A over gRPC, versions 1.0 and 0.3, on a port of its own (A2A 1.0, section 10). Needs the extra `interhub[grpc]`.

The same handler answers as over HTTP. Callers prove themselves by the metadata `authorization` or `x-api-key`; which
agent is meant, where it is not the hub, is the request's tenant, `agents/{id}`, as the agent's card says.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias, cast

import anyio
import grpc
import grpc.aio
import structlog
from a2a.compat.v0_3 import a2a_v0_3_pb2_grpc
from a2a.compat.v0_3.grpc_handler import CompatGrpcHandler
from a2a.extensions.common import HTTP_EXTENSION_HEADER, get_requested_extensions
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import RequestHandler
from a2a.server.request_handlers.grpc_handler import GrpcHandler, GrpcServerCallContextBuilder
from a2a.types import a2a_pb2_grpc
from opentelemetry import propagate, trace
from starlette.types import Message

from interhub.adapters import Principal
from interhub.hub.errors import AddressInUse, SettingsInvalid, Unauthenticated
from interhub.hub.faces.http import Authenticator

from .calling import Caller, check_version
from .follow import RESUME_HEADER

log = structlog.get_logger()
tracer = trace.get_tracer("interhub")

GRACE_S = 2.0
"""Seconds that calls under way get when the hub stops."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, kw_only=True)
class Tls:
    """The files that a port is secured with, in PEM."""

    certificate: Path
    private_key: Path


@dataclass(frozen=True, kw_only=True)
class _Call:
    principal: Principal
    metadata: Mapping[str, str]
    facts: dict[str, object] = field(default_factory=dict[str, object])


_CALL: ContextVar[_Call] = ContextVar("grpc_call")


class GrpcServer:
    """A port that is bound, and serves once it is given a handler."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        authenticator: Authenticator,
        max_message_bytes: int,
        tls: Tls | None = None,
    ) -> None:
        """Bind the port; 0 takes a free one. Calls wait until it serves. Make it on the loop that it is to serve on.

        Raises:
            AddressInUse: the port is taken.
            SettingsInvalid: the certificate or its key cannot be used.
        """
        self._server = grpc.aio.server(
            interceptors=[_Entrance(authenticator)],
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # else a second hub would share the port without a word
            ],
        )
        where = f"{f'[{host}]' if ':' in host else host}:{port}"
        try:
            if tls is None:
                self.port = self._server.add_insecure_port(where)
            else:
                self.port = self._server.add_secure_port(where, _credentials(tls))
        except RuntimeError as error:
            raise AddressInUse(host, port) from error

    @asynccontextmanager
    async def serving(self, handler: RequestHandler) -> AsyncGenerator[None]:
        """Answer calls by a handler, both versions, until the context ends."""
        new, old = GrpcHandler(handler, _Contexts("1.0")), CompatGrpcHandler(handler, _Contexts("0.3"))
        a2a_pb2_grpc.add_A2AServiceServicer_to_server(new, self._server)  # type: ignore[no-untyped-call]  # generated
        a2a_v0_3_pb2_grpc.add_A2AServiceServicer_to_server(old, self._server)  # type: ignore[no-untyped-call]  # too
        await self._server.start()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self._server.stop(GRACE_S)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    try:
        return grpc.ssl_server_credentials([(tls.private_key.read_bytes(), tls.certificate.read_bytes())])
    except OSError as error:
        named = "a2a.grpc_certificate, a2a.grpc_private_key"
        raise SettingsInvalid([f"{error.filename} cannot be read ({named}): {error.strerror}"]) from error


class _Contexts(GrpcServerCallContextBuilder):
    """Says who calls one of the two services, and in which version of A2A."""

    def __init__(self, version: str) -> None:
        self._version = version

    def build(self, context: Context) -> ServerCallContext:
        """Build the context of a call.

        Raises:
            VersionNotSupportedError: the metadata name another version than that of the service. Without any it is
                0.3 (A2A 1.0, section 3.6.2), which the service of 1.0 does not speak.
        """
        call = _CALL.get()
        check_version(call.metadata.get("a2a-version", "") or "0.3", only=self._version)
        return ServerCallContext(
            user=Caller(call.principal),
            state={
                "headers": {"a2a-version": self._version},
                "agent_id": "",
                "version": self._version,
                "receive": _receive,
                "after": call.metadata.get(RESUME_HEADER, ""),
                "facts": call.facts,
            },
            requested_extensions=get_requested_extensions([call.metadata.get(HTTP_EXTENSION_HEADER.lower(), "")]),
        )


async def _receive() -> Message:
    """Wait for the caller to hang up; over gRPC its call is cancelled then."""
    await anyio.sleep_forever()
    raise AssertionError("it sleeps for ever")


class _Entrance(grpc.aio.ServerInterceptor):
    """Lets in the calls whose caller is known, and writes one line for each."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return what handles a call; None where there is no such method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        metadata: dict[str, str] = {}
        for name, value in handler_call_details.invocation_metadata or ():
            # One name may come several times; but for the list of extensions the first counts.
            if name in metadata and name == HTTP_EXTENSION_HEADER.lower():
                metadata[name] += f",{value}"
            elif isinstance(value, str):
                metadata.setdefault(name, value)
        method: str = handler_call_details.method
        call: _Call | None = None
        try:
            principal = self._authenticator.principal_of_header(
                metadata.get("authorization", ""), metadata.get("x-api-key", "")
            )
            call = _Call(principal=principal, metadata=metadata)
        except Unauthenticated:
            log.info("request", method="gRPC", path=method, status="UNAUTHENTICATED", principal="")
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _streamed(handler.unary_stream, method, call),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            _answered(handler.unary_unary, method, call),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _answered(inner: Any, method: str, call: _Call | None) -> Any:
    async def answer(request: Any, context: Context) -> Any:
        if call is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(Unauthenticated()))
        with _told(method, call, context):
            try:
                return await inner(request, context)
            except Exception as error:
                await _fail(error, method, context)

    return answer


def _streamed(inner: Any, method: str, call: _Call | None) -> Any:
    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        if call is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(Unauthenticated()))
        with _told(method, call, context):
            try:
                async for item in inner(request, context):
                    yield item
            except Exception as error:
                await _fail(error, method, context)

    return stream


async def _fail(error: Exception, method: str, context: Context) -> None:
    """End a call by what it raised. An answer that was given stands; what we do not know is logged, not told."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, ValueError):  # what the SDK says of a message of 0.3 that it cannot read; pydantic's is one
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is not one of A2A")
    log.exception("request_failed", method="gRPC", path=method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "the hub failed; its log says why")


def _told(method: str, call: _Call | None, context: Context) -> AbstractContextManager[None]:
    assert call is not None, "a call without a caller was aborted"
    return _line(method, call, context)


@contextmanager
def _line(method: str, call: _Call, context: Context) -> Any:
    _CALL.set(call)
    started = perf_counter()
    parent = propagate.extract(call.metadata) if "traceparent" in call.metadata else None
    with tracer.start_as_current_span(
        f"gRPC {method}",
        context=parent,
        kind=trace.SpanKind.SERVER,
        attributes={"rpc.system": "grpc", "rpc.method": method},
    ):
        try:
            yield
        finally:
            code = cast("grpc.StatusCode | int | None", context.code())
            log.info(
                "request",
                method="gRPC",
                path=method,
                status=code.name if isinstance(code, grpc.StatusCode) else "OK" if not code else str(code),
                duration_ms=round((perf_counter() - started) * 1000.0, 2),
                principal=call.principal.key,
                **call.facts,
            )
