"""Rotations under load, on each store of keys, in the size of a test."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.kit.upstream import RecordingUpstream
from tests.rotation.run import PREFIX, Figures, Provider, gateway_on, planted, rotate_under_load


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sealed", "fake", "real"])
def test_rotations_under_load_cost_no_request(backend: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with gateway_on(backend, home) as gateway:
        owner = gateway.owner()
        figures = asyncio.run(rotate_under_load(gateway, owner, backend, 400))
        exported = gateway.http.get(gateway.admin_url + "/metrics").text
    assert figures.statuses == {"200": figures.requests}
    assert figures.retried, "no request met a dead key"
    rounds = figures.turned_away  # on a fast machine 400 completions are served while the first lasts
    assert rounds
    assert (figures.rotations, figures.rolled_back) == (2 * rounds, rounds)
    for outcome, count in (("rotated", 3 * rounds), ("rolled_back", rounds), ("not_taken", rounds)):
        (line,) = [text for text in exported.splitlines() if f'outcome="{outcome}"}}' in text]
        assert line.startswith("orgate_key_rotations_total")
        assert line.endswith(f" {count}")
    assert PREFIX not in exported
    assert planted(home) == []


def test_the_look_for_a_planted_key_can_fail(tmp_path: Path) -> None:
    (tmp_path / "serve.log").write_text(f"refused {PREFIX}3\n")
    assert planted(tmp_path) == [tmp_path / "serve.log"]


def test_a_failure_is_a_fault() -> None:
    def figures(failures: int = 0, retried: int = 1, switch_s: float = 0.1) -> Figures:
        return Figures("sealed", 10, failures, {}, 1, 1, 1, retried, switch_s, 1.0, 1.0)

    assert figures().faults == []
    assert all(worse.faults for worse in (figures(failures=1), figures(retried=0), figures(switch_s=5.1)))


async def test_the_model_refuses_what_it_should() -> None:
    provider = Provider("good")
    provider.fading["bad"] = 1
    async with RecordingUpstream(script=provider) as upstream, httpx.AsyncClient(trust_env=False) as client:

        async def ask(key: str) -> int:
            headers = {"authorization": f"Bearer {key}"}
            body = {"model": "m", "prompt": "x"}
            return (await client.post(f"{upstream.url}/v1/completions", headers=headers, json=body)).status_code

        assert [await ask(key) for key in ("good", "bad", "bad", "other")] == [200, 200, 401, 401]
