"""Shows credentials with every request to one interface, and gets another token where one is no longer taken."""

import httpx

from interhub.adapters.addresses import Reach
from interhub.adapters.egress import same_origin

from .credentials import Credentials, cookie_header
from .tokens import TokenStore


class Authorizer:
    """What one interface is shown."""

    def __init__(self, credentials: Credentials, tokens: TokenStore, *, where: str, reach: Reach) -> None:
        """`where` names the agent in errors; `reach` is what the token endpoint may be connected to at."""
        self.credentials = credentials
        self._tokens = tokens
        self._where = where
        self._reach = reach

    @property
    def renews(self) -> bool:
        """Whether another attempt could show something else."""
        return self.credentials.grant is not None

    async def headers(self, refused: str = "") -> dict[str, str]:
        """Return the headers; a token other than the one in the `Authorization` that was `refused`.

        Raises:
            AdapterError: no token is to be had (see `TokenStore.token`).
        """
        headers = dict(self.credentials.headers)
        grant = self.credentials.grant
        if grant is not None:
            old = refused.removeprefix("Bearer ")
            token = await self._tokens.token(grant, where=self._where, reach=self._reach, refused=old)
            headers["Authorization"] = f"Bearer {token}"
        return headers


class AuthorizedTransport(httpx.AsyncBaseTransport):
    """Puts credentials on requests to one origin, below the client: its responses, and errors, never show them."""

    def __init__(self, inner: httpx.AsyncBaseTransport, authorizer: Authorizer, *, url: str) -> None:
        """Only requests to the origin of `url` get the credentials."""
        self._inner = inner
        self._authorizer = authorizer
        self._origin = httpx.URL(url)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and once more with another token where the first one is refused."""
        if not same_origin(request.url, self._origin):
            return await self._inner.handle_async_request(request)
        shown = await self._authorizer.headers()
        response = await self._inner.handle_async_request(self._with(request, shown))
        if response.status_code != 401 or not self._authorizer.renews:
            return response
        # Its body is not read: who refuses us has no say in how long that takes.
        await response.aclose()
        shown = await self._authorizer.headers(refused=shown["Authorization"])
        return await self._inner.handle_async_request(self._with(request, shown))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    def _with(self, request: httpx.Request, shown: dict[str, str]) -> httpx.Request:
        headers = request.headers.copy()
        headers.update(shown)
        credentials = self._authorizer.credentials
        if credentials.cookies:
            mine = cookie_header(credentials.cookies)
            headers["Cookie"] = f"{headers['Cookie']}; {mine}" if "Cookie" in headers else mine
        url = request.url.copy_merge_params(credentials.query) if credentials.query else request.url
        return httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=request.extensions)
