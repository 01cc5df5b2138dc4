"""Push notification configurations (A2A 1.0, sections 3.1.7 to 3.1.10): what callers say, and are told back."""

from dataclasses import dataclass
from datetime import UTC, datetime

from a2a import types as a2a
from a2a.utils.errors import InvalidParamsError, PushNotificationNotSupportedError, TaskNotFoundError
from a2a.utils.task import decode_page_token, encode_page_token

from interhub.adapters import Principal
from interhub.hub.push.config import MAX_ID, MAX_PER_RUN, MAX_SECRET, MAX_URL, Destination, PushConfig
from interhub.hub.push.outbox import Outbox
from interhub.hub.supervisor.run import Run

_NO_PUSH = "this hub does not push; subscribe to the task, or ask for it"
_PAGE = 100


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A webhook that a caller asks for, looked at, for a run that may not be there yet."""

    id: str
    """Empty names none: a run has one such webhook, whose id is the run's (as clients of 0.3 expect)."""
    destination: Destination
    version: str


class TaskPushes:
    """The configurations of tasks, for one who was found to own the task."""

    def __init__(self, outbox: Outbox | None) -> None:
        """Without an outbox everything is refused as not supported."""
        self._outbox = outbox

    @property
    def supported(self) -> bool:
        """Whether the hub pushes."""
        return self._outbox is not None

    async def wanted(self, config: a2a.TaskPushNotificationConfig, version: str) -> Wanted:
        """Read what a caller asks for, before anything is done about it.

        Raises:
            PushNotificationNotSupportedError: the hub does not push.
            InvalidParamsError: a field is missing, too long, or of no use.
            BadEndpoint: its address may not be sent to.
        """
        outbox = self._open()
        if not config.url:
            raise InvalidParamsError("a push notification configuration needs its url")
        authentication = config.authentication
        for name, text, most in (
            ("id", config.id, MAX_ID),
            ("url", config.url, MAX_URL),
            ("token", config.token, MAX_SECRET),
            ("authentication.scheme", authentication.scheme, MAX_ID),
            ("authentication.credentials", authentication.credentials, MAX_SECRET),
        ):
            if len(text) > most:
                raise InvalidParamsError(f"{name} has {len(text)} characters; {most} are the most")
        if not all(character.isprintable() for character in config.id):
            raise InvalidParamsError("the id of a push notification configuration holds characters that cannot be seen")
        destination = Destination(
            url=config.url,
            token=config.token,
            scheme=authentication.scheme,
            credentials=authentication.credentials,
        )
        await outbox.sender.check(destination)
        return Wanted(id=config.id, destination=destination, version=version)

    async def add(self, principal: Principal, run: Run, wanted: Wanted) -> a2a.TaskPushNotificationConfig:
        """Begin to push what happens in a run, in the place of a configuration with the same id.

        Raises:
            InvalidParamsError: the run has too many.
        """
        config = PushConfig(
            run_id=run.id,
            id=wanted.id or run.id,
            tenant=principal.tenant,
            subject=principal.subject,
            destination=wanted.destination,
            version="0.3" if wanted.version.startswith("0.") else "1.0",
            created_at=datetime.now(UTC),
        )
        if not await self._open().add(config, most=MAX_PER_RUN):
            raise InvalidParamsError(
                f"task {run.id} has {MAX_PER_RUN} push notification configurations; delete one first"
            )
        return _shown(config)

    async def get(self, run: Run, config_id: str) -> a2a.TaskPushNotificationConfig:
        """Return one, without its token and credentials.

        Raises:
            TaskNotFoundError: the run has none of that id.
        """
        config = await self._open().store.get(run.id, config_id or run.id)
        if config is None:
            raise TaskNotFoundError(f"task {run.id} has no push notification configuration {config_id[:80]!r}")
        return _shown(config)

    async def list(self, run: Run, *, size: int = 0, token: str = "") -> a2a.ListTaskPushNotificationConfigsResponse:
        """Return those of a run by id, a page at a time, without tokens and credentials."""
        after = decode_page_token(token) if token else ""
        if size < 0:
            raise InvalidParamsError("page_size is less than 0")
        found = [config for config in await self._open().store.of_run(run.id) if config.id > after]
        page = found[: size or _PAGE]
        return a2a.ListTaskPushNotificationConfigsResponse(
            configs=[_shown(config) for config in page],
            next_page_token=encode_page_token(page[-1].id) if len(found) > len(page) else "",
        )

    async def delete(self, run: Run, config_id: str) -> None:
        """Push no more to one; that there is none is no error."""
        await self._open().remove(run.id, config_id or run.id)

    def _open(self) -> Outbox:
        if self._outbox is None:
            raise PushNotificationNotSupportedError(_NO_PUSH)
        return self._outbox


def _shown(config: PushConfig) -> a2a.TaskPushNotificationConfig:
    """Write a configuration as it may be read again: who holds a key to the hub need not hold those of its webhooks."""
    shown = a2a.TaskPushNotificationConfig(id=config.id, task_id=config.run_id, url=config.destination.url)
    if config.destination.scheme:
        shown.authentication.scheme = config.destination.scheme
    return shown
