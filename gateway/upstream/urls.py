"""Whether an upstream's URL may be configured at all; where it leads is looked at again at every dial."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.upstream.addresses import Network, refusal


def url_fault(url: str, allowed: Iterable[Network]) -> str | None:
    """What is wrong with `url` as a target, or None. Names are not resolved here: they may change later."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # brackets that do not close, characters that normalize to others (NFKC)
        return "is not a URL"
    try:
        address = ip_address(host)
    except ValueError:
        if host == "localhost" or host.endswith(".localhost"):
            address = ip_address("127.0.0.1")
        else:
            return None
    why = refusal(address, allowed)
    return why and f"{why}; only the operator can allow it, in upstreams.allow_networks of the settings"
