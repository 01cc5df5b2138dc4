"""Pushes of a whole hub: to whom, in which version, in which order, after failures and after a kill."""

import os
import signal
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest

from interhub.hub.settings import Auth, Egress, Push
from tests.support.a2a_requests import requests_about
from tests.support.face_site import free_socket
from tests.support.hub_process import Cli, cli, end, hub_process, wait_until_ready
from tests.support.webhook import Webhook, webhook
from tests.support.whole_hub import CLERK, WholeHub, whole_hub

pytestmark = pytest.mark.anyio

LOOPBACK = Egress(allowed_networks=("127.0.0.0/8",))
OTHER_KEY = "ih_somebody-elses-key-of-this-hub"
OTHER = Auth(key_hashes=(sha256(OTHER_KEY.encode()).hexdigest(),))
SECRET = "a-token-nobody-else-may-see"
DONE = {"1.0": "TASK_STATE_COMPLETED", "0.3": "completed"}


@asynccontextmanager
async def pushing_hub(folder: Path, **push: Any) -> AsyncGenerator[WholeHub]:
    sections = {"egress": LOOPBACK, "push": Push(**push)}
    async with whole_hub(folder, auth=OTHER, settings=sections) as hub:
        yield hub


async def rpc(hub: WholeHub, method: str, params: Any, *, version: str = "1.0", key: str = "") -> dict[str, Any]:
    headers = {"A2A-Version": version, **({"Authorization": f"Bearer {key}"} if key else {})}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer: dict[str, Any] = (await hub.client.post("/a2a", json=body, headers=headers)).json()
    return answer


def said(text: str, version: str = "1.0", **config: Any) -> dict[str, Any]:
    """Return the parameters of a message to the clerk."""
    new = version == "1.0"
    part = {"text": text} if new else {"kind": "text", "text": text}
    message: dict[str, Any] = {
        "messageId": str(uuid4()),
        "role": "ROLE_USER" if new else "user",
        "parts": [part],
        "metadata": {"interhub/agent": "clerk"},
    }
    if not new:
        message["kind"] = "message"
    return {"message": message, "configuration": config}


async def task_of(hub: WholeHub, text: str, version: str = "1.0", **config: Any) -> str:
    """Begin a task and return its id; the answer does not wait for its end."""
    if version == "1.0":
        sent = await rpc(hub, "SendMessage", said(text, returnImmediately=True, **config))
        return str(sent["result"]["task"]["id"])
    sent = await rpc(hub, "message/send", said(text, version, blocking=False, **config), version=version)
    return str(sent["result"]["id"])


def _not_reached(error: str) -> bool:
    return "no connection" in error


def _fits(found: object, wanted: object) -> bool:
    return bool(wanted(found)) if callable(wanted) else found == wanted


async def seen(hub: WholeHub, task: str, **wanted: object) -> dict[str, Any]:
    """Return the task's webhook once it is as wanted."""
    with anyio.fail_after(20):
        while True:
            found: list[dict[str, Any]] = (await hub.client.get(f"/api/runs/{task}/pushes")).json()["pushes"]
            if found and all(_fits(found[0][name], value) for name, value in wanted.items()):
                return found[0]
            await anyio.sleep(0.02)  # the hub tells nobody how a webhook stands, it is asked


async def test_a_webhook_named_with_the_message_is_told_all_of_it_in_order_and_signed(tmp_path: Path) -> None:
    async with pushing_hub(tmp_path) as hub, webhook() as hook:
        config = {
            "url": hook.url,
            "token": SECRET,
            "authentication": {"scheme": "Bearer", "credentials": "my-credentials"},
        }
        task = await task_of(hub, "count 3", taskPushNotificationConfig=config)
        received = await hook.until(DONE["1.0"])
        keys = (await hub.client.get("/.well-known/jwks.json")).json()
    assert set(received[0].document) == {"task"}
    for each in received:
        assert len(each.document) == 1, "one of task, statusUpdate, artifactUpdate"
        (told,) = each.document.values()
        assert told.get("taskId", told.get("id")) == task
        assert each.headers["content-type"] == "application/a2a+json"
        assert each.headers["x-a2a-notification-token"] == SECRET
        assert each.headers["authorization"] == "Bearer my-credentials"
        header = each.verify(keys)
        assert header["jku"] == f"{hub.url}/.well-known/jwks.json"
        assert header["jti"] == each.headers["x-interhub-delivery"]
    numbers = [int(each.headers["x-interhub-delivery"].split(".")[1]) for each in received]
    assert numbers == sorted(numbers)


