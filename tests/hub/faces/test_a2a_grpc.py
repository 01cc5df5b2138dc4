"""The hub over gRPC, asked with the SDK's own stubs."""

import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import grpc
import grpc.aio
import pytest
from a2a import types as a2a
from a2a.compat.v0_3 import a2a_v0_3_pb2 as old
from a2a.compat.v0_3.a2a_v0_3_pb2_grpc import A2AServiceStub as OldStub
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # has no stubs

from interhub.hub.errors import AddressInUse, SettingsInvalid
from interhub.hub.faces.a2a.grpc_server import GrpcServer, Tls
from interhub.hub.grpc_port import open_grpc_port
from interhub.hub.settings import A2a, Settings
from interhub.hub.supervisor.run import RunState
from tests.support.face_site import Keys, Site, face_site

pytestmark = pytest.mark.anyio

STATE = a2a.TaskState
MAX = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class GrpcSite:
    """A hub behind a gRPC port."""

    site: Site
    stub: Any
    old: Any


@pytest.fixture
async def hub() -> AsyncGenerator[GrpcSite]:
    async with face_site() as site:
        server = GrpcServer(host="127.0.0.1", port=0, authenticator=Keys(), max_message_bytes=MAX)
        async with (
            server.serving(site.a2a.handler),
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            new, old = A2AServiceStub(channel), OldStub(channel)  # type: ignore[no-untyped-call]  # generated
            yield GrpcSite(site=site, stub=new, old=old)


def by(key: str = "alice-key", version: str = "1.0", **more: str) -> tuple[tuple[str, str], ...]:
    given = {"authorization": f"Bearer {key}" if key else "", "a2a-version": version, **more}
    return tuple((name.replace("_", "-"), value) for name, value in given.items() if value)


def request(text: str, *, now: bool = False, tenant: str = "", task_id: str = "") -> a2a.SendMessageRequest:
    said = a2a.Message(message_id=str(uuid4()), role=a2a.Role.ROLE_USER, parts=[a2a.Part(text=text)], task_id=task_id)
    configuration = a2a.SendMessageConfiguration(return_immediately=now)
    return a2a.SendMessageRequest(message=said, configuration=configuration, tenant=tenant)


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return the status of a call that fails, and the reason in its details."""
    streams = isinstance(call, grpc.aio.UnaryStreamCall)
    with anyio.fail_after(10), pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if streams else call)
    reason = ""
    for name, value in caught.value.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            info = error_details_pb2.ErrorInfo()
            status_pb2.Status.FromString(value).details[0].Unpack(info)
            reason = info.reason
    return caught.value.code(), reason


async def test_every_operation_is_served(hub: GrpcSite) -> None:
    with anyio.fail_after(10):
        task = (await hub.stub.SendMessage(request("ask"), metadata=by())).task
        assert task.status.state == STATE.TASK_STATE_INPUT_REQUIRED
        done = (await hub.stub.SendMessage(request("blue", task_id=task.id), metadata=by())).task
        assert (done.id, done.artifacts[0].parts[0].text) == (task.id, "blue")
        shown = await hub.stub.GetTask(a2a.GetTaskRequest(id=task.id, history_length=1), metadata=by())
        assert [each.parts[0].text for each in shown.history] == ["blue"]
        events = [each async for each in hub.stub.SendStreamingMessage(request("count 3"), metadata=by())]
        assert events[0].HasField("task")
        assert events[-1].status_update.status.state == STATE.TASK_STATE_COMPLETED
        listed = await hub.stub.ListTasks(a2a.ListTasksRequest(page_size=1), metadata=by())
        assert (listed.tasks[0].id, listed.total_size) == (events[0].task.id, 2)
        held = (await hub.stub.SendMessage(request("hold", now=True), metadata=by())).task
        stopped = await hub.stub.CancelTask(a2a.CancelTaskRequest(id=held.id), metadata=by())
        assert stopped.status.state == STATE.TASK_STATE_CANCELED
        card = await hub.stub.GetExtendedAgentCard(a2a.GetExtendedAgentCardRequest(), metadata=by())
        assert {skill.id for skill in card.skills} == {"delegate", "clerk", "tools"}


async def test_version_0_3_is_a_service_of_its_own(hub: GrpcSite) -> None:
    said = old.Message(message_id=str(uuid4()), role=old.Role.ROLE_USER, content=[old.Part(text="ask")])
    asking = old.SendMessageRequest(request=said, configuration=old.SendMessageConfiguration(blocking=True))
    with anyio.fail_after(10):
        task = (await hub.old.SendMessage(asking, metadata=by(version=""))).task
        assert task.status.state == old.TaskState.TASK_STATE_INPUT_REQUIRED
        shown = await hub.old.GetTask(old.GetTaskRequest(name=f"tasks/{task.id}"), metadata=by(version="0.3"))
        assert shown.id == task.id
        asking.request.content[0].text, asking.request.message_id = "count 2", str(uuid4())
        events = [each async for each in hub.old.SendStreamingMessage(asking, metadata=by(version=""))]
        assert events[-1].status_update.final
    refused = await failure(hub.old.GetTask(old.GetTaskRequest(name=f"tasks/{task.id}"), metadata=by(version="1.0")))
    assert refused[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert (await failure(hub.old.GetTask(old.GetTaskRequest(name="nonsense"), metadata=by(version=""))))[0] in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
    )


@pytest.mark.parametrize("key", ["", "wrong"])
async def test_nobody_gets_in_without_a_key(hub: GrpcSite, key: str) -> None:
    calls = (
        hub.stub.SendMessage(request("echo x"), metadata=by(key)),
        hub.stub.SendStreamingMessage(request("echo x"), metadata=by(key)),
        hub.stub.GetExtendedAgentCard(a2a.GetExtendedAgentCardRequest(), metadata=by(key)),
        hub.old.SendMessage(old.SendMessageRequest(), metadata=by(key)),
    )
    for call in calls:
        assert (await failure(call))[0] is grpc.StatusCode.UNAUTHENTICATED
    assert not hub.site.supervisor.assignments
    with anyio.fail_after(5):
        assert await hub.stub.SendMessage(request("echo x"), metadata=by("", x_api_key="alice-key"))


@pytest.mark.parametrize("version", ["", "0.3", "1.7", "99.0", "x"])
async def test_the_service_of_1_0_speaks_no_other_version(hub: GrpcSite, version: str) -> None:
    for call in (hub.stub.SendMessage, hub.stub.SendStreamingMessage):
        refused = await failure(call(request("echo x"), metadata=by(version=version)))
        assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_NOT_SUPPORTED")


async def test_the_tenant_says_which_agent_is_meant_and_another_s_task_is_not_found(hub: GrpcSite) -> None:
    with anyio.fail_after(5):
        task = (await hub.stub.SendMessage(request("ask", tenant="agents/clerk"), metadata=by())).task
    assert hub.site.supervisor.assignments[0].agent_id == "clerk"
    for tenant, key in (("agents/tools", "alice-key"), ("elsewhere", "alice-key"), ("", "bob-key"), ("", "eve-key")):
        for method, asked in (
            (hub.stub.GetTask, a2a.GetTaskRequest(id=task.id, tenant=tenant)),
            (hub.stub.CancelTask, a2a.CancelTaskRequest(id=task.id, tenant=tenant)),
            (hub.stub.SubscribeToTask, a2a.SubscribeToTaskRequest(id=task.id, tenant=tenant)),
        ):
            refused = await failure(method(asked, metadata=by(key)))
            assert refused == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")


async def test_an_extension_that_no_header_can_name_is_refused(hub: GrpcSite) -> None:
    named = ["x\r\nX-Injected: yes"]
    new = request("hello")
    new.message.extensions.extend(named)
    before = old.Message(message_id="m", role=old.Role.ROLE_USER, content=[old.Part(text="hello")], extensions=named)
    asking = old.SendMessageRequest(request=before)
    for call in (hub.stub.SendMessage(new, metadata=by()), hub.old.SendMessage(asking, metadata=by(version=""))):
        assert (await failure(call))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert hub.site.supervisor.assignments == []


async def test_a_message_that_is_too_large_is_refused_and_the_hub_goes_on(hub: GrpcSite) -> None:
    refused = await failure(hub.stub.SendMessage(request("x" * (MAX + 1)), metadata=by()))
    assert refused[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await failure(hub.stub.SendMessage(a2a.SendMessageRequest(), metadata=by())))[1] == "INVALID_PARAMS"
    unknown = a2a.ListTasksRequest(status=77)  # type: ignore[arg-type]  # as a client of a later version would send it
    assert (await failure(hub.stub.ListTasks(unknown, metadata=by())))[1] == "INVALID_PARAMS"
    with anyio.fail_after(5):
        assert await hub.stub.SendMessage(request("echo x"), metadata=by())


async def test_a_caller_that_hangs_up_leaves_the_run_and_no_waiter_behind(hub: GrpcSite) -> None:
    call = hub.stub.SendMessage(request("hold"), metadata=by())
    with anyio.fail_after(10):
        while not hub.site.supervisor.runs():
            await anyio.wait_all_tasks_blocked()
        while hub.site.supervisor.runs()[0].state is not RunState.WORKING:
            await anyio.wait_all_tasks_blocked()
        call.cancel()
        await hub.site.supervisor.nobody_waits()
    assert hub.site.supervisor.runs()[0].state is RunState.WORKING


async def test_a_port_that_is_taken_is_said_to_be(hub: GrpcSite) -> None:
    first = GrpcServer(host="127.0.0.1", port=0, authenticator=Keys(), max_message_bytes=MAX)
    with pytest.raises(AddressInUse):
        GrpcServer(host="127.0.0.1", port=first.port, authenticator=Keys(), max_message_bytes=MAX)


async def test_without_the_extra_or_the_certificate_the_hub_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Tls(certificate=tmp_path / "chain.pem", private_key=tmp_path / "key.pem")
    with pytest.raises(SettingsInvalid, match=r"key\.pem cannot be read \(a2a\.grpc_certificate"):
        GrpcServer(host="127.0.0.1", port=0, authenticator=Keys(), max_message_bytes=MAX, tls=missing)
    assert open_grpc_port(Settings(data_dir=tmp_path), Keys()) is None
    monkeypatch.setitem(sys.modules, "grpc", None)  # as where the extra is not installed
    monkeypatch.delitem(sys.modules, "interhub.hub.faces.a2a.grpc_server")
    with pytest.raises(SettingsInvalid, match=r"install interhub\[grpc\]"):
        open_grpc_port(Settings(data_dir=tmp_path, a2a=A2a(grpc_port=0)), Keys())
