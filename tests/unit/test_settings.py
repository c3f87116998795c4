"""Settings are judged together: every fault with its key and what to do, from the file and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import SettingsError, load


def written(folder: Path, text: str) -> Path:
    file = folder / "orgate.toml"
    file.write_text(text)
    return file


def faults(file: Path, environment: dict[str, str] | None = None) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        load(file, environment or {})
    assert str(caught.value).count("\n") == len(caught.value.faults)
    return {key: f"{wrong}; {fix}" for key, wrong, fix in caught.value.faults}


def test_an_empty_file_is_all_defaults_under_its_folder(tmp_path: Path) -> None:
    settings = load(written(tmp_path, ""), {})
    assert settings.database == tmp_path / "control.db"
    assert (settings.public.port, settings.admin.port, settings.tokens.access_s) == (8443, 8444, 900)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        home = "elsewhere"
        [server]
        url = "http://gateway.example"
        workers = 0
        wrokers = 2
        [tokens]
        access_s = 60
        [store]
        url = "mysql:x"
        [upstreams]
        allow_networks = ["10.0.0.0/8", "everything"]
        """,
    )
    found = faults(file, {"ORGATE_SERVERS__URL": "x"})
    assert set(found) == {
        "home",
        "server.url",
        "server.workers",
        "server.wrokers",
        "tokens.access_s",
        "store.url",
        "upstreams.allow_networks.1",
        "ORGATE_SERVERS__URL",
    }
    assert all("; " in told and not told.endswith("; ") for told in found.values())


@pytest.mark.parametrize(
    "url",
    [
        "gateway.example",
        "https://",
        "https://u@x",
        "https://x/path",
        "https://x?q",
        "https://x:0",
        "https://x:99999",
    ],
)
def test_a_url_that_is_no_origin_is_refused(tmp_path: Path, url: str) -> None:
    assert "server.url" in faults(written(tmp_path, f'[server]\nurl = "{url}"\n'))


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[server]\nworkers = 2\n")
    environment = {
        "ORGATE_SERVER__WORKERS": "3",
        "ORGATE_SERVER__URL": "https://gateway.example/",
        "ORGATE_UPSTREAMS__ALLOW_NETWORKS": "10.0.0.0/8, ::1/128",
        "ORGATE_SETTINGS": "not a setting",
    }
    settings = load(file, environment)
    assert (settings.server.workers, settings.server.url) == (3, "https://gateway.example")
    assert settings.upstreams.allow_networks == ("10.0.0.0/8", "::1/128")


def test_both_listeners_on_one_address_are_refused(tmp_path: Path) -> None:
    assert "admin.port" in faults(written(tmp_path, "[admin]\nport = 8443\n"))


@pytest.mark.parametrize("text", ["[server", "\x00"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, text: str) -> None:
    assert "is not TOML" in next(iter(faults(written(tmp_path, text)).values()))


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    assert "cannot be read" in next(iter(faults(tmp_path / "none.toml").values()))
