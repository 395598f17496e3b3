"""Secrets for the tests of logins, and the search for them in everything that was said and written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PASSWORD = "correct-horse-battery"
TOKEN = "tok-staple-5af1c0de"
CLIENT_SECRET = "cs-9d1f-hunter2"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
AWS_SESSION = "IQoJb3JpZ2luX2VjEXAMPLE"
COOKIE = "session=8c2f11-cookie"
HEADER = "tenant-key-77aa"
PROXY = "proxy-pass-4242"

OTHERS = ("X-Amz-Signature", "Bearer ey", "scrypt:")
"""What only secrets begin with."""
ALL = (PASSWORD, TOKEN, CLIENT_SECRET, AWS_SECRET, AWS_SESSION, COOKIE, HEADER, PROXY, *OTHERS)


def found(outputs: Iterable[str], folders: Iterable[Path]) -> list[str]:
    """Where any of the secrets turns up: outputs by their beginning, files by their path."""
    places = [text[:200] for text in outputs if any(secret in text for secret in ALL)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return places + [str(path) for path in files if any(secret.encode() in path.read_bytes() for secret in ALL)]
