"""Which addresses an upstream's host name may lead to.

An organization writes its own upstream URLs, so a URL is hostile input: it must not make the gateway talk to
itself, to its neighbours or to a cloud's metadata server (server-side request forgery, CWE-918). The check is
on the resolved address, and that same address is dialled: a name that changes its mind in between (DNS
rebinding) gains nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

METADATA = (
    IPv4Address("169.254.169.254"),  # AWS, Azure, GCP, OpenStack
    IPv4Address("168.63.129.16"),  # Azure's host agent: a public address that is anything but
    IPv4Address("100.100.100.200"),  # Alibaba Cloud
    IPv6Address("fd00:ec2::254"),  # AWS
)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_TUNNELS = (
    IPv6Network("2002::/16"),  # 6to4, RFC 3056
    IPv6Network("2001::/32"),  # Teredo, RFC 4380
    IPv6Network("64:ff9b:1::/48"),  # local NAT64, RFC 8215
    IPv6Network("::/96"),  # IPv4-compatible, deprecated
)
_UNROUTED = (
    IPv4Network("192.0.0.0/24"),  # IETF protocol assignments, RFC 6890
    IPv4Network("192.88.99.0/24"),  # 6to4 relays, deprecated by RFC 7526
    IPv6Network("fec0::/10"),  # site-local, deprecated by RFC 3879 and still in use
    IPv6Network("3fff::/20"),  # documentation, RFC 9637
)
"""What Python 3.11's tables take for globally routable."""


def refusal(address: Address, allowed: Iterable[Network] = ()) -> str | None:
    """Why `address` must not be dialled, in a few words; None when it may be.

    Refused: everything that is not globally routable unicast (RFC 6890), cloud metadata servers, and IPv6
    forms that carry such an IPv4 address. `allowed`: the operator's exceptions; they win.
    """
    address = _carried(address)
    if any(address.version == network.version and address in network for network in allowed):
        return None
    if address in METADATA:
        return "a cloud metadata address"
    for matches, what in (
        (address.is_loopback, "a loopback address"),
        (address.is_link_local, "a link-local address"),
        (address.is_multicast, "a multicast address"),
        (address.is_unspecified, "the unspecified address"),
        (address.version == 6 and any(address in tunnel for tunnel in _TUNNELS), "a tunnel address"),
        (address.is_private, "a private address"),
        (any(address.version == net.version and address in net for net in _UNROUTED), "a reserved address"),
        (address.is_reserved or not address.is_global, "a reserved address"),
    ):
        if matches:
            return what
    return None


def judge(found: Sequence[str], allowed: Iterable[Network] = ()) -> tuple[list[str], list[str]]:
    """Split the addresses a host name resolved to into those to dial and the reasons against the others."""
    networks = tuple(allowed)
    admitted: list[str] = []
    reasons: list[str] = []
    for text in dict.fromkeys(found):
        reason = refusal(ip_address(text), networks)
        if reason is None:
            admitted.append(text)
        else:
            reasons.append(reason)
    return admitted, list(dict.fromkeys(reasons))


def _carried(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped (`::ffff:a.b.c.d`) or NAT64 address, else the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
