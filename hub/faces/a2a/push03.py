"""Push notification configurations of A2A 0.3 over HTTP+JSON.

Written out here, because the SDK's routes take only one of the forms that clients send, want credentials where none are
needed, and cannot delete.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import orjson
from a2a import types as a2a
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import RequestHandler
from a2a.utils.errors import InvalidParamsError, InvalidRequestError
from starlette.requests import Request

Method = Callable[[Request, ServerCallContext], Awaitable[Any]]

_PATH = "/v1/tasks/{id}/pushNotificationConfigs"


class OldPushes:
    """The operations on a task's configurations."""

    def __init__(self, handler: RequestHandler) -> None:
        self._handler = handler

    def methods(self) -> dict[tuple[str, str], Method]:
        """Return what answers, by path and HTTP method."""
        return {
            (_PATH, "POST"): self.create,
            (_PATH, "GET"): self.list,
            (f"{_PATH}/{{push_id}}", "GET"): self.get,
            (f"{_PATH}/{{push_id}}", "DELETE"): self.delete,
        }

    async def create(self, request: Request, context: ServerCallContext) -> dict[str, Any]:
        """Begin to push what happens in a task."""
        config = _config(await request.body())
        authentication = _object(config, "authentication")
        wanted = a2a.TaskPushNotificationConfig(
            task_id=request.path_params["id"],
            id=_text(config, "id"),
            url=_text(config, "url"),
            token=_text(config, "token"),
        )
        schemes = authentication.get("schemes")
        if isinstance(schemes, list) and schemes and isinstance(schemes[0], str):
            wanted.authentication.scheme = schemes[0]
        if credentials := _text(authentication, "credentials"):
            wanted.authentication.credentials = credentials
            if not wanted.authentication.scheme:
                wanted.authentication.scheme = "Bearer"
        return _shown(await self._handler.on_create_task_push_notification_config(wanted, context))

    async def get(self, request: Request, context: ServerCallContext) -> dict[str, Any]:
        """Return one, without what is secret in it."""
        params = a2a.GetTaskPushNotificationConfigRequest(
            task_id=request.path_params["id"], id=request.path_params["push_id"]
        )
        return _shown(await self._handler.on_get_task_push_notification_config(params, context))

    async def list(self, request: Request, context: ServerCallContext) -> dict[str, Any]:
        """Return a task's, without what is secret in them."""
        params = a2a.ListTaskPushNotificationConfigsRequest(task_id=request.path_params["id"])
        found = await self._handler.on_list_task_push_notification_configs(params, context)
        return {"configs": [_shown(config) for config in found.configs]}

    async def delete(self, request: Request, context: ServerCallContext) -> dict[str, Any]:
        """Push no more to one."""
        params = a2a.DeleteTaskPushNotificationConfigRequest(
            task_id=request.path_params["id"], id=request.path_params["push_id"]
        )
        await self._handler.on_delete_task_push_notification_config(params, context)
        return {}


def _config(body: bytes) -> Mapping[str, Any]:
    """Return the configuration of a request, whether it came as a whole, with its name, or within `config`."""
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"the request is not JSON: {error}") from error
    if isinstance(read, Mapping):
        holder = _object(cast("Mapping[str, Any]", read), "config") or cast("Mapping[str, Any]", read)
        return _object(holder, "pushNotificationConfig") or holder
    raise InvalidRequestError("the request is no JSON object")


def _object(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = holder.get(name)
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidParamsError(f"{name} of a push notification configuration is text")
    return value or ""


def _shown(config: a2a.TaskPushNotificationConfig) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": config.id, "url": config.url}
    if config.authentication.scheme:
        shown["authentication"] = {"schemes": [config.authentication.scheme]}
    return {"name": f"tasks/{config.task_id}/pushNotificationConfigs/{config.id}", "pushNotificationConfig": shown}
