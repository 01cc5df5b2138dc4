"""What makes a caller of a conformance suite one that the hub lets in; loaded into the suites by `tck.py`, with pytest.

The suites send no credentials, no tenant, and fetch the card without naming a version. This adds to what they send to
the hub, and to nothing else:

* the key, where a request has no `Authorization` of its own and its test is not about that;
* over gRPC the tenant of the interface (A2A 1.0, section 4.4.6: a client passes on what the card says), and the key;
* a message id that is new: the 1.0 suite sends one id in every test of a scenario, where section 4.1.4 wants ids that
  are unique, and the hub takes the second message for the first one sent again (section 3.1.1 lets it);
* when the card is fetched, `A2A-Version`, which section 3.6.1 asks of every client; without it the hub takes the
  caller for one of 0.3, and gives it the card for both.

Told by the environment: `TCK_URL` (what the hub's addresses begin with), `TCK_KEY`, `TCK_VERSION`, `TCK_GRPC`
(`host:port`), `TCK_TENANT`. Runs with the suite's Python, which has nothing of ours.
"""

import itertools
import os
from collections import namedtuple

import httpx

URL = os.environ["TCK_URL"]
KEY = os.environ["TCK_KEY"]
VERSION = os.environ["TCK_VERSION"]
GRPC = os.environ.get("TCK_GRPC", "")
TENANT = os.environ.get("TCK_TENANT", "")
_CARD = "/.well-known/agent-card.json"


def _complete(url: str, headers) -> None:
    if not url.startswith(URL):
        return
    if "without_auth" not in os.environ.get("PYTEST_CURRENT_TEST", "") and "authorization" not in {
        name.lower() for name in headers
    }:
        headers["Authorization"] = f"Bearer {KEY}"
    if url.partition("?")[0].endswith(_CARD) and VERSION != "0.3":
        headers["A2A-Version"] = VERSION


try:
    import tck.requirements.base as _base
except ImportError:  # the suite of 0.3 makes its ids unique
    pass
else:
    _tck_id, _count = _base.tck_id, itertools.count(1)
    _base.tck_id = lambda name: f"{_tck_id(name)}-{next(_count)}"


def _patch_httpx(client) -> None:
    build = client.build_request

    def build_request(self, *arguments, **options):
        request = build(self, *arguments, **options)
        _complete(str(request.url), request.headers)
        return request

    client.build_request = build_request


for _client in (httpx.Client, httpx.AsyncClient):
    _patch_httpx(_client)

try:
    import requests
except ImportError:
    pass
else:
    _prepare = requests.Session.prepare_request

    def _prepare_request(self, request):
        prepared = _prepare(self, request)
        _complete(prepared.url, prepared.headers)
        return prepared

    requests.Session.prepare_request = _prepare_request

try:
    import grpc
except ImportError:
    pass
else:
    _Details = namedtuple("_Details", "method timeout metadata credentials wait_for_ready compression")

    class _Interceptor(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
        def _completed(self, details, request):
            metadata = list(details.metadata or ())
            if not any(name == "authorization" for name, _ in metadata):
                metadata.append(("authorization", f"Bearer {KEY}"))
            if TENANT and hasattr(request, "tenant") and not request.tenant:
                request.tenant = TENANT
            options = (getattr(details, name, None) for name in ("credentials", "wait_for_ready", "compression"))
            return _Details(details.method, details.timeout, metadata, *options), request

        def intercept_unary_unary(self, go_on, details, request):
            return go_on(*self._completed(details, request))

        def intercept_unary_stream(self, go_on, details, request):
            return go_on(*self._completed(details, request))

    _open = grpc.insecure_channel

    def _insecure_channel(target, *arguments, **options):
        channel = _open(target, *arguments, **options)
        return grpc.intercept_channel(channel, _Interceptor()) if target == GRPC else channel

    grpc.insecure_channel = _insecure_channel
