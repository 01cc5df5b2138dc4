"""A2A over gRPC, as a caller: versions 1.0 and 0.3. Needs the extra `grpc`; imported only where an agent is reached so.

The stubs and messages are the A2A SDK's, the one place in the adapters where it is used: there is no JSON on this wire
that could be read without them. What comes in is turned into the JSON that protobuf defines for it, and read by the
same tolerant reader as over HTTP.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import grpc
import grpc.aio
from a2a.compat.v0_3 import a2a_v0_3_pb2, a2a_v0_3_pb2_grpc
from a2a.types import a2a_pb2, a2a_pb2_grpc
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # has no stubs

from interhub.adapters.addresses import Reach, resolve
from interhub.adapters.content import Message
from interhub.adapters.errors import (
    AdapterError,
    AnswerTooLarge,
    RemoteDenied,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
)
from interhub.agent_cards import Json

from .authorized import Authorizer
from .events import MessageAnswer, TaskSnapshot
from .grpc_target import GrpcTarget
from .peer import Take
from .tolerance import TolerantReader
from .wire import Ask, Fault, HttpJson, Operation, WireVersion

_STATUS_DETAILS = "grpc-status-details-bin"
_EXACT = 2**53
"""Doubles hold every whole number below this; protobuf's JSON has no other numbers in data."""

_REQUESTS: dict[WireVersion, dict[Operation, type[ProtoMessage]]] = {
    WireVersion.V1: {
        Operation.SEND: a2a_pb2.SendMessageRequest,
        Operation.STREAM: a2a_pb2.SendMessageRequest,
        Operation.GET: a2a_pb2.GetTaskRequest,
        Operation.CANCEL: a2a_pb2.CancelTaskRequest,
        Operation.SUBSCRIBE: a2a_pb2.SubscribeToTaskRequest,
    },
    WireVersion.V03: {
        Operation.SEND: a2a_v0_3_pb2.SendMessageRequest,
        Operation.STREAM: a2a_v0_3_pb2.SendMessageRequest,
        Operation.GET: a2a_v0_3_pb2.GetTaskRequest,
        Operation.CANCEL: a2a_v0_3_pb2.CancelTaskRequest,
        Operation.SUBSCRIBE: a2a_v0_3_pb2.TaskSubscriptionRequest,
    },
}
_METHODS_03 = {Operation.SUBSCRIBE: "TaskSubscription"}

_REASONS = {
    grpc.StatusCode.NOT_FOUND: "TASK_NOT_FOUND",
    grpc.StatusCode.UNIMPLEMENTED: "METHOD_NOT_FOUND",
    grpc.StatusCode.FAILED_PRECONDITION: "UNSUPPORTED_OPERATION",
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_PARAMS",
}
"""What a status says where no `google.rpc.ErrorInfo` says it better, as in 0.3."""
_UNAVAILABLE = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN}
)