async def test_a_webhook_of_0_3_is_told_the_bare_task(tmp_path: Path) -> None:
    async with pushing_hub(tmp_path) as hub, webhook() as hook:
        await task_of(hub, "count 3", "0.3", pushNotificationConfig={"url": hook.url, "token": SECRET})
        received = await hook.until(DONE["0.3"])
    for each in received:
        assert each.document["kind"] == "task"
        assert each.headers["content-type"] == "application/json"
        assert each.headers["x-a2a-notification-token"] == SECRET
    last = received[-1].document
    assert [part["text"] for made in last["artifacts"] for part in made["parts"]]


async def test_a_question_and_what_follows_its_answer_are_pushed(tmp_path: Path) -> None:
    async with pushing_hub(tmp_path) as hub, webhook() as hook:
        task = await task_of(hub, "ask", taskPushNotificationConfig={"url": hook.url})
        asked = (await hook.until("TASK_STATE_INPUT_REQUIRED"))[-1].document
        (told,) = asked.values()
        assert told["status"]["message"]["parts"][0]["text"] == "Which colour?"
        answer = said("blue")
        answer["message"]["taskId"] = task
        await rpc(hub, "SendMessage", answer)
        await hook.until(DONE["1.0"])
        await seen(hub, task, state="done")


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_configurations_are_kept_listed_and_deleted_over_json_rpc_and_show_no_secret(
    tmp_path: Path, version: str
) -> None:
    old = version == "0.3"
    prefix = "tasks/pushNotificationConfig/"
    verbs = {
        "create": f"{prefix}set" if old else "CreateTaskPushNotificationConfig",
        "get": f"{prefix}get" if old else "GetTaskPushNotificationConfig",
        "list": f"{prefix}list" if old else "ListTaskPushNotificationConfigs",
        "delete": f"{prefix}delete" if old else "DeleteTaskPushNotificationConfig",
    }
    authentication = {"schemes": ["Bearer"]} if old else {"scheme": "Bearer"}
    async with pushing_hub(tmp_path) as hub, webhook() as hook:
        task = await task_of(hub, "hold", version)
        inner = {"url": hook.url, "token": SECRET, "authentication": {**authentication, "credentials": SECRET}}

        def named(config_id: str) -> dict[str, Any]:
            return {"id": task, "pushNotificationConfigId": config_id} if old else {"taskId": task, "id": config_id}

        async def ask(verb: str, params: Any, key: str = "") -> dict[str, Any]:
            answer = await rpc(hub, verbs[verb], params, version=version, key=key)
            assert SECRET not in str(answer)
            return answer

        for config_id in ("first", "second"):
            config = {**inner, "id": config_id}
            body = {"taskId": task, "pushNotificationConfig": config} if old else {"taskId": task, **config}
            assert "error" not in await ask("create", body)
        assert hook.url in str((await ask("get", named("second")))["result"])
        of_task = {"id": task} if old else {"taskId": task}
        assert str(await ask("list", of_task)).count(hook.url) == 2
        nothing = {"id": "no-such-task"} if old else {"taskId": "no-such-task"}
        expected = (await ask("list", nothing))["error"]
        theirs = (await ask("list", of_task, key=OTHER_KEY))["error"]
        assert (theirs["code"], theirs["message"].replace(task, "T")) == (
            expected["code"],
            expected["message"].replace("no-such-task", "T"),
        )
        for verb in ("get", "delete"):
            assert (await ask(verb, named("first"), key=OTHER_KEY))["error"]["code"] == -32001
        assert "error" not in await ask("delete", named("first"))
        assert (await ask("get", named("first")))["error"]["code"] == -32001
        assert str(await ask("list", of_task)).count(hook.url) == 1
    assert SECRET.encode() not in stored_in(tmp_path)
    assert (tmp_path / "vault.key").stat().st_mode & 0o077 == 0


def stored_in(folder: Path) -> bytes:
    """Return all that the database has written."""
    return b"".join(file.read_bytes() for file in folder.glob("interhub.db*"))


