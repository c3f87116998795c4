from __future__ import annotations

import httpx
import pytest

from gateway.upstream.dial import origin_of
from tenants.ids import OrgId
from tenants.models import Upstream


@pytest.mark.parametrize("host", ["xn--a", "xn--zzzzzz.example", "xn--0.xn--0"])
def test_a_name_that_is_no_punycode_is_the_resolvers_to_refuse(host: str) -> None:
    origin = origin_of(Upstream(org=OrgId("acme"), name="models", base_url=f"https://{host}:8443/x"))
    assert (origin.host, origin.port) == (host, 8443)


@pytest.mark.parametrize("url", ["ftp://model.test", "https://", "https://[::1"])
def test_what_leads_nowhere_is_no_origin(url: str) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        origin_of(Upstream(org=OrgId("acme"), name="models", base_url=url))
