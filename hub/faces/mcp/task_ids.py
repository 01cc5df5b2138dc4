"""The ids of an MCP server's own tasks, as its clients behind the hub see them: good for the principal that got them.

A server knows all who come through the hub as one caller. So an id goes out with a mark that only the hub can make, of
the principal and the agent; without the right one it is answered as an id that there is none of. The same id gets the
same mark every time, also from another process with the same key.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, cast

import mcp_types as types
from mcp.shared.exceptions import MCPError

from interhub.agent_cards import JsonObject

from .tasks import TASK_METHODS

_MARK_BYTES = 16


class TaskIds:
    """Wraps and unwraps the task ids of one agent."""

    def __init__(self, key: bytes, *, agent: str) -> None:
        """`key` is the hub's, shared by replicas; `agent` is the agent's name among all tenants'."""
        self._key = hmac.digest(key, b"interhub task ids", "sha256")
        self._agent = agent

    def wrap(self, task_id: str, owner: str) -> str:
        """Return an id as its owner (`Principal.key`) may use it."""
        said = task_id.encode("utf-8", "surrogatepass")
        return urlsafe_b64encode(self._mark(said, owner) + said).decode().rstrip("=")

    def unwrap(self, wrapped: str, owner: str) -> str:
        """Return the server's own id.

        Raises:
            MCPError: it is none of this owner's at this agent.
        """
        try:
            read = urlsafe_b64decode(wrapped + "=" * (-len(wrapped) % 4))
            said = read[_MARK_BYTES:]
            if hmac.compare_digest(read[:_MARK_BYTES], self._mark(said, owner)):
                return said.decode("utf-8", "surrogatepass")
        except (BadBase64, ValueError):
            pass
        raise MCPError(types.INVALID_PARAMS, f"there is no task {wrapped!r}")

    def _mark(self, task_id: bytes, owner: str) -> bytes:
        bound = b"\0".join((self._agent.encode(), owner.encode(), task_id))
        return hmac.new(self._key, bound, sha256).digest()[:_MARK_BYTES]

    # Messages

    def asked(self, method: str, params: dict[str, Any], owner: str) -> str:
        """Put the server's own ids into a request's parameters; return the one that its `Mcp-Name` header repeats.

        Raises:
            MCPError: it names a task that is none of this owner's.
        """
        if method in TASK_METHODS and isinstance(wrapped := params.get("taskId"), str):
            params["taskId"] = task_id = self.unwrap(wrapped, owner)
            return task_id
        wanted = params.get("notifications")
        if method == "subscriptions/listen" and isinstance(wanted, Mapping):
            params["notifications"] = self._each(cast("JsonObject", wanted), owner, self._known)
        return ""

    def answered(self, method: str, result: dict[str, Any], owner: str) -> dict[str, Any]:
        """Return a result with its task's id wrapped."""
        told = method == "tasks/get" or result.get("resultType") == "task"
        task_id = result.get("taskId")
        return {**result, "taskId": self.wrap(task_id, owner)} if told and isinstance(task_id, str) else result

    def notified(self, method: str, params: JsonObject, owner: str) -> JsonObject:
        """Return a notification's parameters with their tasks' ids wrapped."""
        task_id, agreed = params.get("taskId"), params.get("notifications")
        if method == "notifications/tasks" and isinstance(task_id, str):
            return {**params, "taskId": self.wrap(task_id, owner)}
        if method == "notifications/subscriptions/acknowledged" and isinstance(agreed, Mapping):
            return {**params, "notifications": self._each(agreed, owner, self.wrap)}
        return params

    def _known(self, wrapped: str, owner: str) -> str | None:
        try:
            return self.unwrap(wrapped, owner)
        except MCPError:
            return None  # one that there is none of is left out (SEP-2663, task status notifications)

    def _each(self, filters: JsonObject, owner: str, change: Callable[[str, str], str | None]) -> JsonObject:
        listed = filters.get("taskIds")
        if not isinstance(listed, list):
            return filters
        changed = [change(each, owner) for each in listed if isinstance(each, str)]
        return {**filters, "taskIds": [each for each in changed if each is not None]}