async def test_no_operation_tells_another_principal_s_task_from_none(tmp_path: Path) -> None:
    async with pushing_hub(tmp_path) as hub, webhook() as hook:
        task = await task_of(hub, "ask")
        made = {"taskId": task, "id": "c", "url": hook.url}
        assert "error" not in await rpc(hub, "CreateTaskPushNotificationConfig", made)
        nobodys = str(uuid4())
        for theirs, none in zip(requests_about(task, hook.url), requests_about(nobodys, hook.url), strict=True):
            told = [await request.ask(hub.client, OTHER_KEY) for request in (theirs, none)]
            assert told[0].text.replace(task, "T") == told[1].text.replace(nobodys, "T"), theirs
            assert told[0].status_code == told[1].status_code == (200 if theirs.path == "/a2a" else 404), theirs
            assert "-32001" in told[0].text or "NOT_FOUND" in told[0].text or "NotFound" in told[0].text, theirs
        still = (await rpc(hub, "GetTask", {"id": task}))["result"]
        assert still["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_configurations_are_kept_listed_and_deleted_over_rest(tmp_path: Path, version: str) -> None:
    old = version == "0.3"
    async with pushing_hub(tmp_path) as hub, webhook() as hook:
        task = await task_of(hub, "hold", version)
        base = f"/a2a/rest{'/v1' if old else ''}/tasks/{task}/pushNotificationConfigs"
        headers = {"A2A-Version": version}
        config: dict[str, Any] = {"id": "mine", "url": hook.url, "token": SECRET}
        if old:
            config["authentication"] = {"schemes": ["Bearer"], "credentials": SECRET}
        body = {"config": {"pushNotificationConfig": config}, "configId": "mine"} if old else config
        made = await hub.client.post(base, json=body, headers=headers)
        assert made.is_success, made.text
        assert hook.url in (await hub.client.get(f"{base}/mine", headers=headers)).text
        listed = await hub.client.get(base, headers=headers)
        assert hook.url in listed.text
        assert SECRET not in made.text + listed.text
        theirs = await hub.client.get(base, headers={**headers, "Authorization": f"Bearer {OTHER_KEY}"})
        assert theirs.status_code == 404
        assert (await hub.client.delete(f"{base}/mine", headers=headers)).is_success
        assert hook.url not in (await hub.client.get(base, headers=headers)).text


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/", "an address of the hub's own machine"),
        ("http://localhost:9/", "an address of the hub's own machine"),
        ("http://2130706433/", "an address of the hub's own machine"),
        ("https://[::ffff:10.0.0.1]/", "a private address"),
        ("https://169.254.169.254/latest/meta-data", "link-local"),
        ("http://8.8.8.8/hook", "not encrypted"),
        ("ftp://example.com/", "http or https"),
        ("https://user:secret@example.com/", "user and password"),
        ("", "Validation failed"),
    ],
)
async def test_a_webhook_that_the_hub_may_not_connect_to_is_refused_before_anything_begins(
    tmp_path: Path, url: str, why: str
) -> None:
    async with whole_hub(tmp_path) as hub:
        refused = await rpc(hub, "SendMessage", said("echo hi", taskPushNotificationConfig={"url": url}))
        assert refused["error"]["code"] == -32602, refused
        assert why in refused["error"]["message"]
        assert (await hub.client.get("/api/runs")).json()["runs"] == []


async def test_a_task_takes_ten_webhooks_and_no_more(tmp_path: Path) -> None:
    async with pushing_hub(tmp_path) as hub, webhook() as hook:
        task = await task_of(hub, "hold")
        for n in range(10):
            params = {"taskId": task, "id": f"hook-{n}", "url": hook.url}
            assert "result" in await rpc(hub, "CreateTaskPushNotificationConfig", params)
        again = {"taskId": task, "id": "hook-3", "url": f"{hook.url}/moved"}
        assert "result" in await rpc(hub, "CreateTaskPushNotificationConfig", again)
        more = {"taskId": task, "id": "hook-10", "url": hook.url}
        assert "10 push" in (await rpc(hub, "CreateTaskPushNotificationConfig", more))["error"]["message"]
        first = (await rpc(hub, "ListTaskPushNotificationConfigs", {"taskId": task, "pageSize": 6}))["result"]
        token = first["nextPageToken"]
        rest = await rpc(hub, "ListTaskPushNotificationConfigs", {"taskId": task, "pageSize": 6, "pageToken": token})
        assert [len(first["configs"]), len(rest["result"]["configs"])] == [6, 4]


async def test_what_is_not_taken_is_sent_again_and_nothing_overtakes_it(tmp_path: Path) -> None:
    async with pushing_hub(tmp_path) as hub, webhook() as hook:
        hook.answers.append(503)
        await task_of(hub, "echo hi", taskPushNotificationConfig={"url": hook.url})
        await hook.count(2)
        received = await hook.until(DONE["1.0"])
    assert received[0].headers["x-interhub-delivery"] == received[1].headers["x-interhub-delivery"]
    assert received[0].body == received[1].body


