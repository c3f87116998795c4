"""`[limits]` is judged when Redis is used, and all that does not fit together is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.limits_settings import LimitsSettings, host_and_port
from gateway.settings import SettingsError, load

REDIS = '[limits]\nstore = "redis"\n'
HERE = REDIS + 'addresses = ["127.0.0.1:6379"]\n'


def faults(folder: Path, text: str, **environment: str) -> dict[str, str]:
    file = folder / "orgate.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file, environment)
    return {key: wrong for key, wrong, _ in caught.value.faults}


def sound(folder: Path, text: str, **environment: str) -> LimitsSettings:
    file = folder / "orgate.toml"
    file.write_text(text)
    return load(file, environment).limits


def test_without_redis_nothing_of_it_is_asked_for(tmp_path: Path) -> None:
    assert sound(tmp_path, "").store == "embedded"
    sound(tmp_path, '[limits]\ntopology = "sentinel"\nca = "none.pem"\n')


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("localhost:6379", ("localhost", 6379)),
        ("redis.example:1", ("redis.example", 1)),
        ("[::1]:6379", ("::1", 6379)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
    ],
)
def test_addresses_that_are_taken(text: str, found: tuple[str, int]) -> None:
    assert host_and_port(text) == found
    assert LimitsSettings(addresses=(text,)).hosts() == [found]


@pytest.mark.parametrize(
    "text",
    [
        "redis",
        "redis:",
        ":6379",
        "redis:0",
        "redis:65536",
        "redis:x",
        "u:p@redis:1",
        "redis:1/0",
        "redis://r:1",
        "[::1",
        "r:1?x",
    ],
)
def test_addresses_that_are_none(tmp_path: Path, text: str) -> None:
    assert host_and_port(text) is None
    assert "limits.addresses.0" in faults(tmp_path, f'{REDIS}addresses = ["{text}"]\n')


def test_the_environment_gives_a_list_with_commas(tmp_path: Path) -> None:
    more = {"ORGATE_LIMITS__ADDRESSES": "127.0.0.1:1, 127.0.0.1:2", "ORGATE_LIMITS__TOPOLOGY": "cluster"}
    assert sound(tmp_path, REDIS, **more).hosts() == [("127.0.0.1", 1), ("127.0.0.1", 2)]


def test_an_address_is_needed(tmp_path: Path) -> None:
    assert faults(tmp_path, REDIS) == {"limits.addresses": "is empty"}


def test_several_addresses_of_a_single_one_are_a_mistake(tmp_path: Path) -> None:
    found = faults(tmp_path, REDIS + 'addresses = ["127.0.0.1:1", "127.0.0.1:2"]\n')
    assert found == {"limits.addresses": "names several servers, and one would be used"}


def test_sentinels_need_a_name(tmp_path: Path) -> None:
    assert faults(tmp_path, HERE + 'topology = "sentinel"\n') == {"limits.master": "is missing"}
    sound(tmp_path, HERE + 'topology = "sentinel"\nmaster = "limits"\n')


@pytest.mark.parametrize("host", ["redis.example", "10.0.0.1", "[2001:db8::1]"])
def test_another_machine_is_spoken_to_over_tls(tmp_path: Path, host: str) -> None:
    there = f'{REDIS}addresses = ["{host}:6379"]\n'
    assert "another machine" in faults(tmp_path, there)["limits.tls"]
    sound(tmp_path, there + "tls = true\n")
    sound(tmp_path, there + "allow_plaintext = true\n")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "[::1]"])
def test_this_machine_may_be_spoken_to_without(tmp_path: Path, host: str) -> None:
    sound(tmp_path, f'{REDIS}addresses = ["{host}:6379"]\n')


def test_files_of_tls_are_there_and_used(tmp_path: Path) -> None:
    assert faults(tmp_path, HERE + 'ca = "ca.pem"\n') == {"limits.ca": "has no meaning without TLS"}
    found = faults(tmp_path, HERE + 'tls = true\nca = "ca.pem"\ncertificate = "own.pem"\n')
    assert set(found) == {"limits.ca", "limits.certificate", "limits.key"}
    for name in ("ca.pem", "own.pem", "own.key"):
        (tmp_path / name).touch()
    sound(tmp_path, HERE + 'tls = true\nca = "ca.pem"\ncertificate = "own.pem"\nkey = "own.key"\n')


def test_a_user_has_a_password(tmp_path: Path) -> None:
    assert faults(tmp_path, HERE + 'username = "orgate"\n') == {"limits.username": "has no password"}
    assert "limits.sentinel_username" in faults(tmp_path, HERE + 'sentinel_username = "orgate"\n')
    given = HERE + 'username = "orgate"\npassword = "redis.password"\n'
    assert set(faults(tmp_path, given)) == {"limits.password"}
    (tmp_path / "redis.password").touch()
    sound(tmp_path, HERE + 'username = "orgate"\npassword = "redis.password"\n')


def test_users_of_organizations_are_derived_from_one(tmp_path: Path) -> None:
    assert "limits.user_per_org" in faults(tmp_path, HERE + "user_per_org = true\n")
    (tmp_path / "redis.password").touch()
    sound(tmp_path, HERE + 'user_per_org = true\nusername = "orgate"\npassword = "redis.password"\n')


@pytest.mark.parametrize("prefix", ["", "a{b}", "a:b", "a*", "A", "-a", "x" * 33])
def test_a_prefix_is_part_of_keys_and_patterns(tmp_path: Path, prefix: str) -> None:
    assert "limits.prefix" in faults(tmp_path, f'{HERE}prefix = "{prefix}"\n')


@pytest.mark.parametrize("user", ["a b", "a\\nb", ">x", "x" * 65])
def test_a_user_is_a_word_of_an_acl(tmp_path: Path, user: str) -> None:
    assert "limits.username" in faults(tmp_path, f'{HERE}username = "{user}"\npassword = "f"\n')


@pytest.mark.parametrize("key", ["timeout_ms", "connect_timeout_ms"])
@pytest.mark.parametrize("value", ["0", "4", "20000", "-1", '"x"'])
def test_times_are_milliseconds_of_a_sensible_size(tmp_path: Path, key: str, value: str) -> None:
    assert f"limits.{key}" in faults(tmp_path, f"{HERE}{key} = {value}\n")
