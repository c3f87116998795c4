"""The schema of trust in outside tokens, beside that of `tables`. Of the control process alone."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, ForeignKeyConstraint, Table, Text

from tenants.sql.client_tables import services
from tenants.sql.dialect import key_text
from tenants.sql.tables import metadata

service_trusts = Table(
    "service_trusts",
    metadata,
    Column("org", key_text(40), ForeignKey("orgs.id", ondelete="CASCADE"), primary_key=True),
    Column("name", key_text(64), primary_key=True),
    Column("service", key_text(64), nullable=False),
    Column("issuer", Text, nullable=False),
    Column("audience", Text, nullable=False),
    Column("claims", Text, nullable=False),
    Column("planes", Text, nullable=False),
    Column("ca_pem", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    # Who deletes a service account deletes whatever was trusted to stand for it.
    ForeignKeyConstraint(["org", "service"], [services.c.org, services.c.id], ondelete="CASCADE"),
)
