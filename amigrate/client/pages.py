"""Web pages where an answer of MLflow was expected: what they say, and whether they ask for a login.

MLflow itself sends `/version` and missing routes as text/html too, so the text counts rather than its declared type.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

_PAGE = re.compile(r"\s*<(!doctype html|html|head|body|title|\?xml)", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_UNSEEN = re.compile(r"<(script|style|head)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.IGNORECASE | re.DOTALL)
_ASKS = re.compile(r"\b(log|sign)[ -]?(in|on)\b|type=[\"']?password", re.IGNORECASE)
_LOGIN_ADDRESS = re.compile(
    r"(^|[/._-])(log-?in|sign-?in|sign_in|sso|saml2?|oauth2?|openid|openid-connect|authorize|accounts?)([/._-]|$)",
    re.IGNORECASE,
)


def is_page(text: str) -> bool:
    """True where a text is HTML."""
    return _PAGE.match(text) is not None


def is_login(text: str) -> bool:
    """True for a page on which a person would log in."""
    return is_page(text) and _ASKS.search(text) is not None


def leads_to_login(location: str, path: str) -> bool:
    """True where a redirect of a request to `path` goes to where people log in."""
    parts = urlsplit(location)
    if parts.path.endswith(path):
        return False
    return _LOGIN_ADDRESS.search(f"{parts.hostname or ''}{parts.path}") is not None


def said(text: str) -> str:
    """A page in a few words: its title, else its text without the markup."""
    if not is_page(text):
        return " ".join(text.split())[:120]
    title = _TITLE.search(text)
    words = title[1] if title and title[1].strip() else _UNSEEN.sub(" ", text)
    return " ".join(html.unescape(words).split())[:120]


def replaces_file(headers: Mapping[str, str]) -> bool:
    """True for a page in place of a file: MLflow sends every file, pages too, as an attachment."""
    return "text/html" in headers.get("Content-Type", "") and "Content-Disposition" not in headers
