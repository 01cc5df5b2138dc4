"""A call that its server never answers ends in the hub's time, at both endpoints and in both eras."""

from itertools import product
from pathlib import Path

import anyio
import pytest

from interhub.hub.settings import Catalogue, Limits
from tests.support.mcp_caller import Refused, caller
from tests.support.mcp_trouble import trouble
from tests.support.whole_hub import whole_hub

pytestmark = pytest.mark.anyio

ERAS = ("modern", "legacy")


@pytest.mark.parametrize("theirs", ERAS)
async def test_a_server_that_hangs_is_given_up_and_the_call_cancelled_there(theirs: str, tmp_path: Path) -> None:
    settings = {"limits": Limits(call_timeout_s=1.0), "catalogue": Catalogue(mode="all")}
    async with whole_hub(tmp_path, settings=settings) as hub, trouble(theirs) as (server, url):
        endpoint = {"binding": "MCP-HTTP", "url": url, "headers": {"Authorization": "Bearer x"}}
        body = {"kind": "endpoint", "adapter": "mcp", "id": theirs, "endpoint": endpoint}
        assert (await hub.client.post("/api/agents", json=body)).status_code == 201
        for mine, (path, prefix) in product(ERAS, (("/mcp", f"{theirs}__"), (f"/agents/{theirs}/mcp", ""))):
            server.hung_up = anyio.Event()
            with anyio.fail_after(20):
                async with caller(hub.url + path, modern=mine == "modern", key=hub.key) as ada:
                    try:
                        result = await ada.call(f"{prefix}hangs")
                        told = str(result["content"][0]["text"]) if result["isError"] else ""
                    except Refused as refused:
                        told = refused.message
                    assert theirs in told
                    assert "1 s" in told
                    await server.hung_up.wait()
                    assert (await ada.call(f"{prefix}works"))["content"][0]["text"] == "done"
