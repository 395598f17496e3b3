"""Tokens for OAuth 2 client credentials (RFC 6749, 4.4), by Authlib; the extra `oauth`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from amigrate.client.auth import Token
from amigrate.client.network import tls_elsewhere
from amigrate.core.errors import AuthError, NoServer, UsageError
from amigrate.options import OAuth, Tls, redacted

TIMEOUT = 30.0
EARLY = 60.0
"""Seconds before its end that a token is replaced; at most a tenth of its life."""


def fetcher(client: OAuth, tls: Tls) -> Callable[[], Awaitable[Token]]:
    """What gets a new token. Raises `UsageError` where Authlib is not installed."""
    try:
        import httpx
        from authlib.integrations.base_client import OAuthError
        from authlib.integrations.httpx_client import AsyncOAuth2Client
    except ImportError as error:
        raise UsageError("OAuth 2 needs a package of its own: pip install 'amigrate[oauth]'") from error
    address, context = redacted(client.token_url), tls_elsewhere(tls)

    async def fetch() -> Token:
        settings = {"scope": client.scope or None, "verify": context, "timeout": TIMEOUT}
        try:
            async with AsyncOAuth2Client(client.client_id, client.client_secret, **settings) as session:
                answer = await session.fetch_token(client.token_url, grant_type="client_credentials")
        except OAuthError as error:
            raise AuthError(
                f"{address} gives the client {client.client_id!r} no token ({error.error}): check --oauth-client-id, "
                "--oauth-client-secret and --oauth-scope"
            ) from None
        except httpx.HTTPStatusError as error:
            raise NoServer(
                f"{address} cannot give tokens now ({error.response.status_code}): try again later"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise NoServer(f"no token comes from {address} ({type(error).__name__}): check --oauth-token-url") from None
        return _token(answer, address)

    return fetch


def _token(answer: dict[str, object], address: str) -> Token:
    value, life = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(value, str) or not value:
        raise NoServer(f"what {address} answers holds no token: check --oauth-token-url")
    try:
        seconds = float(str(life))
    except ValueError:
        return Token(value)
    return Token(value, time.monotonic() + seconds - min(EARLY, seconds / 10))
