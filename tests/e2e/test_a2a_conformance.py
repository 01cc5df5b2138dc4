"""The conformance suites' scenarios, over every binding, at the hub itself and through it to a remote agent.

`scripts/tck.py` runs the suites themselves; what of them can stand here stands here. The A2A SDK's own client asks.
"""

import sys
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio
import grpc.aio
import httpx
import pytest
from a2a import types as a2a
from a2a.client import A2ACardResolver, Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.utils.errors import TaskNotFoundError

from tests.support.hub_process import HubProcess, cli, hub_process
from tests.support.processes import ROOT, Peer, peer

pytestmark = pytest.mark.anyio

AGENT = ROOT / "examples" / "tck_agent.py"
BINDINGS = ["JSONRPC", "HTTP+JSON", "GRPC"]
PLACES = {"the hub itself": "", "a local agent": "/agents/tck", "a remote agent": "/agents/remote"}
STATE = a2a.TaskState

ENDS = {
    "tck-complete-task": STATE.TASK_STATE_COMPLETED,
    "tck-input-required": STATE.TASK_STATE_INPUT_REQUIRED,
    "tck-reject-task": STATE.TASK_STATE_REJECTED,
}
TEXTS = {
    "tck-auth-required": STATE.TASK_STATE_AUTH_REQUIRED,
    "tck-task-failure": STATE.TASK_STATE_FAILED,
    "tck-nothing-of-that-name": STATE.TASK_STATE_FAILED,
}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The SDK's client over one binding."""

    client: Client
    http: httpx.AsyncClient
    context: ClientCallContext

    async def close(self) -> None:
        """Close what is open."""
        await self.client.close()
        await self.http.aclose()

    async def all(self, message_id: str, text: str, *, now: bool = False, **more: Any) -> list[a2a.StreamResponse]:
        """Send a message and return all that comes."""
        message = a2a.Message(
            message_id=f"{message_id}-{uuid4()}", role=a2a.Role.ROLE_USER, parts=[a2a.Part(text=text)], **more
        )
        with anyio.fail_after(60):
            configuration = a2a.SendMessageConfiguration(return_immediately=now)
            request = a2a.SendMessageRequest(message=message, configuration=configuration)
            return [each async for each in self.client.send_message(request, context=self.context)]

    async def send(self, message_id: str, text: str = "go", **more: Any) -> a2a.Task:
        """Send a message and return its task."""
        return (await self.all(message_id, text, **more))[-1].task


@pytest.fixture(scope="module")
def remote() -> Generator[Peer]:
    with peer(sys.executable, AGENT) as running:
        yield running


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, remote: Peer) -> Generator[HubProcess]:
    variables = {"INTERHUB_A2A__AGENT": "tck", "INTERHUB_A2A__GRPC_PORT": "0"}
    folder = tmp_path_factory.mktemp("hub")
    with (folder / "hub.log").open("w") as log, hub_process(cli(folder / "data", variables), log=log) as running:
        local = {"binding": "LOCAL", "options": {"target": f"{AGENT}:conformance"}}
        for adapter, agent_id, endpoint in (
            ("local", "tck", local),
            ("a2a", "remote", {"binding": "JSONRPC", "url": remote.url}),
        ):
            body = {"kind": "endpoint", "adapter": adapter, "id": agent_id, "endpoint": endpoint}
            headers = {"Authorization": f"Bearer {running.key}"}
            added = httpx.post(f"{running.url}/api/agents", json=body, headers=headers, timeout=30)
            assert added.status_code == 201, added.text
        yield running