async def test_a_webhook_that_fails_too_often_is_given_up_and_that_is_seen(tmp_path: Path) -> None:
    async with pushing_hub(tmp_path, attempts=2) as hub, webhook() as hook:
        hook.answers += [500, 302]
        task = await task_of(hub, "echo hi", taskPushNotificationConfig={"url": hook.url, "id": "bad"})
        await hook.count(2)
        given = await seen(hub, task, state="given_up")
    assert "302" in given["last_error"]
    assert given["tries"] == 2
    database = sqlite3.connect(tmp_path / "interhub.db")
    noted = database.execute("SELECT target, detail FROM audit WHERE action = 'push_give_up'").fetchall()
    database.close()
    assert noted[0][0] == task
    assert "bad" in noted[0][1]


async def test_one_that_says_it_is_gone_is_not_asked_again(tmp_path: Path) -> None:
    async with pushing_hub(tmp_path) as hub, webhook() as hook:
        hook.answers.append(410)
        task = await task_of(hub, "echo hi", taskPushNotificationConfig={"url": hook.url})
        await seen(hub, task, state="given_up")
        assert len(hook.received) == 1


async def test_a_task_does_not_wait_for_a_webhook_that_never_answers(tmp_path: Path) -> None:
    async with pushing_hub(tmp_path) as hub, webhook(held=True) as hook:
        sent = await rpc(hub, "SendMessage", said("echo hi", taskPushNotificationConfig={"url": hook.url}))
        assert sent["result"]["task"]["status"]["state"] == DONE["1.0"]
        hook.open.set()
        await hook.until(DONE["1.0"])


async def test_a_task_that_has_ended_is_told_as_it_ended(tmp_path: Path) -> None:
    async with pushing_hub(tmp_path) as hub, webhook() as hook:
        sent = await rpc(hub, "SendMessage", said("echo hi"))
        task = sent["result"]["task"]["id"]
        await rpc(hub, "CreateTaskPushNotificationConfig", {"taskId": task, "url": hook.url})
        (only,) = await hook.count(1)
    assert only.document["task"]["status"]["state"] == DONE["1.0"]


async def test_a_hub_that_does_not_push_says_so(tmp_path: Path) -> None:
    async with pushing_hub(tmp_path, enabled=False) as hub:
        card = (await hub.client.get("/.well-known/agent-card.json", headers={"A2A-Version": "1.0"})).json()
        assert card["capabilities"]["pushNotifications"] is False
        refused = await rpc(hub, "SendMessage", said("hi", taskPushNotificationConfig={"url": "https://example.com"}))
    assert refused["error"]["code"] == -32003


async def test_pushes_that_were_outstanding_when_the_hub_was_killed_arrive_after_its_restart(tmp_path: Path) -> None:
    command: Cli = cli(tmp_path, {"INTERHUB_EGRESS__ALLOWED_NETWORKS": "127.0.0.0/8"})
    listener = free_socket()  # bound, and nobody listens: every attempt fails
    host, port = listener.getsockname()
    url = f"http://{host}:{port}/hook"
    tasks: list[str] = []
    with hub_process(command) as hub:
        async with httpx.AsyncClient(
            base_url=hub.url, headers={"Authorization": f"Bearer {hub.key}"}, timeout=60
        ) as client:
            whole = WholeHub(url=hub.url, key=hub.key, client=client)
            body = {
                "kind": "endpoint",
                "adapter": "local",
                "id": "clerk",
                "endpoint": {"binding": "LOCAL", "options": {"target": f"{CLERK}:clerk"}},
            }
            assert (await client.post("/api/agents", json=body)).status_code == 201
            for n in range(5):
                config = {"url": f"{url}/{n}", "token": f"token-{n}"}
                tasks.append(await task_of(whole, "count 2", taskPushNotificationConfig=config))
            for task in tasks:
                await client.get(f"/api/runs/{task}", params={"wait_s": 20})
                await seen(whole, task, last_error=_not_reached)
        os.kill(hub.pid, signal.SIGKILL)
        await anyio.to_thread.run_sync(lambda: hub.process.wait(10))
    again = command.start("serve", "--port", "0")
    try:
        await anyio.to_thread.run_sync(wait_until_ready, command, again)
        async with webhook(listener) as hook:
            await ended_for(hook, len(tasks))
            by_path = {each.path: each for each in hook.received}
    finally:
        end(again)
    assert {each.document["task"]["id"] for each in by_path.values()} == set(tasks)
    for n in range(5):
        assert by_path[f"/hook/{n}"].headers["x-a2a-notification-token"] == f"token-{n}"


async def ended_for(hook: Webhook, number: int) -> None:
    """Wait until so many webhooks were told that their task is completed."""
    with anyio.fail_after(60):
        while len({each.path for each in hook.received if each.state == DONE["1.0"]}) < number:
            await hook.came.wait()
