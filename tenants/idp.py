"""How an organization's people sign in at a provider of its own: OpenID Connect, this gateway the relying party.

Of the control process alone: no worker reads it.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

MAX_URL: Final = 2_048

_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
)


def provider_url_fault(text: str, *, query: bool = False) -> str | None:
    """Why `text` is no URL to ask an outside provider at; None when it may be. Where its host leads is judged at
    every dial.

    `https`; `http` on loopback alone, for development. An issuer has no `query` (OpenID Connect Discovery 1.0
    section 3), endpoints may.
    """
    if not 0 < len(text) <= MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        return f"is a URL of at most {MAX_URL} printable ASCII characters"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return "is no URL"
    if not _is_host(url) or port == 0:
        return "has no host name or IP address that can be connected to"
    if url.scheme != "https" and not (url.scheme == "http" and on_loopback(url.hostname or "")):
        return "begins with https://"
    if "@" in url.netloc:
        return "carries no user name and no password"
    if "#" in text or ("?" in text and not query):
        return "has no fragment" if query else "has no query and no fragment"
    return None


def on_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_host(url: SplitResult) -> bool:
    host = url.hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return "[" not in url.netloc and _HOST.fullmatch(host) is not None
    return True
