"""A2A's operations on one interface of one agent, over HTTP: a request goes out, an answer or a stream comes in.

Why not the SDK's client: it parses inside its transport, so nothing can be put before it that bears what real servers
send (a time without a zone ends the call, an event in 0.3's form becomes an empty one without a word), and what passes
through its protobuf types comes out with integers as floats.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import httpx
import orjson

from interhub.adapters.content import Message
from interhub.adapters.egress import byte_chunks, denied, failed, media_type, read_body, redirected
from interhub.adapters.errors import AdapterError, AnswerTooLarge, ProtocolViolation, RemoteRefused, RemoteUnavailable
from interhub.agent_cards import Json

from .events import Event, MessageAnswer, TaskSnapshot
from .peer import Take
from .sse import EventTooLarge, SseDecoder
from .tolerance import Leniency, TolerantReader
from .wire import Ask, Dialect, Fault, HttpRequest, Operation

_BUSY = frozenset({408, 425, 429, 502, 503, 504})


class A2aClient:
    """Speaks one dialect to one interface. Any number of requests at once."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        dialect: Dialect,
        reader: TolerantReader,
        *,
        where: str,
        max_answer_bytes: int,
    ) -> None:
        """`where` names the agent in errors; `max_answer_bytes` bounds one answer and one event."""
        self._http = http
        self._where = where
        self._url = url
        self._dialect = dialect
        self._reader = reader
        self._max = max_answer_bytes
        self._subscribe_by_get = False

    @property
    def reader(self) -> TolerantReader:
        """What reads the answers."""
        return self._reader

    async def send(
        self, message: Message, *, return_immediately: bool, headers: Mapping[str, str]
    ) -> TaskSnapshot | MessageAnswer:
        """Send a message and return the task or message that answers it.

        Raises:
            Fault: the agent answered with an error of the protocol.
            AdapterError: anything else that went wrong.
        """
        ask = Ask(operation=Operation.SEND, message=message, return_immediately=return_immediately)
        return self._reader.answer(await self._answer(ask, headers))

    async def get_task(self, task_id: str, *, headers: Mapping[str, str]) -> TaskSnapshot:
        """Ask how a task stands.

        Raises:
            Fault: the agent answered with an error of the protocol.
            AdapterError: anything else that went wrong.
        """
        return self._reader.task(await self._answer(Ask(operation=Operation.GET, task_id=task_id), headers))

    async def cancel_task(self, task_id: str, *, headers: Mapping[str, str]) -> None:
        """Ask the agent to stop a task.

        Raises:
            Fault: the agent answered with an error of the protocol.
            AdapterError: anything else that went wrong.
        """
        await self._answer(Ask(operation=Operation.CANCEL, task_id=task_id), headers)

    async def extended_card(self) -> Json:
        """Ask for the card that the agent shows to those whom it knows (A2A 1.0, section 3.1.11).

        Raises:
            Fault: the agent answered with an error of the protocol.
            AdapterError: anything else that went wrong.
        """
        return await self._answer(Ask(operation=Operation.CARD), {})

    async def stream(self, message: Message, take: Take, *, headers: Mapping[str, str]) -> None:
        """Send a message and hand each event of its stream to `take`, until that has enough or the stream ends.

        Raises:
            Fault: the agent answered with an error of the protocol.
            AdapterError: anything else that went wrong.
        """
        await self._events(Ask(operation=Operation.STREAM, message=message), take, headers)

    async def subscribe(self, task_id: str, take: Take, *, headers: Mapping[str, str]) -> None:
        """Hand each further event of a task to `take`, until that has enough or the stream ends.

        Raises:
            Fault: the agent answered with an error of the protocol.
            AdapterError: anything else that went wrong.
        """
        await self._events(Ask(operation=Operation.SUBSCRIBE, task_id=task_id), take, headers)

    async def _answer(self, ask: Ask, headers: Mapping[str, str]) -> Json:
        try:
            request = self._written(ask)
            async with self._open(request, headers) as response:
                moved = self._moved(response)
                if not moved:
                    return await self._read(ask, response)
            async with self._open(self._written(ask), headers) as response:
                return await self._read(ask, response)
        except httpx.HTTPError as error:
            raise failed(error, self._where) from error

    async def _events(self, ask: Ask, take: Take, headers: Mapping[str, str]) -> None:
        try:
            for _ in range(3):  # a redirect and another HTTP method may each cost one more
                async with self._open(self._written(ask), headers) as response:
                    if self._moved(response):
                        continue
                    if response.status_code == 405 and ask.operation is Operation.SUBSCRIBE:
                        # POST in the SDKs, GET in A2A 1.0's protobuf file: servers have one or both.
                        if not self._subscribe_by_get:
                            self._subscribe_by_get = True
                            continue
                        raise Fault("no way to subscribe", reason="UNSUPPORTED_OPERATION")
                    if response.status_code == 200 and media_type(response) == "text/event-stream":
                        return await self._pump(response, take)
                    # An error, or a server that answers a stream's request with one document.
                    event = self._reader.event(await self._read(ask, response))
                    self._reader.note(Leniency.NOT_A_STREAM, found=media_type(response))
                    await take(event)
                    return None
            raise ProtocolViolation(self._where, "redirects in a circle")
        except httpx.HTTPError as error:
            raise failed(error, self._where) from error

    def _written(self, ask: Ask) -> HttpRequest:
        request = self._dialect.write(self._url, ask)
        if ask.operation is Operation.SUBSCRIBE and self._subscribe_by_get:
            return HttpRequest(method="GET", url=request.url, headers=request.headers)
        return request

    def _open(self, request: HttpRequest, headers: Mapping[str, str]) -> AbstractAsyncContextManager[httpx.Response]:
        content = None if request.body is None else orjson.dumps(request.body)
        typed = {} if content is None else {"Content-Type": "application/json"}
        return self._http.stream(
            request.method, request.url, content=content, headers={**headers, **request.headers, **typed}
        )

    def _moved(self, response: httpx.Response) -> bool:
        """Whether the interface is at another path of the same origin (`/x` for `/x/`); it is remembered."""
        if response.status_code not in (307, 308) or "location" not in response.headers:
            return False
        asked = response.request.url
        target = redirected(asked, response.headers["location"])
        if asked.path.rstrip("/") != target.path.rstrip("/") or str(asked) != self._url:
            raise ProtocolViolation(self._where, f"redirects to {target}; its card should name that address")
        self._reader.note(Leniency.MISPLACED_REDIRECT, found=str(target))
        self._url = str(target)
        return True

    async def _read(self, ask: Ask, response: httpx.Response) -> Json:
        """Read one whole answer, or raise what went wrong."""
        if response.status_code in (401, 403):
            raise denied(self._where, response)
        body = await read_body(response, self._where, max_bytes=self._max)
        if response.status_code in _BUSY:
            raise self._not_json(response, body)
        try:
            document: Json = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise self._not_json(response, body) from error
        try:
            payload = self._dialect.unwrap(document)
        except ValueError as error:
            raise self._not_json(response, body) from error
        if response.status_code >= 400:
            said = document.get("message") if isinstance(document, Mapping) else None
            code = document.get("code") if isinstance(document, Mapping) else None
            if isinstance(said, str):
                # 0.3's HTTP+JSON: JavaScript's SDK adds the code, for Python's only the status tells which error it is.
                lost = response.status_code == 404 and ask.task_id
                known = code if isinstance(code, int) and code < 0 else None
                raise Fault(said, code=known, reason="TASK_NOT_FOUND" if lost else "")
            raise self._not_json(response, body)
        return payload

    def _not_json(self, response: httpx.Response, body: bytes) -> AdapterError:
        status = response.status_code
        found = f"HTTP {status} {response.reason_phrase}".strip() + f", {describe_body(media_type(response), body)}"
        if status in _BUSY:
            return RemoteUnavailable(self._where, found)
        if status in (404, 405, 410) or 300 <= status < 400:
            return ProtocolViolation(
                self._where, f"no A2A interface is there ({found}); look at the agent's card again"
            )
        if status >= 400:
            return RemoteRefused(self._where, found, code=status)
        return ProtocolViolation(self._where, f"the answer is not of A2A: {found}")

    async def _pump(self, response: httpx.Response, take: Take) -> None:
        decoder = SseDecoder(max_event_bytes=self._max)
        try:
            async with byte_chunks(response) as chunks:
                async for chunk in chunks:
                    for data in decoder.feed(chunk):
                        if await take(self._event(data)):
                            return
        except EventTooLarge as error:
            raise AnswerTooLarge(self._where, self._max, self._max, "one event of its stream") from error
        rest = decoder.finish()
        if rest is not None:
            try:
                event = self._event(rest)
            except ProtocolViolation:
                return  # cut off in the middle: the caller asks for the task
            self._reader.note(Leniency.UNENDED_EVENT)
            await take(event)

    def _event(self, data: bytes) -> Event | None:
        try:
            payload = self._dialect.unwrap(orjson.loads(data))
        except ValueError as error:  # orjson.JSONDecodeError is one
            raise ProtocolViolation(self._where, f"an event of its stream is not of A2A: {error}") from error
        return self._reader.event(payload)


def describe_body(kind: str, body: bytes) -> str:
    """Say in a few words what a document that is not what we wanted is."""
    start = body[:512].lstrip().lower()
    if not body:
        return "with nothing in it"
    if kind == "text/html" or start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    text = body[:120].decode("utf-8", "replace").strip().replace("\n", " ")
    return f"{kind or 'of no stated type'}: {text!r}"
