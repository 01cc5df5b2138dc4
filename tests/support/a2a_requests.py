"""Every request of A2A that names a task, over the bindings of HTTP and in both versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True, kw_only=True)
class TaskRequest:
    """One request about a task."""

    name: str
    version: str
    method: str = "POST"
    path: str = "/a2a"
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    async def ask(self, client: httpx.AsyncClient, key: str) -> httpx.Response:
        """Ask on behalf of a key."""
        headers = {**self.headers, "A2A-Version": self.version, "Authorization": f"Bearer {key}"}
        return await client.request(self.method, self.path, json=self.body, headers=headers)


def requests_about(task_id: str, hook: str) -> list[TaskRequest]:
    """Return them all; `hook` is the address of a webhook."""
    return [*_rpc(task_id, hook), *_rpc_03(task_id, hook), *_rest(task_id, hook), *_rest_03(task_id, hook)]


def _rpc(task_id: str, hook: str) -> list[TaskRequest]:
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "blue"}], "taskId": task_id}
    methods: dict[str, Any] = {
        "SendMessage": {"message": message},
        "SendStreamingMessage": {"message": message},
        "GetTask": {"id": task_id},
        "CancelTask": {"id": task_id},
        "SubscribeToTask": {"id": task_id},
        "CreateTaskPushNotificationConfig": {"taskId": task_id, "id": "c", "url": hook},
        "GetTaskPushNotificationConfig": {"taskId": task_id, "id": "c"},
        "ListTaskPushNotificationConfigs": {"taskId": task_id},
        "DeleteTaskPushNotificationConfig": {"taskId": task_id, "id": "c"},
    }
    return [_call(name, params, "1.0") for name, params in methods.items()]


def _rpc_03(task_id: str, hook: str) -> list[TaskRequest]:
    parts = [{"kind": "text", "text": "blue"}]
    message = {"kind": "message", "messageId": "m", "role": "user", "parts": parts, "taskId": task_id}
    named = {"id": task_id, "pushNotificationConfigId": "c"}
    config = {"taskId": task_id, "pushNotificationConfig": {"id": "c", "url": hook}}
    methods: dict[str, Any] = {
        "message/send": {"message": message},
        "message/stream": {"message": message},
        "tasks/get": {"id": task_id},
        "tasks/cancel": {"id": task_id},
        "tasks/resubscribe": {"id": task_id},
        "tasks/pushNotificationConfig/set": config,
        "tasks/pushNotificationConfig/get": named,
        "tasks/pushNotificationConfig/list": {"id": task_id},
        "tasks/pushNotificationConfig/delete": named,
    }
    return [_call(name, params, "0.3") for name, params in methods.items()]


def _call(name: str, params: Any, version: str) -> TaskRequest:
    return TaskRequest(name=name, version=version, body={"jsonrpc": "2.0", "id": 1, "method": name, "params": params})


def _rest(task_id: str, hook: str) -> list[TaskRequest]:
    base, task = "/a2a/rest", f"/a2a/rest/tasks/{task_id}"
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "blue"}], "taskId": task_id}
    configs = f"{task}/pushNotificationConfigs"
    return [
        _http("POST", f"{base}/message:send", "1.0", {"message": message}),
        _http("POST", f"{base}/message:stream", "1.0", {"message": message}),
        _http("GET", task, "1.0"),
        _http("POST", f"{task}:cancel", "1.0", {}),
        _http("POST", f"{task}:subscribe", "1.0"),
        _http("POST", configs, "1.0", {"id": "c", "url": hook}),
        _http("GET", f"{configs}/c", "1.0"),
        _http("GET", configs, "1.0"),
        _http("DELETE", f"{configs}/c", "1.0"),
    ]


def _rest_03(task_id: str, hook: str) -> list[TaskRequest]:
    base, task = "/a2a/rest/v1", f"/a2a/rest/v1/tasks/{task_id}"
    message = {"messageId": "m", "role": "ROLE_USER", "content": [{"text": "blue"}], "taskId": task_id}
    configs = f"{task}/pushNotificationConfigs"
    config = {"config": {"pushNotificationConfig": {"id": "c", "url": hook}}, "configId": "c"}
    return [
        _http("POST", f"{base}/message:send", "0.3", {"message": message}),
        _http("POST", f"{base}/message:stream", "0.3", {"message": message}),
        _http("GET", task, "0.3"),
        _http("POST", f"{task}:cancel", "0.3", {}),
        _http("GET", f"{task}:subscribe", "0.3"),
        _http("POST", configs, "0.3", config),
        _http("GET", f"{configs}/c", "0.3"),
        _http("GET", configs, "0.3"),
    ]


def _http(method: str, path: str, version: str, body: Any = None) -> TaskRequest:
    name = f"{method} {path.rpartition('/')[2]}"
    return TaskRequest(name=name, version=version, method=method, path=path, body=body)
