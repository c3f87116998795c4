"""The schema of registered clients and service accounts, beside that of `tables`. Of the control process alone."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, ForeignKeyConstraint, Table, Text, UniqueConstraint

from tenants.sql.dialect import key_text
from tenants.sql.tables import metadata


def _org() -> Column[str]:
    return Column("org", key_text(40), ForeignKey("orgs.id", ondelete="CASCADE"), primary_key=True)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


services = Table(
    "services",
    metadata,
    _org(),
    Column("id", key_text(64), primary_key=True),
    Column("name", key_text(64), nullable=False),
    _text("roles"),
    _text("state"),
    _number("not_before"),
    _number("created_at"),
    _number("version"),
    UniqueConstraint("org", "name", name="services_name"),
)

clients = Table(
    "oauth_clients",
    metadata,
    _org(),
    Column("name", key_text(64), primary_key=True),
    _text("title"),
    _text("auth_method"),
    _text("grant_types"),
    _text("planes"),
    _text("redirect_uris"),
    _text("jwks"),
    Column("service", key_text(64), nullable=False),  # '' for none, so no foreign key: the repositories see to it
    _number("require_par"),
    _text("state"),
    _number("created_at"),
    _number("version"),
)

client_secrets = Table(
    "oauth_client_secrets",
    metadata,
    _org(),
    Column("client", key_text(64), primary_key=True),
    Column("digest", key_text(64), primary_key=True),
    _number("created_at"),
    _number("expires_at"),
    ForeignKeyConstraint(["org", "client"], ["oauth_clients.org", "oauth_clients.name"], ondelete="CASCADE"),
)
