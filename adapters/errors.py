"""How a conversation with a remote agent can fail.

AdapterError
├── RemoteUnavailable      not reached, or it broke off: a retry with the same idempotency key is safe
│   ├── RemoteTimeout      it did not answer within the time given
│   └── ConnectionLost      the connection itself is gone: a pool opens another one
├── RemoteRefused          it answered, with an error: a retry would be refused again
│   ├── RemoteDenied       it wants credentials, or other ones
│   ├── RemoteRejected     it declined to take the task up
│   └── RemoteCanceled     it says that the task was canceled
├── ProtocolViolation      it answered with something its protocol does not allow
│   ├── AnswerTooLarge     it answered with more than we take
│   └── UnusableCard       it is an A2A agent, and its card cannot be used
├── BadEndpoint            the address, command or file cannot be used as it stands
└── AdapterNotFound        no adapter of that name is installed
"""

from .content import Part


class AdapterError(Exception):
    """A conversation with a remote agent failed."""


class RemoteUnavailable(AdapterError):
    """The agent could not be reached, or broke off; a retry with the same idempotency key is safe."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(where, why)
        self.where = where
        self.why = why

    def __str__(self) -> str:
        return f"{self.where} could not be reached: {self.why}"


class RemoteTimeout(RemoteUnavailable):
    """The agent did not answer within the time given."""

    def __init__(self, where: str, timeout_s: float) -> None:
        super().__init__(where, f"no answer within {timeout_s:g} s")
        self.args = (where, timeout_s)
        self.timeout_s = timeout_s


class ConnectionLost(RemoteUnavailable):
    """The connection itself is gone (a process died, a session ended): no later call on it can succeed."""

    def __str__(self) -> str:
        return f"{self.where} broke off: {self.why}"


class RemoteRefused(AdapterError):
    """The agent answered with an error; asking again would be refused again."""

    def __init__(self, where: str, why: str, parts: tuple[Part, ...] = (), code: int | None = None) -> None:
        super().__init__(where, why, parts, code)
        self.where = where
        self.why = why
        self.parts = parts
        """What it answered, where that was content (an MCP result with `isError`, a failed task's message)."""
        self.code = code
        """The protocol's own error code, where it gave one."""

    def __str__(self) -> str:
        return f"{self.where} answered with an error: {self.why}"


class RemoteDenied(RemoteRefused):
    """The agent wants credentials, or other ones."""

    def __str__(self) -> str:
        return f"{self.where} refused our credentials: {self.why}"


class RemoteRejected(RemoteRefused):
    """The agent declined to take the task up (A2A `TASK_STATE_REJECTED`)."""

    def __str__(self) -> str:
        return f"{self.where} rejected the task: {self.why}"


class RemoteCanceled(RemoteRefused):
    """The agent says that the task was canceled."""

    def __str__(self) -> str:
        return f"{self.where} canceled the task: {self.why}"


class ProtocolViolation(AdapterError):
    """The agent answered with something that its protocol does not allow."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, what)
        self.where = where
        self.what = what

    def __str__(self) -> str:
        return f"{self.where} broke its protocol: {self.what}"


class AnswerTooLarge(ProtocolViolation):
    """The agent answered with more than we take."""

    def __init__(self, where: str, size: int, limit: int, what: str = "its answer") -> None:
        super().__init__(where, f"{what} holds more than {limit} bytes")
        self.args = (where, size, limit, what)
        self.size = size
        """Bytes counted until we stopped; there may have been more."""
        self.limit = limit
        self.subject = what

    def __str__(self) -> str:
        return (
            f"{self.where}: {self.subject} is larger than the {self.limit:,} bytes we take "
            f"({self.size:,} and counting); have it pass large files by URL, or raise the limit"
        )


class UnusableCard(ProtocolViolation):
    """An A2A agent is there, and its card cannot be used; `what` names the card and says why."""

    def __str__(self) -> str:
        return self.what


class BadEndpoint(AdapterError):
    """The address, command or file cannot be used as it stands."""

    def __init__(self, where: str, why: str, remedy: str = "") -> None:
        super().__init__(where, why, remedy)
        self.where = where
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.where}: {self.why}" + (f"; {self.remedy}" if self.remedy else "")


class AdapterNotFound(AdapterError):
    """No adapter of that name is installed."""

    def __init__(self, name: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        return f"no adapter is named {self.name!r}; installed: {', '.join(self.known) or 'none'}"
