"""The hub asked with the Python A2A SDK's own client, over 1.0 and 0.3 and both bindings."""

from pathlib import Path
from uuid import uuid4

import anyio
import httpx
import pytest
from a2a import types as a2a
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.client.card_resolver import parse_agent_card
from a2a.utils.errors import TaskNotCancelableError, TaskNotFoundError, UnsupportedOperationError
from google.protobuf.struct_pb2 import Struct

from tests.support.whole_hub import WholeHub, whole_hub

pytestmark = pytest.mark.anyio

FACES = [("1.0", "JSONRPC"), ("1.0", "HTTP+JSON"), ("0.3", "JSONRPC"), ("0.3", "HTTP+JSON")]


def say(text: str, *, now: bool = False, task: a2a.Task | None = None) -> a2a.SendMessageRequest:
    metadata = Struct()
    metadata.update({"interhub/agent": "clerk"})
    message = a2a.Message(
        message_id=str(uuid4()), role=a2a.Role.ROLE_USER, parts=[a2a.Part(text=text)], metadata=metadata
    )
    if task is not None:
        message.task_id, message.context_id = task.id, task.context_id
    return a2a.SendMessageRequest(message=message, configuration=a2a.SendMessageConfiguration(return_immediately=now))


async def client_of(hub: WholeHub, version: str, binding: str, *, streaming: bool) -> Client:
    if version == "1.0":
        card = await A2ACardResolver(hub.client, hub.url).get_agent_card()
    else:  # the SDK marks its HTTP client and its resolver as of 1.0, which is then what they are given
        async with httpx.AsyncClient() as silent:
            card = parse_agent_card((await silent.get(f"{hub.url}/.well-known/agent-card.json")).json())
    faces = [
        face
        for face in card.supported_interfaces
        if face.protocol_binding == binding and face.protocol_version.startswith(version)
    ]
    del card.supported_interfaces[:]
    card.supported_interfaces.extend(faces)
    config = ClientConfig(streaming=streaming, httpx_client=hub.client, supported_protocol_bindings=[binding])
    return ClientFactory(config).create(card)


async def send(client: Client, request: a2a.SendMessageRequest) -> a2a.Task:
    answers = [answer async for answer in client.send_message(request)]
    return answers[-1].task


def answer_of(task: a2a.Task) -> str:
    return "".join(part.text for part in task.artifacts[-1].parts)


@pytest.mark.parametrize(("version", "binding"), FACES)
async def test_the_python_sdk_does_everything(tmp_path: Path, version: str, binding: str) -> None:
    async with whole_hub(tmp_path) as hub:
        client = await client_of(hub, version, binding, streaming=False)
        with anyio.fail_after(30):
            task = await send(client, say("echo hello"))
            assert task.status.state == a2a.TaskState.TASK_STATE_COMPLETED
            assert answer_of(task) == "hello"

            held = await send(client, say("hold", now=True))
            shown = await client.get_task(a2a.GetTaskRequest(id=held.id))
            assert shown.status.state in (a2a.TaskState.TASK_STATE_WORKING, a2a.TaskState.TASK_STATE_SUBMITTED)
            stopped = await client.cancel_task(a2a.CancelTaskRequest(id=held.id))
            assert stopped.status.state == a2a.TaskState.TASK_STATE_CANCELED

            asked = await send(client, say("ask"))
            assert asked.status.state == a2a.TaskState.TASK_STATE_INPUT_REQUIRED
            assert asked.status.message.parts[0].text == "Which colour?"
            done = await send(client, say("blue", task=asked))
            assert (done.id, answer_of(done)) == (asked.id, "blue")
            assert [said.parts[0].text for said in done.history] == ["ask", "Which colour?", "blue"]

            failed = await send(client, say("fail no ink"))
            assert failed.status.state == a2a.TaskState.TASK_STATE_FAILED
            assert "no ink" in failed.status.message.parts[0].text

            if (version, binding) != ("0.3", "HTTP+JSON"):  # which has no error codes
                with pytest.raises(TaskNotFoundError):
                    await client.get_task(a2a.GetTaskRequest(id="nope"))
                with pytest.raises(TaskNotCancelableError):
                    await client.cancel_task(a2a.CancelTaskRequest(id=held.id))

            streaming = await client_of(hub, version, binding, streaming=True)
            events = [event async for event in streaming.send_message(say("count 3"))]
            assert events[0].HasField("task")
            chunks = [event.artifact_update for event in events if event.HasField("artifact_update")]
            assert "".join(part.text for chunk in chunks[:3] for part in chunk.artifact.parts) == "0 1 2 "
            assert events[-1].status_update.status.state == a2a.TaskState.TASK_STATE_COMPLETED
            if version == "1.0":
                following = streaming.subscribe(a2a.SubscribeToTaskRequest(id=task.id))
                with pytest.raises(UnsupportedOperationError):
                    await anext(following)
