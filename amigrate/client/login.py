"""From the user's settings to credentials: which way is taken, and the simple ways themselves."""

from __future__ import annotations

import asyncio
import shlex
from asyncio.subprocess import DEVNULL, PIPE
from base64 import b64encode

from amigrate.client import oauth, sigv4
from amigrate.client.auth import Credentials, Fixed, Renewing, Token
from amigrate.core.errors import AuthError, UsageError
from amigrate.options import Basic, Bearer, OAuth, ServerOptions, SigV4, TokenCommand

COMMAND_TIMEOUT = 60.0
"""Seconds for a command that prints a token; some ask a server of their own."""


def credentials(server: ServerOptions) -> Credentials:
    """How to log in to this server. Raises `UsageError` where a package is missing or a setting makes no sense."""
    match server.login:
        case Basic() as basic:
            return _basic(basic)
        case Bearer(token):
            hint = "the token is wrong or has expired: get a new one, or have it renewed with --token-command"
            return Fixed({"Authorization": f"Bearer {token}"}, hint, (token,))
        case TokenCommand(command):
            words = _words(command)
            return Renewing(lambda: _printed(words), f"check the token that {words[0]} of --token-command prints")
        case OAuth() as client:
            fetch = oauth.fetcher(client, server.tls)
            return Renewing(fetch, f"check what the client {client.client_id!r} may do", (client.client_secret,))
        case SigV4():
            return sigv4.Signer()
        case None:
            return Fixed({}, "log in with --username and --password, --token, or another way (see --help)")


def _basic(basic: Basic) -> Fixed:
    pair = b64encode(f"{basic.username}:{basic.password}".encode()).decode()
    return Fixed({"Authorization": f"Basic {pair}"}, "check user name and password", (basic.password, pair))


# ---- a token from a command -------------------------------------------------------------------------------------


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--token-command cannot be read: {error}") from None
    if not words:
        raise UsageError("--token-command is empty")
    return words


async def _printed(words: list[str]) -> Token:
    """Run the command without a shell; its output is the token. What it says in errors may be secret: never shown."""
    name = f"{words[0]} (--token-command)"
    try:
        process = await asyncio.create_subprocess_exec(*words, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
    except OSError as error:
        raise AuthError(f"{name} cannot be run: {error.strerror}") from error
    try:
        output, _ = await asyncio.wait_for(process.communicate(), COMMAND_TIMEOUT)
    except TimeoutError as error:
        raise AuthError(f"{name} did not end within {COMMAND_TIMEOUT:.0f} s: run it by hand to see why") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise AuthError(f"{name} ended with exit code {process.returncode}: run it by hand to see why")
    token = output.decode("ascii", "replace").strip()
    if not token or not token.isprintable() or " " in token or "\ufffd" in token:
        raise AuthError(f"{name} has to print a token and nothing else: run it by hand to see what it prints")
    return Token(token)
