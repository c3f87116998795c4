"""What `orgate serve` finds wrong before it starts anything, each told with its setting and what to do."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.pki import write_development_tls
from gateway.secrets.masterkey import create_master_key
from gateway.serve import CannotServeError, examine
from gateway.settings import AdminListener, PublicListener, Settings
from tests.kit.ports import free_port


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    write_development_tls(tmp_path / "tls", ["127.0.0.1"])
    create_master_key(tmp_path / "master.key")
    return Settings(home=tmp_path, public=PublicListener(port=free_port()), admin=AdminListener(port=free_port()))


def test_a_good_installation_passes(settings: Settings) -> None:
    examine(settings)


def lose_the_certificate(home: Path) -> None:
    (home / "tls" / "server.pem").unlink()


def swap_the_key(home: Path) -> None:
    write_development_tls(home / "other", ["127.0.0.1"])
    (home / "other" / "server.key").rename(home / "tls" / "server.key")


def open_the_master_key(home: Path) -> None:
    (home / "master.key").chmod(0o644)


def lose_the_database(home: Path) -> None:
    (home / "audit" / "orgs" / "acme").mkdir(parents=True)


@pytest.mark.parametrize(
    ("harm", "told", "fix"),
    [
        (lose_the_certificate, "public.certificate", "orgate init"),
        (swap_the_key, "cannot be used", "one PEM pair"),
        (open_the_master_key, "chmod 600", "sealed file"),
        (lose_the_database, "control.db is missing", "backup"),
    ],
)
def test_each_mistake_is_named(settings: Settings, harm: Callable[[Path], None], told: str, fix: str) -> None:
    harm(settings.home)
    with pytest.raises(CannotServeError) as caught:
        examine(settings)
    assert told in str(caught.value)
    assert fix in caught.value.fix


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_somebody_listens_on_is_not_shared(settings: Settings, shared: bool) -> None:
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", settings.admin.port))
        other.listen()
        with pytest.raises(CannotServeError) as caught:
            examine(settings)
    assert f"admin: 127.0.0.1:{settings.admin.port}" in str(caught.value)
    assert "admin.port" in caught.value.fix


def test_an_address_that_is_not_ours_is_named(settings: Settings) -> None:
    elsewhere = PublicListener(host="192.0.2.1", port=settings.public.port)
    with pytest.raises(CannotServeError, match=r"public: 192\.0\.2\.1"):
        examine(settings.model_copy(update={"public": elsewhere}))


def test_a_home_too_deep_for_a_socket_is_said(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(CannotServeError, match="107 bytes at most"):
        examine(settings.model_copy(update={"home": tmp_path / ("deep" * 20)}))
