"""OAuth 2 client credentials against an issuer that answers whatever a test wants, and one refresh for all."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

import httpx
import pytest
import respx
from yarl import URL

from amigrate.client.auth import Outgoing, Renewing, Token
from amigrate.client.oauth import fetcher
from amigrate.core.errors import AuthError, NoServer
from amigrate.options import OAuth, Tls

ISSUER = "https://issuer.example/token"
SECRET = "cs-9d1f-hunter2"


async def _digest() -> str:
    return ""


REQUEST = Outgoing("GET", URL("http://h/"), {}, _digest)


async def fetch() -> Token:
    return await fetcher(OAuth(ISSUER, "amigrate", SECRET, "mlflow"), Tls())()


@respx.mock
def test_a_token_and_when_to_replace_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amigrate.client.oauth.time.monotonic", lambda: 1000.0)
    answer = {"access_token": "t1", "token_type": "bearer"}
    route = respx.post(ISSUER)
    for life, due in ((3600, 1000 + 3600 - 60), (100, 1090), (None, float("inf"))):
        route.respond(json=answer if life is None else answer | {"expires_in": life})
        token = asyncio.run(fetch())
        assert (token.value, token.due) == ("t1", due)
    form = parse_qs(route.calls.last.request.content.decode())
    assert form == {"grant_type": ["client_credentials"], "scope": ["mlflow"]}
    assert "t1" not in repr(token)


@respx.mock
@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (httpx.Response(401, json={"error": "invalid_client"}), AuthError, "--oauth-client-secret"),
        (httpx.Response(400, json={"error": "invalid_scope", "error_description": SECRET}), AuthError, "invalid_scope"),
        (httpx.Response(503, text="busy"), NoServer, "503"),
        (httpx.Response(200, text=f"<html>{SECRET}</html>"), NoServer, "--oauth-token-url"),
        (httpx.Response(200, json={"id": SECRET}), NoServer, "holds no token"),
        (httpx.ConnectError("refused"), NoServer, "ConnectError"),
    ],
)
def test_an_issuer_that_gives_none(answer: httpx.Response | Exception, error: type[Exception], words: str) -> None:
    """Each is an error of ours in one line that names the issuer, and never the secret."""
    respx.post(ISSUER).mock(side_effect=[answer])
    with pytest.raises(error) as raised:
        asyncio.run(fetch())
    assert words in str(raised.value)
    assert ISSUER in str(raised.value)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_sixty_refusals_are_one_refresh() -> None:
    """Whoever comes while a token is being renewed gets the new one, also who was refused with an older one."""
    made = 0

    async def one_more() -> Token:
        nonlocal made
        await asyncio.sleep(0)
        made += 1
        return Token(f"t{made}")

    async def story() -> list[bool]:
        credentials = Renewing(one_more, "")
        old = await credentials.headers(REQUEST)
        renewed = await asyncio.gather(*(credentials.renewed(old) for _ in range(60)))
        assert await credentials.headers(REQUEST) == {"Authorization": "Bearer t2"}
        return renewed

    assert asyncio.run(story()) == [True] * 60
    assert made == 2


def test_a_token_is_replaced_when_due_and_the_same_one_does_not_help() -> None:
    now = 0.0

    async def same() -> Token:
        return Token("t", now + 10)

    async def story() -> None:
        nonlocal now
        fetched = 0

        async def counted() -> Token:
            nonlocal fetched
            fetched += 1
            return await same()

        credentials = Renewing(counted, "", clock=lambda: now)
        refused = await credentials.headers(REQUEST)
        await credentials.headers(REQUEST)
        assert fetched == 1
        now = 10.0
        await credentials.headers(REQUEST)
        assert fetched == 2
        assert not await credentials.renewed(refused)

    asyncio.run(story())
