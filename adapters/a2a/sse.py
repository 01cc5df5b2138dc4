"""Takes the data out of a stream of server-sent events (WHATWG HTML, section 9.2), a chunk of bytes at a time."""


class EventTooLarge(ValueError):
    """An event is larger than the reader takes."""


class SseDecoder:
    """Turns chunks of bytes, cut anywhere, into the data of whole events.

    Comments (heartbeats), event names, ids and retry times are passed over: A2A puts everything into the data.
    """

    def __init__(self, *, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._held = 0
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk and return the data of the events that it ends.

        Raises:
            EventTooLarge: an event, or a line without end, is larger than `max_event_bytes`.
        """
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r") if chunk else self._after_cr
        lines = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        ended: list[bytes] = []
        for line in lines[:-1]:
            self._line += line
            self._check()
            event = self._end_line()
            if event is not None:
                ended.append(event)
        self._line += lines[-1]
        self._check()
        return ended

    def finish(self) -> bytes | None:
        """Return what stands there when the stream ends without a last blank line, or None."""
        if self._line:
            self._end_line()
        return self._end_event()

    def _check(self) -> None:
        if self._held + len(self._line) > self._max:
            raise EventTooLarge(f"an event of more than {self._max:,} bytes")

    def _end_line(self) -> bytes | None:
        line = bytes(self._line)
        self._line.clear()
        if not line:
            return self._end_event()
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._held += len(value)
        return None

    def _end_event(self) -> bytes | None:
        if not self._data:
            return None
        event = b"\n".join(self._data)
        self._data.clear()
        self._held = 0
        return event or None
