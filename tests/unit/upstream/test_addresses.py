from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.addresses import judge, refusal
from gateway.upstream.urls import url_fault


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "a loopback address"),
        ("127.8.8.8", "a loopback address"),
        ("::1", "a loopback address"),
        ("0.0.0.0", "the unspecified address"),
        ("::", "the unspecified address"),
        ("10.1.2.3", "a private address"),
        ("172.16.0.1", "a private address"),
        ("192.168.1.1", "a private address"),
        ("fd12:3456::1", "a private address"),
        ("169.254.1.1", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("169.254.169.254", "a cloud metadata address"),
        ("168.63.129.16", "a cloud metadata address"),
        ("100.100.100.200", "a cloud metadata address"),
        ("fd00:ec2::254", "a cloud metadata address"),
        ("100.64.0.1", "a reserved address"),  # carrier-grade NAT, RFC 6598
        ("198.18.0.1", "a private address"),  # benchmarks, RFC 2544
        ("fec0::1", "a reserved address"),
        ("192.0.0.9", "a reserved address"),
        ("192.88.99.1", "a reserved address"),
        ("3fff::1", "a reserved address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "a private address"),
        ("240.0.0.1", "a private address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("::ffff:10.0.0.1", "a private address"),
        ("64:ff9b::a9fe:a9fe", "a cloud metadata address"),  # NAT64 of 169.254.169.254
        ("64:ff9b::7f00:1", "a loopback address"),
        ("::7f00:1", "a tunnel address"),
        ("2002:7f00:1::", "a tunnel address"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "a tunnel address"),
        ("8.8.8.8", None),
        ("2606:4700:4700::1111", None),
        ("64:ff9b::808:808", None),
    ],
)
def test_refusal(address: str, reason: str | None) -> None:
    assert refusal(ip_address(address)) == reason


def test_what_the_operator_allows_wins() -> None:
    allowed = (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert refusal(ip_address("10.1.2.3"), allowed) is None
    assert refusal(ip_address("::ffff:10.1.2.3"), allowed) is None
    assert refusal(ip_address("::1"), allowed) is None
    assert refusal(ip_address("127.0.0.1"), allowed) == "a loopback address"
    assert refusal(ip_address("169.254.169.254"), (ip_network("0.0.0.0/0"),)) is None


def test_judge_splits_and_keeps_the_order() -> None:
    found = ["8.8.8.8", "10.0.0.1", "1.1.1.1", "8.8.8.8", "10.0.0.2", "::1"]
    assert judge(found) == (["8.8.8.8", "1.1.1.1"], ["a private address", "a loopback address"])
    assert judge([]) == ([], [])


@given(st.ip_addresses())
def test_nothing_but_global_unicast_passes(address: object) -> None:
    parsed = ip_address(str(address))
    if refusal(parsed) is None:
        mapped = getattr(parsed, "ipv4_mapped", None)
        assert (mapped or parsed).is_global
        assert not parsed.is_multicast


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_fares_the_same_in_ipv6_clothes(address: object) -> None:
    plain = refusal(ip_address(str(address)))
    assert refusal(ip_address(f"::ffff:{address}")) == plain
    assert refusal(ip_address(f"64:ff9b::{address}")) == plain


@pytest.mark.parametrize("url", ["https://[::1/", "https://a]b/", "https://h\u2100.example/"])
def test_what_cannot_be_taken_apart_is_no_url(url: str) -> None:
    """It comes here from a body that nothing has looked at yet."""
    assert url_fault(url, ()) == "is not a URL"


def test_a_url_is_judged_by_its_host() -> None:
    assert "loopback" in (url_fault("https://[::1]/", ()) or "")
    assert url_fault("https://api.example.com/", ()) is None
