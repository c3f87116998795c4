"""Every route of the data plane × acme's model and one that never existed × every kind of credential."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.api.data.routes import ROUTES
from tests.isolation.place import CANARY, Place, everything, shape

STRANGERS = {
    "none": 401,
    "forged": 401,
    "expired": 401,
    "swapped audience": 401,
    "another's member": 404,
    "another's owner": 404,
}
INPUT: dict[str, dict[str, Any]] = {
    "completions": {"prompt": "x"},
    "chat": {"messages": [{"role": "user"}]},
    "embeddings": {"input": "x"},
}
CLAIMED = {
    "x-orgate-org": "acme",
    "openai-organization": "acme",
    "x-forwarded-host": "acme.example",
    "host": "acme",
}
"""Headers by which a caller says it is somebody else. The token alone says who it is."""


def calls(model: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for route in ROUTES:
        if route.below:
            yield route.method, f"{route.path}/{model}", {}
        else:
            yield route.method, route.path, {"json": {"model": model, **INPUT[route.task]}}


@pytest.mark.parametrize("credential", STRANGERS)
def test_acmes_model_is_as_one_that_never_existed(place: Place, credential: str) -> None:
    real, absent = place.real("models"), place.absent("models")
    before = everything(place)
    for (method, path, body), (_, twin, other) in zip(calls(real), calls(absent), strict=True):
        for headers in ({}, CLAIMED):
            there = place.send(method, place.gateway.url + path, credential, "data", headers=headers, **body)
            never = place.send(method, place.gateway.url + twin, credential, "data", headers=headers, **other)
            assert shape(there, real) == shape(never, absent), (method, path)
            assert there.status_code == STRANGERS[credential], (method, path, there.text)
            assert CANARY not in there.text.replace(real, "")
    assert everything(place) == before


@pytest.mark.parametrize("credential", ["another's member", "another's owner"])
def test_a_listing_is_of_the_callers_own_organization(place: Place, credential: str) -> None:
    answer = place.send("GET", place.gateway.url + "/v1/models", credential, "data", headers=CLAIMED)
    assert answer.status_code == 200
    assert answer.json() == {"object": "list", "data": []}


@pytest.mark.parametrize("path", ["/bus/v1/stream", "/bus/v1/ack", "/bus/v1/slices", "/bus/v1/spool", "/metrics"])
def test_what_is_not_for_the_public_is_not_there(place: Place, path: str) -> None:
    """Nor is the bus on the admin listener; `/metrics` is, for operators (and scrapers on this machine)."""
    for method in ("GET", "POST"):
        assert place.send(method, place.gateway.url + path, "another's owner", "data").status_code == 404
        if path != "/metrics":
            assert (
                place.send(method, place.gateway.admin_url + path, "another's owner", "admin").status_code == 404
            )
    headers = {"x-forwarded-for": "203.0.113.9"}
    elsewhere = place.send(
        "GET", place.gateway.admin_url + "/metrics", "another's owner", "admin", headers=headers
    )
    assert elsewhere.status_code == 403
