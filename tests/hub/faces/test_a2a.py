"""The hub as an A2A agent, asked over the wire of A2A 1.0 (JSON-RPC unless said otherwise)."""

from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import anyio
import httpx
import orjson
import pytest

from interhub.adapters import DataPart
from interhub.hub.supervisor.run import RunState
from tests.support.a2a_requests import requests_about
from tests.support.face_site import Site, face_site, free_socket, serving

pytestmark = pytest.mark.anyio

V1 = {"A2A-Version": "1.0"}


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    async with face_site() as opened:
        yield opened


def message(text: str, **more: Any) -> dict[str, Any]:
    return {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": [{"text": text}], **more}


async def rpc(
    site: Site, method: str, params: Any, *, path: str = "/a2a", key: str = "alice-key", version: str = "1.0"
) -> dict[str, Any]:
    headers = {"A2A-Version": version, "Authorization": f"Bearer {key}"}
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    with anyio.fail_after(5):
        answer = await site.client.post(path, json=body, headers=headers)
    assert answer.status_code == 200
    said: dict[str, Any] = answer.json()
    assert said["id"] == 7
    return said


async def send(site: Site, text: str, *, path: str = "/a2a", now: bool = False, **more: Any) -> dict[str, Any]:
    params = {"message": message(text, **more), "configuration": {"returnImmediately": now}}
    said = await rpc(site, "SendMessage", params, path=path)
    task: dict[str, Any] = said["result"]["task"]
    return task


async def stream(site: Site, method: str, params: Any, *, path: str = "/a2a") -> list[dict[str, Any]]:
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    with anyio.fail_after(5):
        answer = await site.client.post(path, json=body, headers=V1)
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [orjson.loads(line)["result"] for line in lines]


def error_of(said: dict[str, Any]) -> tuple[int, str]:
    return said["error"]["code"], said["error"]["data"][0]["reason"]


def texts(task: dict[str, Any]) -> dict[str, str]:
    return {made["artifactId"]: "".join(part.get("text", "") for part in made["parts"]) for made in task["artifacts"]}


# Messages


async def test_a_message_becomes_a_run_whose_answer_is_an_artifact(site: Site) -> None:
    task = await send(site, "echo hello")
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert texts(task) == {"answer": "hello"}
    assert task["history"][0]["parts"] == [{"text": "echo hello"}]
    assert (await site.hub.run(site.supervisor.assignments[0].principal, task["id"])).id == task["id"]


async def test_steps_of_a_task_say_who_did_what(site: Site) -> None:
    task = await send(site, "echo hello")
    (step,) = task["metadata"]["interhub/steps"]
    assert (step["path"], step["agentId"], step["state"]) == ("work", "twin", "completed")


async def test_the_same_message_twice_is_one_task(site: Site) -> None:
    said = message("echo once")
    first = await rpc(site, "SendMessage", {"message": said})
    again = await rpc(site, "SendMessage", {"message": said})
    assert first["result"]["task"]["id"] == again["result"]["task"]["id"]
    assert len(site.supervisor.assignments) == 1


async def test_one_message_to_two_agents_is_two_tasks(site: Site) -> None:
    said = message("echo both")
    first = await rpc(site, "SendMessage", {"message": said}, path="/agents/clerk/a2a")
    other = await rpc(site, "SendMessage", {"message": said}, path="/agents/tools/a2a")
    assert first["result"]["task"]["id"] != other["result"]["task"]["id"]


async def test_data_goes_there_and_back_with_whole_numbers_whole(site: Site) -> None:
    params = {"message": message("echo data")}
    params["message"]["parts"].append({"data": {"n": 5, "x": 2.5, "list": [1, None, True], "big": 2**60}})
    task = (await rpc(site, "SendMessage", params))["result"]["task"]
    assert task["artifacts"][0]["parts"][1]["data"]["n"] == 5
    received = site.supervisor.assignments[0].goal.parts[1]
    assert isinstance(received, DataPart)
    assert received.data == {"n": 5, "x": 2.5, "list": [1, None, True], "big": float(2**60)}
    assert isinstance(received.data, dict)
    assert isinstance(received.data["n"], int)


async def test_return_immediately_gives_the_task_as_it_stands(site: Site) -> None:
    task = await send(site, "hold", now=True)
    assert task["status"]["state"] in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")
    site.supervisor.release(task["id"])
    with anyio.fail_after(5):
        await site.hub.wait(site.supervisor.assignments[0].principal, task["id"])
    later = await rpc(site, "GetTask", {"id": task["id"]})
    assert later["result"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_failure_is_a_failed_task_that_says_why(site: Site) -> None:
    task = await send(site, "fail drawer is full")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert task["status"]["message"]["parts"] == [{"text": "drawer is full"}]
    assert task["status"]["message"]["metadata"]["interhub/reason"] == "AGENT_REFUSED"


async def test_a_context_is_kept_for_the_next_task(site: Site) -> None:
    first = await send(site, "echo one")
    second = await send(site, "echo two", contextId=first["contextId"])
    assert second["id"] != first["id"]
    assert second["contextId"] == first["contextId"]


# Questions


async def test_a_question_is_asked_and_its_answer_goes_on_with_the_task(site: Site) -> None:
    asked = await send(site, "ask")
    assert asked["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    question = asked["status"]["message"]
    assert question["parts"] == [{"text": "Which colour?"}]
    assert question["metadata"]["interhub/agent"] == "twin"
    assert question["metadata"]["interhub/schema"]["type"] == "object"
    done = await send(site, "blue", taskId=asked["id"])
    assert done["id"] == asked["id"]
    assert texts(done) == {"answer": "blue"}
    assert [said["parts"][0]["text"] for said in done["history"]] == ["ask", "Which colour?", "blue"]


async def test_an_answer_that_is_sent_again_is_taken_once(site: Site) -> None:
    asked = await send(site, "ask")
    said = message("blue", taskId=asked["id"])
    first = await rpc(site, "SendMessage", {"message": said})
    again = await rpc(site, "SendMessage", {"message": said})
    assert again["result"]["task"] == first["result"]["task"]
    assert first["result"]["task"]["history"][-1]["messageId"] == said["messageId"]


async def test_a_login_is_auth_required(site: Site) -> None:
    asked = await send(site, "login")
    assert asked["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"


async def test_a_question_may_be_declined(site: Site) -> None:
    asked = await send(site, "ask")
    done = await send(site, "no", taskId=asked["id"], metadata={"interhub/declined": True})
    assert texts(done) == {"answer": "no colour then"}


async def test_an_answer_to_another_question_is_refused(site: Site) -> None:
    asked = await send(site, "ask")
    params = {"message": message("x", taskId=asked["id"], metadata={"interhub/question": "other"})}
    said = await rpc(site, "SendMessage", params)
    assert error_of(said)[0] == -32602
    assert said["error"]["data"][0]["metadata"] == {"code": "QUESTION_NOT_FOUND"}


async def test_a_message_to_a_task_that_works_or_has_ended_is_refused(site: Site) -> None:
    working = await send(site, "hold", now=True)
    ended = await send(site, "echo x")
    for task in (working, ended):
        said = await rpc(site, "SendMessage", {"message": message("more", taskId=task["id"])})
        assert error_of(said) == (-32004, "UNSUPPORTED_OPERATION")
        assert "without taskId" in said["error"]["message"]


async def test_a_context_that_is_not_the_task_s_is_refused(site: Site) -> None:
    asked = await send(site, "ask")
    said = await rpc(site, "SendMessage", {"message": message("blue", taskId=asked["id"], contextId="other")})
    assert error_of(said) == (-32602, "INVALID_PARAMS")


# Whose task it is


@pytest.mark.parametrize("key", ["bob-key", "eve-key"])
async def test_another_s_task_is_not_found_in_the_same_words_as_none(site: Site, key: str) -> None:
    task = await send(site, "ask")
    for method in ("GetTask", "CancelTask", "SubscribeToTask"):
        others = await rpc(site, method, {"id": task["id"]}, key=key)
        none = await rpc(site, method, {"id": str(uuid4())}, key=key)
        assert error_of(others) == error_of(none) == (-32001, "TASK_NOT_FOUND")
        assert others["error"]["message"].replace(task["id"], "") == none["error"]["message"].replace(
            none["error"]["message"].split("'")[1], ""
        )
    said = await rpc(site, "SendMessage", {"message": message("blue", taskId=task["id"])}, key=key)
    assert error_of(said) == (-32001, "TASK_NOT_FOUND")
    assert (await rpc(site, "ListTasks", {}, key=key))["result"]["tasks"] == []


@pytest.mark.parametrize("key", ["bob-key", "eve-key"])
async def test_no_operation_over_any_binding_tells_another_s_task_from_none(site: Site, key: str) -> None:
    task, nobodys = (await send(site, "ask"))["id"], str(uuid4())
    hook = "https://example.com/hook"
    for theirs, none in zip(requests_about(task, hook), requests_about(nobodys, hook), strict=True):
        with anyio.fail_after(5):
            told = [await request.ask(site.client, key) for request in (theirs, none)]
        assert told[0].text.replace(task, "T") == told[1].text.replace(nobodys, "T"), theirs
        assert told[0].status_code == told[1].status_code, theirs


async def test_another_s_context_is_a_context_of_one_s_own(site: Site) -> None:
    task = await send(site, "echo hers")
    params = {"message": message("echo his", contextId=task["contextId"])}
    his = (await rpc(site, "SendMessage", params, key="bob-key"))["result"]["task"]
    listed = await rpc(site, "ListTasks", {"contextId": task["contextId"]}, key="bob-key")
    assert [each["id"] for each in listed["result"]["tasks"]] == [his["id"]]


async def test_a_task_of_one_agent_is_not_found_at_another(site: Site) -> None:
    task = await send(site, "echo x", path="/agents/clerk/a2a")
    assert "result" in await rpc(site, "GetTask", {"id": task["id"]}, path="/agents/clerk/a2a")
    assert "result" in await rpc(site, "GetTask", {"id": task["id"]})
    said = await rpc(site, "GetTask", {"id": task["id"]}, path="/agents/tools/a2a")
    assert error_of(said) == (-32001, "TASK_NOT_FOUND")


# Streams


async def test_a_stream_tells_the_task_its_progress_its_artifacts_and_its_end(site: Site) -> None:
    events = await stream(site, "SendStreamingMessage", {"message": message("count 3")})
    kinds = [next(iter(event)) for event in events]
    assert kinds[0] == "task"
    assert kinds[-1] == "statusUpdate"
    assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    chunks = [event["artifactUpdate"] for event in events if "artifactUpdate" in event]
    numbers = [chunk for chunk in chunks if chunk["artifact"]["artifactId"] == "numbers"]
    assert [chunk.get("append", False) for chunk in numbers] == [False, True, True]
    assert [chunk.get("lastChunk", False) for chunk in numbers] == [False, False, True]
    assert chunks[-1]["artifact"]["artifactId"] == "answer"
    progress = [event["statusUpdate"] for event in events if "statusUpdate" in event]
    said = next(each for each in progress if each.get("metadata", {}).get("interhub/event") == "step_progress")
    assert said["metadata"]["interhub/step"] == "work"
    assert said["metadata"]["interhub/agent"] == "twin"
    assert said["metadata"]["interhub/total"] == 3
    assert said["status"]["message"]["parts"] == [{"text": "work: counted 0"}]


async def test_a_stream_ends_with_the_question(site: Site) -> None:
    events = await stream(site, "SendStreamingMessage", {"message": message("ask")})
    last = events[-1]["statusUpdate"]["status"]
    assert last["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert last["message"]["parts"] == [{"text": "Which colour?"}]
    task_id = events[0]["task"]["id"]
    more = await stream(site, "SendStreamingMessage", {"message": message("red", taskId=task_id)})
    assert more[0]["task"]["id"] == task_id
    assert more[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_subscription_begins_with_the_task_and_goes_to_its_end(site: Site) -> None:
    task = await send(site, "hold", now=True)
    events: list[dict[str, Any]] = []

    async def follow() -> None:
        events.extend(await stream(site, "SubscribeToTask", {"id": task["id"]}))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        site.supervisor.release(task["id"])
    assert next(iter(events[0])) == "task"
    assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_there_is_nothing_to_subscribe_to_once_a_task_has_ended(site: Site) -> None:
    task = await send(site, "echo x")
    said = await rpc(site, "SubscribeToTask", {"id": task["id"]})
    assert error_of(said) == (-32004, "UNSUPPORTED_OPERATION")


async def test_a_client_that_hangs_up_leaves_the_run_alone(site: Site) -> None:
    listener, task_id = free_socket(), ""
    async with serving(site.app, listener) as url, httpx.AsyncClient(timeout=5) as client:
        headers = {**V1, "Authorization": "Bearer alice-key"}
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": {"message": message("hold")}}
        async with client.stream("POST", f"{url}/a2a", json=body, headers=headers) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    task_id = orjson.loads(line.removeprefix("data: "))["result"]["task"]["id"]
                    break
    run = await site.hub.run(site.supervisor.assignments[0].principal, task_id)
    assert run.state is RunState.WORKING


@pytest.mark.parametrize("path", ["/a2a", "/a2a/rest/message:send", "/api/runs"])
async def test_a_client_that_gives_up_waiting_leaves_no_waiter_behind(site: Site, path: str) -> None:
    said = message("hold")
    bodies = {
        "/a2a": {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": said}},
        "/a2a/rest/message:send": {"message": said},
        "/api/runs": {"goal": "hold", "wait_s": 60},
    }
    async with serving(site.app, free_socket()) as url:
        headers = {**V1, "Authorization": "Bearer alice-key"}
        async with httpx.AsyncClient(timeout=httpx.Timeout(5, read=0.3)) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post(url + path, json=bodies[path], headers=headers)
        with anyio.fail_after(5):
            await site.supervisor.nobody_waits()
    (assignment,) = site.supervisor.assignments
    (run,) = await site.hub.runs(assignment.principal)
    assert run.state is RunState.WORKING


# Tasks


async def test_cancel_stops_a_task_once(site: Site) -> None:
    task = await send(site, "hold", now=True)
    said = await rpc(site, "CancelTask", {"id": task["id"]})
    assert said["result"]["status"]["state"] == "TASK_STATE_CANCELED"
    again = await rpc(site, "CancelTask", {"id": task["id"]})
    assert error_of(again) == (-32002, "TASK_NOT_CANCELABLE")


@pytest.mark.parametrize(("asked", "kept"), [(None, 3), (0, 0), (1, 1), (10, 3)])
async def test_as_much_history_is_told_as_was_asked_for(site: Site, asked: int | None, kept: int) -> None:
    task = await send(site, "ask")
    await send(site, "blue", taskId=task["id"])
    params = {"id": task["id"]} if asked is None else {"id": task["id"], "historyLength": asked}
    history = (await rpc(site, "GetTask", params))["result"].get("history", [])
    assert len(history) == kept
    assert not history or history[-1]["parts"] == [{"text": "blue"}]


async def test_a_task_and_its_history_are_told_without_reading_all_that_happened(site: Site) -> None:
    task = await send(site, "count 500")
    for version in ("1.0", "1.0.0"):  # past the SDK, and through it
        shown = (await rpc(site, "GetTask", {"id": task["id"]}, version=version))["result"]
        assert [said["parts"] for said in shown["history"]] == [[{"text": "count 500"}]]
    assert site.supervisor.read == 0


async def test_a_negative_history_is_refused(site: Site) -> None:
    task = await send(site, "echo x")
    said = await rpc(site, "GetTask", {"id": task["id"], "historyLength": -1})
    assert error_of(said) == (-32602, "INVALID_PARAMS")


async def test_tasks_are_listed_newest_first_a_page_at_a_time(site: Site) -> None:
    made = [(await send(site, f"echo {n}"))["id"] for n in range(5)]
    seen: list[str] = []
    token = ""
    while True:
        page = (await rpc(site, "ListTasks", {"pageSize": 2, "pageToken": token}))["result"]
        assert page["totalSize"] == 5
        seen += [task["id"] for task in page["tasks"]]
        assert all("artifacts" not in task for task in page["tasks"])
        token = page["nextPageToken"]
        if not token:
            break
    assert seen == made[::-1]


async def test_tasks_are_listed_by_context_state_time_and_agent(site: Site) -> None:
    first = await send(site, "echo 1")
    asks = await send(site, "ask", contextId=first["contextId"])
    scoped = await send(site, "echo 3", path="/agents/clerk/a2a")

    async def ids(params: dict[str, Any], path: str = "/a2a") -> list[str]:
        page = (await rpc(site, "ListTasks", params, path=path))["result"]
        return [task["id"] for task in page["tasks"]]

    assert await ids({"contextId": first["contextId"]}) == [asks["id"], first["id"]]
    assert await ids({"status": "TASK_STATE_INPUT_REQUIRED"}) == [asks["id"]]
    assert await ids({"statusTimestampAfter": asks["status"]["timestamp"]}) == [scoped["id"], asks["id"]]
    assert await ids({}, path="/agents/clerk/a2a") == [scoped["id"]]
    page = (await rpc(site, "ListTasks", {"includeArtifacts": True, "contextId": first["contextId"]}))["result"]
    assert texts(page["tasks"][1]) == {"answer": "1"}


@pytest.mark.parametrize("params", [{"pageSize": 0}, {"pageSize": 101}, {"pageToken": "???"}, {"pageToken": "eA=="}])
async def test_an_impossible_page_is_refused(site: Site, params: dict[str, Any]) -> None:
    assert error_of(await rpc(site, "ListTasks", params)) == (-32602, "INVALID_PARAMS")


async def test_push_is_refused_as_the_card_says(site: Site) -> None:
    task = await send(site, "echo x")
    config = {"taskId": task["id"], "url": "https://example.com/hook"}
    for method, params in (
        ("CreateTaskPushNotificationConfig", config),
        ("GetTaskPushNotificationConfig", {"taskId": task["id"], "id": "1"}),
        ("ListTaskPushNotificationConfigs", {"taskId": task["id"]}),
        ("DeleteTaskPushNotificationConfig", {"taskId": task["id"], "id": "1"}),
    ):
        said = await rpc(site, method, params)
        assert error_of(said) == (-32003, "PUSH_NOTIFICATION_NOT_SUPPORTED")
    params = {"message": message("echo"), "configuration": {"taskPushNotificationConfig": config}}
    assert error_of(await rpc(site, "SendMessage", params))[0] == -32003


# Whom it is for


async def test_a_message_names_its_agent_skill_or_workflow(site: Site) -> None:
    document: dict[str, Any] = {"name": "w", "steps": []}
    wishes: list[dict[str, Any]] = [
        {"interhub/agent": "clerk"},
        {"interhub/skill": "clerk"},
        {"skillId": "clerk"},
        {"interhub/agent": "tools", "interhub/capability": "add"},
        {"interhub/agent": "tools", "interhub/skill": "add"},
        {"interhub/workflow": "clerk"},
        {"interhub/workflow": document, "interhub/inputs": {"a": 1}},
        {"interhub/skill": "delegate", "interhub/members": ["clerk"]},
    ]
    for metadata in wishes:
        await send(site, "echo x", metadata=metadata)
    chosen = [(each.agent_id, each.capability) for each in site.supervisor.assignments]
    assert chosen == [
        ("clerk", ""),
        ("clerk", ""),
        ("clerk", ""),
        ("tools", "add"),
        ("tools", "add"),
        ("clerk", ""),
        ("", ""),
        ("", ""),
    ]
    assert site.supervisor.assignments[6].workflow == document
    assert site.supervisor.assignments[6].inputs == {"a": 1}
    assert site.supervisor.assignments[7].members == ("clerk",)


async def test_the_request_s_metadata_counts_as_the_message_s(site: Site) -> None:
    await rpc(site, "SendMessage", {"message": message("echo x"), "metadata": {"interhub/agent": "clerk"}})
    assert site.supervisor.assignments[0].agent_id == "clerk"


async def test_a_tool_takes_the_message_s_data_as_its_arguments(site: Site) -> None:
    said = message("echo x", metadata={"interhub/skill": "add"})
    said["parts"] = [{"data": {"a": 1, "b": 3}}]
    await rpc(site, "SendMessage", {"message": said}, path="/agents/tools/a2a")
    assignment = site.supervisor.assignments[0]
    assert (assignment.agent_id, assignment.capability) == ("tools", "add")
    assert assignment.arguments == {"a": 1, "b": 3}


async def test_every_skill_of_the_hub_s_card_can_be_asked_for(site: Site) -> None:
    card = (await site.client.get("/.well-known/agent-card.json", headers=V1)).json()
    assert [skill["id"] for skill in card["skills"]] == ["delegate", "clerk", "tools"]
    for skill in card["skills"]:
        task = await send(site, "echo x", metadata={"interhub/skill": skill["id"]})
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize(
    ("metadata", "code", "said"),
    [
        ({"interhub/agent": "clark"}, "AGENT_NOT_FOUND", "did you mean clerk"),
        ({"interhub/agent": "tools", "interhub/capability": "ad"}, "CAPABILITY_NOT_FOUND", "did you mean add"),
        ({"interhub/agnet": "clerk"}, "", "did you mean 'interhub/agent'"),
        ({"interhub/agent": 5}, "", "must be text"),
        ({"interhub/capability": "add"}, "", "without interhub/agent"),
        ({"interhub/agent": "tools", "interhub/workflow": "clerk"}, "", "two agents"),
        ({"interhub/workflow": {"name": "x"}}, "PLAN_INVALID", "steps: is missing"),
    ],
)
async def test_a_wish_that_cannot_be_met_is_refused_with_a_remedy(
    site: Site, metadata: dict[str, Any], code: str, said: str
) -> None:
    answer = await rpc(site, "SendMessage", {"message": message("echo x", metadata=metadata)})
    assert error_of(answer) == (-32602, "INVALID_PARAMS")
    assert answer["error"]["data"][0]["metadata"].get("code", "") == code
    assert said in answer["error"]["message"]
    assert site.supervisor.assignments == []


async def test_an_agent_s_own_address_takes_no_messages_for_others(site: Site) -> None:
    params = {"message": message("echo x", metadata={"interhub/agent": "tools"})}
    assert error_of(await rpc(site, "SendMessage", params, path="/agents/clerk/a2a")) == (-32602, "INVALID_PARAMS")
    said = await rpc(site, "SendMessage", {"message": message("x")}, path="/agents/nobody/a2a")
    assert said["error"]["data"][0]["metadata"]["code"] == "AGENT_NOT_FOUND"


# The wire


@pytest.mark.parametrize("uri", ["x\r\nX-Injected: yes", "https://ex/ü", "https://one, https://two", "", "x" * 600])
async def test_an_extension_that_no_header_can_name_is_refused_over_every_binding(site: Site, uri: str) -> None:
    for path in ("/a2a", "/agents/clerk/a2a"):
        new = {"message": message("hello", extensions=[uri])}
        assert error_of(await rpc(site, "SendMessage", new, path=path)) == (-32602, "INVALID_PARAMS")
        rest = await site.client.post(f"{path}/rest/message:send", json=new, headers=V1)
        assert (rest.status_code, rest.json()["error"]["details"][0]["reason"]) == (400, "INVALID_PARAMS")
    assert (await old(site, "message/send", old_message("hello", extensions=[uri])))["error"]["code"] == -32602
    shaped = {"messageId": "m", "role": "ROLE_USER", "content": [{"text": "hello"}], "extensions": [uri]}
    rest_03 = await site.client.post("/a2a/rest/v1/message:send", json={"message": shaped})
    assert (rest_03.status_code, "in extensions" in rest_03.text) == (400, True)
    given = {"parts": [{"text": "hello"}], "extensions": [uri]}
    run = await site.client.post("/api/runs", json={"message": given})
    call = await site.client.post("/api/agents/clerk/call", json={"message": given})
    assert (run.status_code, call.status_code) == (400, 400)
    assert site.supervisor.assignments == []
    assert site.clerk.calls == []


async def test_the_address_answers_with_and_without_a_slash(site: Site) -> None:
    for path in ("/a2a", "/a2a/", "/agents/clerk/a2a", "/agents/clerk/a2a/"):
        assert "result" in await rpc(site, "ListTasks", {}, path=path)


@pytest.mark.parametrize("version", ["2.0", "1.7", "0.2", "banana", "1.0.0.0"])
async def test_a_version_that_is_not_spoken_is_refused(site: Site, version: str) -> None:
    assert error_of(await rpc(site, "ListTasks", {}, version=version)) == (-32009, "VERSION_NOT_SUPPORTED")
    answer = await site.client.get("/a2a/rest/tasks", headers={"A2A-Version": version})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["reason"] == "VERSION_NOT_SUPPORTED"


async def test_the_version_may_stand_in_the_query_and_none_is_0_3(site: Site) -> None:
    assert (await site.client.get("/a2a/rest/tasks?A2A-Version=1.0")).status_code == 200
    assert (await site.client.get("/a2a/rest/tasks")).status_code == 400
    assert "result" in await rpc(site, "ListTasks", {}, version="1.0.1")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"[]", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"Nothing"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":[1]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"parts":"x"}}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{}}', -32602),
        (b"\xff\xfe\x00", -32700),
        (b"[" * 100_000, -32700),
        (b"", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":NaN}}', -32700),
    ],
)
async def test_what_is_malformed_gets_an_error_and_the_hub_goes_on(site: Site, body: bytes, code: int) -> None:
    answer = await site.client.post("/a2a", content=body, headers=V1)
    assert answer.json()["error"]["code"] == code
    assert "Traceback" not in answer.text
    assert "result" in await rpc(site, "ListTasks", {})


async def test_rest_answers_with_http_statuses_and_error_details(site: Site) -> None:
    sent = await site.client.post("/a2a/rest/message:send", json={"message": message("echo hi")}, headers=V1)
    assert sent.headers["content-type"] == "application/a2a+json"
    task = sent.json()["task"]
    assert texts(task) == {"answer": "hi"}
    shown = await site.client.get(f"/a2a/rest/tasks/{task['id']}?historyLength=0", headers=V1)
    assert "history" not in shown.json()
    missing = await site.client.get("/a2a/rest/tasks/nope", headers=V1)
    assert missing.status_code == 404
    assert missing.json()["error"]["details"][0]["reason"] == "TASK_NOT_FOUND"
    again = await site.client.post(f"/a2a/rest/tasks/{task['id']}:cancel", headers=V1)
    assert (again.status_code, again.json()["error"]["details"][0]["reason"]) == (400, "TASK_NOT_CANCELABLE")
    malformed = await site.client.post("/a2a/rest/message:send", content=b"{", headers=V1)
    assert malformed.status_code == 400
    assert (await site.client.get("/a2a/rest/tasks/x/y/z", headers=V1)).status_code == 404


async def test_rest_streams_to_the_end(site: Site) -> None:
    sent = await site.client.post("/a2a/rest/message:stream", json={"message": message("count 2")}, headers=V1)
    events = [orjson.loads(line[6:]) for line in sent.text.splitlines() if line.startswith("data: ")]
    assert "task" in events[0]
    assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_foreign_tenant_is_refused(site: Site) -> None:
    assert error_of(await rpc(site, "ListTasks", {"tenant": "elsewhere"})) == (-32602, "INVALID_PARAMS")


# Version 0.3


async def old(site: Site, method: str, params: Any) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    answer: dict[str, Any] = (await site.client.post("/a2a", json=body)).json()
    return answer


def old_message(text: str, **more: Any) -> dict[str, Any]:
    parts = [{"kind": "text", "text": text}]
    return {"message": {"kind": "message", "messageId": str(uuid4()), "role": "user", "parts": parts, **more}}


async def test_0_3_sends_asks_answers_and_cancels(site: Site) -> None:
    done = (await old(site, "message/send", {**old_message("echo hi"), "configuration": {"blocking": True}}))["result"]
    assert (done["kind"], done["status"]["state"]) == ("task", "completed")
    assert done["artifacts"][0]["parts"] == [{"kind": "text", "text": "hi"}]
    asked = (await old(site, "message/send", {**old_message("ask"), "configuration": {"blocking": True}}))["result"]
    assert asked["status"]["state"] == "input-required"
    follow = {**old_message("blue", taskId=asked["id"]), "configuration": {"blocking": True}}
    assert (await old(site, "message/send", follow))["result"]["status"]["state"] == "completed"
    held = (await old(site, "message/send", {**old_message("hold"), "configuration": {"blocking": False}}))["result"]
    assert (await old(site, "tasks/cancel", {"id": held["id"]}))["result"]["status"]["state"] == "canceled"
    assert (await old(site, "tasks/get", {"id": "nope"}))["error"]["code"] == -32001


async def test_0_3_over_rest_says_errors_with_its_codes_and_streams_that_cannot_begin_too(site: Site) -> None:
    ended = await send(site, "echo x")
    cases = [
        ("GET", "/a2a/rest/v1/tasks/nope", 404, -32001),
        ("POST", f"/a2a/rest/v1/tasks/{ended['id']}:cancel", 400, -32002),
        ("POST", "/a2a/rest/v1/tasks/nope:subscribe", 404, -32001),
        ("POST", f"/a2a/rest/v1/tasks/{ended['id']}:subscribe", 400, -32004),
    ]
    for method, path, status, code in cases:
        answer = await site.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
    for content in (b"{", b'{"message": 5}', b"{}"):
        answer = await site.client.post("/a2a/rest/v1/message:send", content=content)
        assert answer.status_code == 400
        assert answer.json()["code"] in (-32600, -32602)


async def test_0_3_over_rest_streams(site: Site) -> None:
    body = {"message": {"messageId": "m1", "role": "ROLE_USER", "content": [{"text": "count 2"}]}}
    answer = await site.client.post("/a2a/rest/v1/message:stream", json=body)
    events = [orjson.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert "task" in events[0]
    assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert events[-1]["statusUpdate"]["final"] is True
