"""The way to a server: whom TLS trusts and which proxy lies in between."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from amigrate.core.errors import UsageError
from amigrate.options import Tls, redacted


def tls(wanted: Tls) -> ssl.SSLContext | bool:
    """The system's authorities (True: aiohttp has them loaded), or only those of the user's bundle; no check at all
    where that was asked for."""
    if wanted == Tls():
        return True
    context = ssl.create_default_context() if wanted.ca_bundle is None else _only(wanted.ca_bundle)
    if wanted.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if wanted.client_cert:
        _identify(context, wanted.client_cert)
    return context


def tls_elsewhere(wanted: Tls) -> ssl.SSLContext:
    """For a token endpoint: the user's bundle counts besides the system's authorities, and it is always checked."""
    context = ssl.create_default_context()
    if wanted.ca_bundle:
        _trust(context, wanted.ca_bundle)
    return context


def _only(bundle: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _trust(context, bundle)
    return context


def _trust(context: ssl.SSLContext, bundle: Path) -> None:
    """Trust the authorities of a PEM file, or of a folder of them."""
    try:
        context.load_verify_locations(**{"capath" if bundle.is_dir() else "cafile": str(bundle)})
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"the CA bundle {bundle} cannot be read: {_reason(error)}") from error


def _identify(context: ssl.SSLContext, certificate: Path) -> None:
    try:
        # An empty password instead of a prompt on the terminal: an encrypted key is refused.
        context.load_cert_chain(certificate, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"the client certificate {certificate} cannot be read ({_reason(error)}): it has to be a PEM file with the "
            "certificate and its unencrypted key"
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def proxy_for(uri: str) -> str | None:
    """The proxy that the environment names for this address (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`), or None."""
    parts = urlsplit(uri)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]) or _within(parts.hostname or "", proxies.get("no")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise UsageError(f"the proxy {redacted(proxy)} of the environment is none of HTTP: amigrate speaks no SOCKS")
    return proxy


def _within(host: str, networks: str | None) -> bool:
    """Networks in `NO_PROXY`, such as 10.0.0.0/8: `requests` understands them, so MLflow's users write them."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for text in (networks or "").split(","):
        try:
            if "/" in text and address in ipaddress.ip_network(text.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
