"""The authorization server's tables, in the control store's database. Times are Unix seconds."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()
"""A column that is added later has a `server_default`: what rows that were written before it mean."""

CLIENT: Final = 120
"""The longest client id: an organization's id, a dot, a name."""

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
    Column("client", String(CLIENT), nullable=False),
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
    Column("client", String(CLIENT), nullable=False),
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
    Column("jkt", String(43), nullable=False, server_default=""),
    Index("oauth_codes_member", "org", "member"),
)
families = Table(
    "oauth_families",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("org", String(40), nullable=False),
    Column("member", String(64), nullable=False),
    Column("client", String(CLIENT), nullable=False),
    Column("current", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("recent", Text, nullable=False),
    Column("ended_at", Float, nullable=False),
    Column("amr", Text, nullable=False, server_default=""),
    Column("auth_time", BigInteger, nullable=False, server_default="0"),
    Column("jkt", String(43), nullable=False, server_default=""),
    Index("oauth_families_member", "org", "member"),
)
# Ids of client assertions that were used (RFC 7523), until they have expired.
assertions = Table(
    "oauth_assertions",
    metadata,
    Column("org", String(40), primary_key=True),
    Column("client", String(CLIENT), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("expires_at", Float, nullable=False, index=True),
)
# Authorization requests that were pushed (RFC 9126) and not taken yet. `org` is the client's, '' for everybody's.
pushed = Table(
    "oauth_pushed",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("org", String(40), nullable=False),
    Column("client", String(CLIENT), nullable=False),
    Column("form", Text, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
)
# Second factors. `key` is sealed or public (`gateway.oauth.factors_store`).
factors = Table(
    "oauth_factors",
    metadata,
    Column("org", String(40), primary_key=True),
    Column("member", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("credential", Text, nullable=False),
    Column("sign_count", BigInteger, nullable=False),
    Column("mark", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    UniqueConstraint("org", "credential"),
)
recovery = Table(
    "oauth_recovery",
    metadata,
    Column("org", String(40), primary_key=True),
    Column("member", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
)