class GrpcPeer:
    """Speaks one version to one interface, over one channel. Any number of requests at once."""

    def __init__(
        self,
        channels: "Channels",
        version: WireVersion,
        reader: TolerantReader,
        *,
        tenant: str = "",
        extensions: Sequence[str] = (),
        where: str,
        max_answer_bytes: int,
    ) -> None:
        """`where` names the agent in errors; `extensions` are activated by every call."""
        self._channels = channels
        self._version = version
        self._reader = reader
        self._tenant = tenant
        self._where = where
        self._max = max_answer_bytes
        self._json = HttpJson(version, extensions=extensions)

    @property
    def reader(self) -> TolerantReader:
        """What reads the answers."""
        return self._reader

    async def send(
        self, message: Message, *, return_immediately: bool, headers: Mapping[str, str]
    ) -> TaskSnapshot | MessageAnswer:
        """Send a message and return the task or message that answers it.

        Raises:
            Fault: the agent answered with an error of the protocol.
            AdapterError: anything else that went wrong.
        """
        ask = Ask(operation=Operation.SEND, message=message, return_immediately=return_immediately)
        return self._reader.answer(await self._answer(ask, headers))

    async def get_task(self, task_id: str, *, headers: Mapping[str, str]) -> TaskSnapshot:
        """Ask how a task stands.

        Raises:
            Fault: the agent answered with an error of the protocol.
            AdapterError: anything else that went wrong.
        """
        return self._reader.task(await self._answer(Ask(operation=Operation.GET, task_id=task_id), headers))

    async def cancel_task(self, task_id: str, *, headers: Mapping[str, str]) -> None:
        """Ask the agent to stop a task.

        Raises:
            Fault: the agent answered with an error of the protocol.
            AdapterError: anything else that went wrong.
        """
        await self._answer(Ask(operation=Operation.CANCEL, task_id=task_id), headers)

    async def stream(self, message: Message, take: Take, *, headers: Mapping[str, str]) -> None:
        """Send a message and hand each event of its stream to `take`, until that has enough or the stream ends.

        Raises:
            Fault: the agent answered with an error of the protocol.
            AdapterError: anything else that went wrong.
        """
        await self._events(Ask(operation=Operation.STREAM, message=message), take, headers)

    async def subscribe(self, task_id: str, take: Take, *, headers: Mapping[str, str]) -> None:
        """Hand each further event of a task to `take`, until that has enough or the stream ends.

        Raises:
            Fault: the agent answered with an error of the protocol.
            AdapterError: anything else that went wrong.
        """
        await self._events(Ask(operation=Operation.SUBSCRIBE, task_id=task_id), take, headers)

    async def _answer(self, ask: Ask, headers: Mapping[str, str]) -> Json:
        shown = await self._channels.shown()
        try:
            return await self._answered(ask, {**shown, **headers})
        except grpc.aio.AioRpcError as error:
            if not self._channels.renews(error):
                raise self._failed(error, ask) from error
        shown = await self._channels.shown(refused=shown)
        try:
            return await self._answered(ask, {**shown, **headers})
        except grpc.aio.AioRpcError as error:
            raise self._failed(error, ask) from error

    async def _answered(self, ask: Ask, headers: Mapping[str, str]) -> Json:
        request, metadata = self._written(ask, headers)
        return _read(await (await self._method(ask))(request, metadata=metadata))

    async def _events(self, ask: Ask, take: Take, headers: Mapping[str, str]) -> None:
        shown = await self._channels.shown()
        try:
            return await self._streamed(ask, take, {**shown, **headers})
        except grpc.aio.AioRpcError as error:
            if not self._channels.renews(error):
                raise self._failed(error, ask) from error
        shown = await self._channels.shown(refused=shown)
        try:
            await self._streamed(ask, take, {**shown, **headers})
        except grpc.aio.AioRpcError as error:
            raise self._failed(error, ask) from error

    async def _streamed(self, ask: Ask, take: Take, headers: Mapping[str, str]) -> None:
        request, metadata = self._written(ask, headers)
        call = (await self._method(ask))(request, metadata=metadata)
        try:
            async for event in call:
                if await take(self._reader.event(_read(event))):
                    return
        finally:
            call.cancel()

    def _written(self, ask: Ask, headers: Mapping[str, str]) -> tuple[ProtoMessage, tuple[tuple[str, str], ...]]:
        written = self._json.write("", ask)
        body: dict[str, Json] = dict(cast("Mapping[str, Json]", written.body or {}))
        if ask.message is None:
            body["id" if self._version is WireVersion.V1 else "name"] = (
                ask.task_id if self._version is WireVersion.V1 else f"tasks/{ask.task_id}"
            )
        if self._tenant and self._version is WireVersion.V1:
            body["tenant"] = self._tenant
        try:
            request = ParseDict(body, _REQUESTS[self._version][ask.operation]())
        except ParseError as error:
            raise RemoteRefused(self._where, f"the message cannot be written as protobuf: {error}") from error
        sent = {**self._channels.headers, **headers, **written.headers}
        metadata = tuple((name.lower(), value) for name, value in sent.items() if name.lower() != "accept")
        return request, metadata

    async def _method(self, ask: Ask) -> Any:
        channel = await self._channels.open()
        if self._version is WireVersion.V1:
            new: Any = a2a_pb2_grpc.A2AServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
            return getattr(new, _METHODS[ask.operation])
        name = _METHODS_03.get(ask.operation, _METHODS[ask.operation])
        old: Any = a2a_v0_3_pb2_grpc.A2AServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
        return getattr(old, name)

    def _failed(self, error: grpc.aio.AioRpcError, ask: Ask) -> Fault | AdapterError:
        """Return the error of the contract for a status."""
        code, said = error.code(), error.details() or error.code().name
        reason = _reason(error)
        if reason:
            return Fault(said, reason=reason)
        match code:
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                return RemoteDenied(self._where, f"{code.name}: {said}; give the agent's credentials as headers")
            case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in said:
                return AnswerTooLarge(self._where, self._max, self._max, "one answer")
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return RemoteUnavailable(self._where, f"{code.name}: {said}")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return RemoteTimeout(self._where, 0.0)
            case _ if code in _UNAVAILABLE:
                return RemoteUnavailable(self._where, f"no connection: {said}; is it running, and is the port right?")
            case grpc.StatusCode.NOT_FOUND if not ask.task_id:
                return RemoteRefused(self._where, said)
            case _ if code in _REASONS:
                return Fault(said, reason=_REASONS[code])
            case _:
                return RemoteRefused(self._where, f"{code.name}: {said}")


