"""Cards that were fetched before, kept by the rules of HTTP caching (RFC 9111; A2A 1.0, section 8.6.2).

A card is used again without asking for as long as it says, and for a day at most. Whoever looks at a known agent again
wants to hear from it: then it is always asked, by the card's `ETag` or date, and a 304 saves sending the card.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx

from interhub.adapters.egress import EgressLimits, Fetched, fetch

MAX_AGE_S = 24 * 3600.0
"""No card is taken to be fresh for longer, whatever it says."""


@dataclass(frozen=True, kw_only=True)
class _Kept:
    fetched: Fetched
    fresh_until: float


class CardCache:
    """Fetched cards, by address and by what was sent along: the same address may show different callers others."""

    def __init__(
        self, *, max_bytes: int = 16 * 1024 * 1024, max_cards: int = 512, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._max_cards = max_cards
        self._clock = clock
        self._kept: OrderedDict[tuple[str, frozenset[tuple[str, str]]], _Kept] = OrderedDict()

    async def fetch(
        self, http: httpx.AsyncClient, url: str, *, headers: Mapping[str, str], limits: EgressLimits, ask: bool
    ) -> Fetched:
        """Get a document; `ask` asks the server also for one that is still fresh. Raises what `egress.fetch` does."""
        key = (url, frozenset(headers.items()))
        kept = self._kept.get(key)
        if kept is not None and not ask and self._clock() < kept.fresh_until:
            self._kept.move_to_end(key)
            return kept.fetched
        conditions = {} if kept is None else _conditions(kept.fetched.headers)
        fetched = await fetch(http, url, headers={**headers, **conditions}, limits=limits)
        if fetched.status == 304 and kept is not None and conditions:
            # What a 304 says about the card is newer than what came with it (RFC 9111, section 3.2).
            renewed = httpx.Headers(kept.fetched.headers)
            renewed.update({name: value for name, value in fetched.headers.items() if name in _RENEWED})
            fetched = Fetched(
                url=kept.fetched.url,
                status=200,
                media_type=kept.fetched.media_type,
                body=kept.fetched.body,
                headers=renewed,
            )
        self._keep(key, fetched)
        return fetched

    def forget(self, url: str) -> None:
        """Forget a card that cannot be used: whoever mends it need not wait until it is stale."""
        for key in [each for each in self._kept if each[0] == url]:
            del self._kept[key]

    def _keep(self, key: tuple[str, frozenset[tuple[str, str]]], fetched: Fetched) -> None:
        self._kept.pop(key, None)
        said = _directives(fetched.headers)
        lasts_s = fresh_for_s(fetched.headers)
        if fetched.status != 200 or "no-store" in said or not (lasts_s or _conditions(fetched.headers)):
            return
        self._kept[key] = _Kept(fetched=fetched, fresh_until=self._clock() + lasts_s)
        while len(self._kept) > self._max_cards or self._held() > self._max_bytes:
            self._kept.popitem(last=False)

    def _held(self) -> int:
        return sum(len(kept.fetched.body) for kept in self._kept.values())


def fresh_for_s(headers: httpx.Headers) -> float:
    """Return for how long a document says that it may be used unasked (RFC 9111, section 4.2); 0 when it does not."""
    said = _directives(headers)
    if said.keys() & {"no-cache", "no-store"}:
        return 0.0
    age_s = _seconds(headers.get("age", ""))
    if "max-age" in said:
        lasts_s = _seconds(said["max-age"])
    else:
        expires, date = _date(headers.get("expires", "")), _date(headers.get("date", ""))
        lasts_s = expires - date if expires is not None and date is not None else 0.0
    return min(max(lasts_s - age_s, 0.0), MAX_AGE_S)


def _conditions(headers: httpx.Headers) -> dict[str, str]:
    conditions: dict[str, str] = {}
    if "etag" in headers:
        conditions["If-None-Match"] = headers["etag"]
    if "last-modified" in headers:
        conditions["If-Modified-Since"] = headers["last-modified"]
    return conditions


def _directives(headers: httpx.Headers) -> dict[str, str]:
    said: dict[str, str] = {}
    for each in headers.get("cache-control", "").split(","):
        name, _, value = each.strip().partition("=")
        said.setdefault(name.lower(), value.strip('" '))
    return said


def _seconds(said: str) -> float:
    return float(said[:10]) if said.isascii() and said.isdigit() else 0.0


def _date(said: str) -> float | None:
    try:
        read = parsedate_to_datetime(said)
    except ValueError:
        return None
    return (read if read.tzinfo is not None else read.replace(tzinfo=UTC)).timestamp()


_RENEWED = frozenset({"cache-control", "expires", "date", "age", "etag", "last-modified"})
