"""Cards are used again as HTTP caching allows, and no longer."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
import pytest

from interhub.adapters.a2a.card_cache import MAX_AGE_S, CardCache, fresh_for_s
from interhub.adapters.egress import EgressLimits

pytestmark = pytest.mark.anyio

URL = "https://agent.example.com/.well-known/agent-card.json"


@dataclass
class Site:
    """A server with one card, which counts how it was asked."""

    headers: Mapping[str, str]
    body: bytes = b"{}"
    etag: str = ""
    asked: list[httpx.Headers] = field(default_factory=list[httpx.Headers])
    now: float = 1000.0

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.headers)
        named = {"ETag": self.etag} if self.etag else {}
        if self.etag and request.headers.get("if-none-match") == self.etag:
            return httpx.Response(304, headers={**self.headers, **named})
        return httpx.Response(200, headers={**self.headers, **named}, content=self.body)


async def get(site: Site, cache: CardCache, *, ask: bool = False, headers: Mapping[str, str] | None = None) -> bytes:
    async with httpx.AsyncClient(transport=httpx.MockTransport(site.answer)) as http:
        return (await cache.fetch(http, URL, headers=headers or {}, limits=EgressLimits(), ask=ask)).body


async def test_a_fresh_card_is_not_asked_for_until_its_time_is_over() -> None:
    site = Site({"Cache-Control": "public, max-age=60"})
    cache = CardCache(clock=lambda: site.now)
    await get(site, cache)
    site.now += 59
    await get(site, cache)
    assert len(site.asked) == 1
    site.now += 2
    await get(site, cache)
    assert len(site.asked) == 2


async def test_a_known_agent_is_asked_even_while_its_card_is_fresh_and_a_304_saves_the_card() -> None:
    site = Site({"Cache-Control": "max-age=60"}, body=b'{"name": "one"}', etag='"1"')
    cache = CardCache()
    await get(site, cache)
    assert await get(site, cache, ask=True) == b'{"name": "one"}'
    assert site.asked[1]["if-none-match"] == '"1"'
    site.body, site.etag = b'{"name": "two"}', '"2"'
    assert await get(site, cache, ask=True) == b'{"name": "two"}'


async def test_a_304_makes_a_card_fresh_again() -> None:
    site = Site({"Cache-Control": "max-age=60"}, etag='"1"')
    cache = CardCache(clock=lambda: site.now)
    await get(site, cache)
    site.now += 61
    await get(site, cache)
    site.now += 59
    await get(site, cache)
    assert len(site.asked) == 2


async def test_no_store_is_heeded_and_other_credentials_get_another_card() -> None:
    unstored = Site({"Cache-Control": "no-store, max-age=60"}, etag='"1"')
    cache = CardCache()
    await get(unstored, cache)
    await get(unstored, cache)
    assert ["if-none-match" in asked for asked in unstored.asked] == [False, False]
    site = Site({"Cache-Control": "max-age=60"})
    await get(site, cache, headers={"Authorization": "Bearer ann"})
    await get(site, cache, headers={"Authorization": "Bearer bob"})
    assert len(site.asked) == 2


async def test_the_cache_holds_so_many_bytes_and_forgets_what_was_used_longest_ago() -> None:
    site = Site({"Cache-Control": "max-age=60"}, body=b"x" * 40)
    cache = CardCache(max_bytes=100)
    for caller in ("ann", "bob", "eve", "eve", "bob", "ann"):
        await get(site, cache, headers={"Authorization": caller})
    assert [asked["authorization"] for asked in site.asked] == ["ann", "bob", "eve", "ann"]


async def test_a_card_that_could_not_be_used_is_asked_for_again() -> None:
    site = Site({"Cache-Control": "max-age=60"})
    cache = CardCache()
    await get(site, cache)
    cache.forget(URL)
    await get(site, cache)
    assert len(site.asked) == 2


@pytest.mark.parametrize(
    ("headers", "fresh_s"),
    [
        ({}, 0),
        ({"Cache-Control": "max-age=60", "Age": "20"}, 40),
        ({"Cache-Control": "max-age=60, no-cache"}, 0),
        ({"Cache-Control": "max-age=junk"}, 0),
        ({"Cache-Control": "max-age=99999999999999999999"}, MAX_AGE_S),
        ({"Expires": "Sat, 21 Nov 2026 08:01:00 GMT", "Date": "Sat, 21 Nov 2026 08:00:00 GMT"}, 60),
        ({"Expires": "0", "Date": "Sat, 21 Nov 2026 08:00:00 GMT"}, 0),
    ],
)
def test_how_long_a_card_is_fresh_is_what_it_says_within_a_day(headers: Mapping[str, str], fresh_s: float) -> None:
    assert fresh_for_s(httpx.Headers(dict(headers))) == fresh_s
