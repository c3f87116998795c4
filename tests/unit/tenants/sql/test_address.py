"""`settings.store.url`: what it may be, and that it never repeats what it is not."""

from __future__ import annotations

import pytest

from tenants.sql.address import parameters, shown, sqlite_path, with_role


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://orgate@127.0.0.1/control", {"host": "127.0.0.1", "port": "5432", "dbname": "control"}),
        ("postgresql://orgate@localhost:6000/control", {"host": "localhost", "port": "6000"}),
        ("postgresql://orgate@[::1]:6000/control", {"host": "::1", "port": "6000"}),
        ("postgresql://orgate@/control?host=/run/postgresql", {"host": "/run/postgresql", "user": "orgate"}),
        (
            "postgresql://orgate@a.example,b.example:6000/control?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            {
                "host": "a.example,b.example",
                "port": "5432,6000",
                "target_session_attrs": "read-write",
                "sslmode": "verify-full",
                "sslrootcert": "/etc/ca.pem",
            },
        ),
    ],
)
def test_a_url_becomes_what_libpq_is_told(url: str, told: dict[str, str]) -> None:
    found = parameters(url)
    assert found.items() >= told.items()
    assert "password" not in found


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("postgresql://orgate:hunter2@127.0.0.1/control", "no password"),
        ("postgresql://orgate@127.0.0.1/control?password=hunter2", "no password"),
        ("postgresql://orgate@db.example/control", "does not ask who that is"),
        ("postgresql://orgate@db.example/control?sslmode=require", "sslmode=verify-full"),
        ("postgresql://orgate@127.0.0.1,db.example/control", "leads to db.example"),
        ("postgresql://orgate@127.0.0.1/control?options=-cfsync=off", "'options'"),
        ("postgresql://127.0.0.1/control", "ROLE@HOST"),
        ("postgresql://orgate@127.0.0.1/", "ROLE@HOST"),
        ("postgresql://orgate@127.0.0.1:0/control", "ROLE@HOST"),
        ("postgresql://orgate@127.0.0.1:hunter2/control", "ROLE@HOST"),
        ("postgresql:control", "ROLE@HOST"),
        ("postgresql://orgate@/control", "name a host"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_repeating_it(url: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong) as refused:
        parameters(url)
    assert "hunter2" not in str(refused.value)


def test_a_file_and_another_role() -> None:
    assert sqlite_path("sqlite:control.db") == "control.db"
    with pytest.raises(ValueError, match="sqlite:PATH"):
        sqlite_path("sqlite:")
    assert with_role("postgresql://a@h/db?sslmode=verify-ca", "b") == "postgresql://b@h/db?sslmode=verify-ca"
    assert shown("postgresql://a@h/db?sslcert=x") == "postgresql://a@h/db"
