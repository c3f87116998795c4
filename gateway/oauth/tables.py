"""The authorization server's tables, in the control store's database. Times are Unix seconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()
"""A column that is added later has a `server_default`: what rows that were written before it mean."""

passwords = Table(
    "oauth_passwords",
    metadata,
    Column("org", String(40), primary_key=True),
    Column("member", String(64), primary_key=True),
    Column("hash", Text, nullable=False),
)
attempts = Table(
    "oauth_attempts",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("retry_at", Float, nullable=False),
    Column("at", Float, nullable=False, index=True),
)
invitations = Table(
    "oauth_invitations",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("org", String(40), nullable=False),
    Column("member", String(64), nullable=False),
    Column("expires_at", Integer, nullable=False),
    Index("oauth_invitations_member", "org", "member"),
)
devices = Table(
    "oauth_devices",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("user_code_digest", String(64), nullable=False, unique=True),
    Column("client", String(64), nullable=False),
    Column("resource", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("interval", Float, nullable=False),
    Column("status", String(16), nullable=False),
    Column("org", String(40), nullable=False),
    Column("member", String(64), nullable=False),
    Column("polled_at", Float, nullable=False),
    Column("amr", Text, nullable=False, server_default=""),
    Column("auth_time", BigInteger, nullable=False, server_default="0"),
)
codes = Table(
    "oauth_codes",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("client", String(64), nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("challenge", String(64), nullable=False),
    Column("org", String(40), nullable=False),
    Column("member", String(64), nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("family", String(64), nullable=False),
    Column("token_id", String(128), nullable=False),
    Column("amr", Text, nullable=False, server_default=""),
    Column("auth_time", BigInteger, nullable=False, server_default="0"),
    Index("oauth_codes_member", "org", "member"),
)
families = Table(
    "oauth_families",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("org", String(40), nullable=False),
    Column("member", String(64), nullable=False),
    Column("client", String(64), nullable=False),
    Column("current", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("recent", Text, nullable=False),
    Column("ended_at", Float, nullable=False),
    Column("amr", Text, nullable=False, server_default=""),
    Column("auth_time", BigInteger, nullable=False, server_default="0"),
    Index("oauth_families_member", "org", "member"),
)
