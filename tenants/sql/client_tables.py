"""The schema of registered clients and service accounts, beside that of `tables`. Of the control process alone."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKeyConstraint, Table, UniqueConstraint

from tenants.sql import columns
from tenants.sql.dialect import key_text
from tenants.sql.tables import metadata

services = Table(
    "services",
    metadata,
    columns.org(),
    Column("id", key_text(64), primary_key=True),
    Column("name", key_text(64), nullable=False),
    columns.text("roles"),
    columns.text("state"),
    columns.number("not_before"),
    columns.number("created_at"),
    columns.number("version"),
    UniqueConstraint("org", "name", name="services_name"),
)

clients = Table(
    "oauth_clients",
    metadata,
    columns.org(),
    Column("name", key_text(64), primary_key=True),
    columns.text("title"),
    columns.text("auth_method"),
    columns.text("grant_types"),
    columns.text("planes"),
    columns.text("redirect_uris"),
    columns.text("jwks"),
    Column("service", key_text(64), nullable=False),  # '' for none, so no foreign key: the repositories see to it
    columns.number("require_par"),
    columns.text("state"),
    columns.number("created_at"),
    columns.number("version"),
)

client_secrets = Table(
    "oauth_client_secrets",
    metadata,
    columns.org(),
    Column("client", key_text(64), primary_key=True),
    Column("digest", key_text(64), primary_key=True),
    columns.number("created_at"),
    columns.number("expires_at"),
    ForeignKeyConstraint(["org", "client"], ["oauth_clients.org", "oauth_clients.name"], ondelete="CASCADE"),
)