_METHODS = {
    Operation.SEND: "SendMessage",
    Operation.STREAM: "SendStreamingMessage",
    Operation.GET: "GetTask",
    Operation.CANCEL: "CancelTask",
    Operation.SUBSCRIBE: "SubscribeToTask",
}


_PING_MS = 310_000
"""How long a call may be silent before the server is asked whether it is still there.

Servers of all of gRPC's languages, as they come, close a connection that is pinged more often than every five minutes
(https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md), also while calls are under way.
"""
_PING_ANSWER_MS = 20_000


class Channels:
    """The channel to one target: opened when it is needed, to an address that was checked."""

    def __init__(
        self,
        target: GrpcTarget,
        *,
        headers: Mapping[str, str],
        authorizer: Authorizer | None,
        reach: Reach,
        connect_s: float,
        max_answer_bytes: int,
    ) -> None:
        """`headers`, and what `authorizer` shows, go along with every call."""
        self.headers = headers
        self._authorizer = authorizer
        self._target = target
        self._reach = reach
        self._connect_s = connect_s
        self._options = [
            ("grpc.max_receive_message_length", max_answer_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.default_authority", f"{target.host}:{target.port}"),
            ("grpc.primary_user_agent", "interhub"),
            ("grpc.keepalive_time_ms", _PING_MS),
            ("grpc.keepalive_timeout_ms", _PING_ANSWER_MS),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        if target.tls:
            self._options.append(("grpc.ssl_target_name_override", target.host))
        self._channel: grpc.aio.Channel | None = None
        self._opening = anyio.Lock()

    async def shown(self, refused: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the credentials that go into the metadata, other ones than those that were `refused`.

        Raises:
            AdapterError: no token is to be had.
        """
        if self._authorizer is None:
            return {}
        return await self._authorizer.headers((refused or {}).get("Authorization", ""))

    def renews(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether an error is about credentials that could be others."""
        refused = error.code() is grpc.StatusCode.UNAUTHENTICATED
        return refused and self._authorizer is not None and self._authorizer.renews

    async def open(self) -> grpc.aio.Channel:
        """Return the channel.

        Raises:
            RemoteUnavailable: the name does not resolve.
            AddressRefused: none of its addresses may be connected to.
        """
        async with self._opening:
            if self._channel is None:
                target = self._target
                with anyio.move_on_after(self._connect_s):
                    addresses = await resolve(target.host, target.port, self._reach)
                    # gRPC takes a list of one family only; the resolver's first choice decides.
                    family = "ipv6" if ":" in addresses[0] else "ipv4"
                    same = [each for each in addresses if (":" in each) is (family == "ipv6")]
                    where = ",".join(
                        f"[{each}]:{target.port}" if ":" in each else f"{each}:{target.port}" for each in same
                    )
                    if target.tls:
                        secured = grpc.ssl_channel_credentials()
                        self._channel = grpc.aio.secure_channel(f"{family}:{where}", secured, options=self._options)
                    else:
                        self._channel = grpc.aio.insecure_channel(f"{family}:{where}", options=self._options)
                    return self._channel
                raise RemoteUnavailable(f"{target.host}:{target.port}", "its name did not resolve in time")
            return self._channel

    async def close(self) -> None:
        """Close what is open."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()


@asynccontextmanager
async def open_channels(
    target: GrpcTarget,
    *,
    headers: Mapping[str, str],
    reach: Reach,
    connect_s: float,
    max_answer_bytes: int,
    authorizer: Authorizer | None = None,
) -> AsyncGenerator[Channels]:
    """Open a conversation with a target; nothing is sent before the first call."""
    channels = Channels(
        target,
        headers=headers,
        authorizer=authorizer,
        reach=reach,
        connect_s=connect_s,
        max_answer_bytes=max_answer_bytes,
    )
    try:
        yield channels
    finally:
        with anyio.CancelScope(shield=True):
            await channels.close()


def _reason(error: grpc.aio.AioRpcError) -> str:
    """Return the reason of the `google.rpc.ErrorInfo` that comes with an error (A2A 1.0, section 10.6)."""
    for name, value in error.trailing_metadata() or ():
        if name == _STATUS_DETAILS and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
                for detail in status.details:
                    info = error_details_pb2.ErrorInfo()
                    if detail.Unpack(info):
                        return str(info.reason)
            except DecodeError:
                return ""
    return ""


def _read(message: ProtoMessage) -> Json:
    return _whole(cast("Json", MessageToDict(message)))


def _whole(value: Json) -> Json:
    """Return JSON with whole numbers whole: protobuf has doubles only."""
    match value:
        case float():
            return int(value) if value.is_integer() and abs(value) < _EXACT else value
        case dict():
            return {name: _whole(each) for name, each in value.items()}
        case list():
            return [_whole(each) for each in value]
        case _:
            return value