async def caller(hub: HubProcess, place: str, binding: str, *, streaming: bool = False) -> Caller:
    http = httpx.AsyncClient(headers={"Authorization": f"Bearer {hub.key}"}, timeout=30)
    card = await A2ACardResolver(http, f"{hub.url}{place}").get_agent_card()
    config = ClientConfig(
        streaming=streaming,
        httpx_client=http,
        grpc_channel_factory=grpc.aio.insecure_channel,
        supported_protocol_bindings=[binding],
    )
    parameters = {"authorization": f"Bearer {hub.key}"} if binding == "GRPC" else {}
    context = ClientCallContext(service_parameters=parameters)
    return Caller(client=ClientFactory(config).create(card), http=http, context=context)


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
async def test_the_scenarios_end_as_the_suites_want(hub: HubProcess, place: str, binding: str) -> None:
    ask = await caller(hub, place, binding)
    for message_id, state in ENDS.items():
        assert (await ask.send(message_id)).status.state == state, message_id
    for text, state in TEXTS.items():
        assert (await ask.send("any", f"{text} please")).status.state == state, text
    (said,) = await ask.all("tck-message-response", "go")
    assert said.message.parts[0].text == "Direct message response"
    shown = await ask.client.get_task(
        a2a.GetTaskRequest(id=str(said.message.metadata["interhub/task"])), context=ask.context
    )
    assert shown.status.state == STATE.TASK_STATE_COMPLETED
    await ask.close()


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
async def test_artifacts_of_every_kind_come_through(hub: HubProcess, place: str, binding: str) -> None:
    ask = await caller(hub, place, binding)
    parts: dict[str, a2a.Part] = {}
    for kind in ("text", "file", "file-url", "data"):
        task = await ask.send(f"tck-artifact-{kind}")
        parts[kind] = next(each for each in task.artifacts if each.name == "output").parts[0]
    assert parts["text"].text == "Generated text content"
    assert (parts["file"].raw, parts["file"].filename) == (b"Generated file content", "output.txt")
    assert (parts["file-url"].url, parts["file-url"].media_type) == ("https://example.com/output.txt", "text/plain")
    assert dict(parts["data"].data.struct_value.items()) == {"key": "value", "count": 42}
    await ask.close()


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
async def test_a_stream_tells_each_chunk_and_ends_with_the_end(hub: HubProcess, place: str, binding: str) -> None:
    ask = await caller(hub, place, binding, streaming=True)
    events = await ask.all("tck-stream-artifact-chunked", "go")
    assert events[0].HasField("task")
    chunks = [each.artifact_update for each in events if each.artifact_update.artifact.name == "output"]
    assert [(each.artifact.parts[0].text, each.append) for each in chunks] == [("chunk-1 ", False), ("chunk-2", True)]
    assert events[-1].status_update.status.state == STATE.TASK_STATE_COMPLETED
    await ask.close()


@pytest.mark.parametrize("binding", BINDINGS)
# The SDK's server now and then lets the stream of a turn that follows at once hang without an event.
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
async def test_several_turns_sent_at_once_are_taken_one_after_another(
    hub: HubProcess, place: str, binding: str
) -> None:
    ask = await caller(hub, place, binding)
    task = await ask.send("any", "tck-multi-turn start")
    answers: list[a2a.Task] = []

    async def say(words: str) -> None:
        answers.append(await ask.send("more", words, task_id=task.id))

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(say, f"more {number}")
    assert [each.status.state for each in answers] == [STATE.TASK_STATE_INPUT_REQUIRED] * 3
    done = await ask.send("more", "done", task_id=task.id)
    assert (done.status.state, done.context_id) == (STATE.TASK_STATE_COMPLETED, task.context_id)
    said = [each.parts[0].text for each in done.history if each.role == a2a.Role.ROLE_USER]
    assert said[0] == "tck-multi-turn start"
    assert sorted(said[1:4]) == ["more 0", "more 1", "more 2"]
    assert said[4:] == ["done"]
    await ask.close()


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_stream_is_taken_up_from_its_beginning_and_a_cancel_ends_it(hub: HubProcess, binding: str) -> None:
    ask = await caller(hub, "/agents/remote", binding)
    follower = await caller(hub, "/agents/remote", binding, streaming=True)
    task = await ask.send("any", "tck-cancel", now=True)
    resumed = ClientCallContext(service_parameters={**(ask.context.service_parameters or {}), "last-event-id": "0"})
    seen: list[a2a.TaskStatusUpdateEvent] = []
    with anyio.fail_after(60):
        async for event in follower.client.subscribe(a2a.SubscribeToTaskRequest(id=task.id), context=resumed):
            if not event.HasField("status_update"):
                continue
            seen.append(event.status_update)
            if any("working" in part.text for part in event.status_update.status.message.parts):
                await ask.client.cancel_task(a2a.CancelTaskRequest(id=task.id), context=ask.context)
    numbers = [int(each.metadata.fields["interhub/sequence"].number_value) for each in seen]
    assert numbers == sorted(set(numbers))
    assert seen[-1].status.state == STATE.TASK_STATE_CANCELED
    await ask.close()
    await follower.close()


async def test_a_task_begun_over_one_binding_goes_on_over_the_others(hub: HubProcess) -> None:
    callers = [await caller(hub, "/agents/remote", binding) for binding in BINDINGS]
    task = await callers[0].send("tck-input-required")
    for ask in callers:
        shown = await ask.client.get_task(a2a.GetTaskRequest(id=task.id), context=ask.context)
        assert shown == await callers[0].client.get_task(a2a.GetTaskRequest(id=task.id), context=callers[0].context)
    elsewhere = await caller(hub, "/agents/tck", "GRPC")
    with pytest.raises(TaskNotFoundError):
        await elsewhere.client.get_task(a2a.GetTaskRequest(id=task.id), context=elsewhere.context)
    assert (await callers[2].send("tck-complete-task", task_id=task.id)).status.state == STATE.TASK_STATE_COMPLETED
    for ask in (*callers, elsewhere):
        await ask.close()
