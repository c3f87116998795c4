"""The schema. One column a field of `tenants.models`; tuples are JSON text; times are Unix seconds.

Every table of an organization's things has `org` first in its primary key. The outbox, the revocations and
the tombstones have no foreign key on `orgs`: they outlive the organization.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from tenants.sql.dialect import key_text

metadata = MetaData()


def _org() -> Column[str]:
    return Column("org", key_text(40), ForeignKey("orgs.id", ondelete="CASCADE"), primary_key=True)


def _key(name: str) -> Column[str]:
    return Column(name, key_text(64), primary_key=True)


def _text(name: str, added: str | None = None) -> Column[str]:
    """`added`: the value of rows written before this column was (a later schema's)."""
    return Column(name, Text, nullable=False, server_default=added)


def _number(name: str, added: int | None = None) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=None if added is None else str(added))


def _budget() -> tuple[Column[Any], ...]:
    """One window of one budget."""
    return (
        _org(),
        Column("limit", key_text(80), primary_key=True),
        Column("subject", key_text(300), primary_key=True),
        Column("starts_s", BigInteger, primary_key=True, autoincrement=False),
    )


schema = Table(
    "control_schema",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    _number("version"),
)

# One row. Every writer locks it first, so versions and sequence numbers rise in the order of the commits.
counters = Table(
    "control_counters",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    _number("version"),
    _number("seq"),
)

orgs = Table(
    "orgs",
    metadata,
    _key("id"),
    _text("name"),
    _text("state"),
    _text("hosts"),
    _number("supersede", 0),
    _number("deadline_ms", 0),
    _text("holds", "[]"),
    _text("timezone", "UTC"),
    _number("weight", 1),
    _text("durability", "buffered"),
    _number("audit_retention_days", 0),
    _text("audit_hold", ""),
    _number("audit_prompt_hash", 0),
    _number("personal_tokens", 0),
    _text("dpop", "off"),
    _text("second_factor", "[]"),
    _number("created_at"),
    _number("version"),
    _number("touched"),  # the store's version at the last write the data plane should see
    Index("orgs_touched", "touched"),
)

tombstones = Table(
    "org_tombstones",
    metadata,
    _key("org"),
    _number("removed_at"),
    _number("removed_in"),  # the store's version that removed it
)

members = Table(
    "members",
    metadata,
    _org(),
    _key("id"),
    _text("email"),
    _text("email_key"),  # what is compared: see `rows.email_key`
    _text("name"),
    _text("roles"),
    _text("state"),
    _number("not_before"),
    _number("created_at"),
    _number("version"),
    UniqueConstraint("org", "email_key", name="members_email"),
)

teams = Table(
    "teams",
    metadata,
    _org(),
    _key("name"),
    _text("title"),
    _number("created_at"),
    _number("version"),
)

# Both ends are of the organization by construction: a team cannot hold another's member.
team_members = Table(
    "team_members",
    metadata,
    _org(),
    _key("team"),
    _key("member"),
    _number("added_at"),
    _number("lead", 0),
    ForeignKeyConstraint(["org", "team"], ["teams.org", "teams.name"], ondelete="CASCADE"),
    ForeignKeyConstraint(["org", "member"], ["members.org", "members.id"], ondelete="CASCADE"),
    Index("team_members_by_member", "org", "member"),
)

upstreams = Table(
    "upstreams",
    metadata,
    _org(),
    _key("name"),
    _text("base_url"),
    _text("protocol"),
    _text("ca_pem"),
    _number("connections"),
    _number("connect_timeout_ms"),
    _number("first_byte_timeout_ms"),
    _number("idle_timeout_ms"),
    _number("total_timeout_ms", 0),
    _number("max_in_flight", 0),
    _number("max_queue", 64),
    _number("connection_age_s", 3_600),
    _number("connection_resets", 900),
    _number("client_cert_version", 0),
    _text("auth", "bearer"),
    _number("key_version"),
    _number("version"),
)

models = Table(
    "models",
    metadata,
    _org(),
    _key("name"),
    Column("upstream", key_text(64), nullable=False),
    _text("model"),
    _text("tasks"),
    _number("max_tokens"),
    _number("version"),
    # Within the organization by construction: an alias cannot lead to another's upstream.
    ForeignKeyConstraint(["org", "upstream"], ["upstreams.org", "upstreams.name"], name="models_upstream"),
    Index("models_by_upstream", "org", "upstream"),
)

limits = Table(
    "limits",
    metadata,
    _org(),
    _key("name"),
    _text("scope"),
    _text("unit"),
    _number("amount"),
    _number("period_s"),
    _number("burst"),
    _text("subject"),
    _text("window", ""),
    _text("on_outage", "local"),
    _text("on_end", "finish"),
    _text("notify_at", "[]"),
    _number("version"),
)

# Each import is a version of the whole table; what a version says is never changed.
price_imports = Table(
    "price_imports",
    metadata,
    _org(),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    _number("at"),
    _text("by"),
    _text("by_org"),
    _number("count"),
)

prices = Table(
    "prices",
    metadata,
    _org(),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("model", key_text(200), primary_key=True),
    _number("input"),
    _number("output"),
)

rules = Table(
    "rules",
    metadata,
    _org(),
    _key("name"),
    _text("effect"),
    _text("roles"),
    _text("actions"),
    _text("models"),
    _number("version"),
)

# Of the control process alone: no worker reads it.
upstream_keys = Table(
    "upstream_keys",
    metadata,
    _org(),
    _key("name"),
    _text("state"),
    _number("stored"),
    _number("set_at"),
    _number("used_at"),
    _number("overlap_s"),
    _number("overlap_ends_at"),
    _number("every_s"),
    _number("next_at"),
    _text("command"),
    _text("revoke"),
    _number("rotate_overlap_s"),
    _text("failure"),
)

# The next three are of the control process alone. A limit may be one of the platform's: `platform/<name>`.
budget_uses = Table(
    "budget_uses",
    metadata,
    *_budget(),
    _number("ends_s"),
    _text("unit"),
    _number("amount"),
    _number("used"),
    _number("at_us"),
    _number("lent", 0),
    Index("budget_uses_end", "ends_s"),
)

budget_notices = Table(
    "budget_notices",
    metadata,
    *_budget(),
    Column("percent", BigInteger, primary_key=True, autoincrement=False),
    _number("ends_s"),
    _text("unit"),
    _number("amount"),
    _number("used"),
    _number("at"),
    _text("state"),
    _number("attempts"),
    _number("next_at"),
    Index("budget_notices_due", "state", "next_at"),
    Index("budget_notices_end", "ends_s"),
)

webhooks = Table(
    "webhooks",
    metadata,
    _org(),
    _text("url"),
    _text("ca_pem"),
    _number("set_at"),
    _number("delivered_at"),
    _text("failure"),
    _number("version"),
)

# Of the control process alone, both.
audit_streams = Table(
    "audit_streams",
    metadata,
    _org(),
    _key("name"),
    _text("kind"),
    _text("url"),
    _text("format"),
    _text("ca_pem"),
    _text("index"),
    _text("sourcetype"),
    _number("ack"),
    _text("region"),
    _number("from_start"),
    _number("paused"),
    _number("secret_version"),
    _number("version"),
)

audit_stream_places = Table(
    "audit_stream_places",
    metadata,
    _org(),
    _key("name"),
    _number("position"),
    _number("delivered_at"),
    _number("failing_since"),
    _text("failure"),
    _number("skipped"),
    _number("rejected"),
)

revocations = Table(
    "revocations",
    metadata,
    _key("org"),
    Column("member", key_text(120), primary_key=True),  # or a client's id: two names and a dot
    Column("token_id", key_text(128), primary_key=True),
    _number("not_before"),
    _number("expires_at"),
    Index("revocations_expiry", "expires_at"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _number("at"),
    _text("org"),
    _text("action"),
    _text("target"),
    _text("actor"),
    _text("detail"),
)

# The next three have no foreign key: entries of an organization that is gone still have their people. Of the
# control process alone.
data_keys = Table("data_keys", metadata, _key("org"), _text("id"), _text("wrapped"), _number("made_at"))

persons = Table(
    "persons",
    metadata,
    _key("org"),
    _key("id"),
    Column("finder", key_text(64), nullable=False),
    _text("key"),
    _text("member"),
    _number("made_at"),
    UniqueConstraint("org", "finder", name="persons_finder"),
)

erased_persons = Table("erased_persons", metadata, _key("org"), _key("finder"), _number("erased_at"))


# What is known of each day of an audit log: of the control process alone, and without a foreign key, as a log
# outlives its organization.
def _day() -> tuple[Column[Any], ...]:
    return _key("org"), Column("day", BigInteger, primary_key=True, autoincrement=False)


audit_days = Table(
    "audit_days", metadata, *_day(), _number("start"), _number("end"), _number("requests"), _number("at")
)

audit_tallies = Table(
    "audit_tallies",
    metadata,
    *_day(),
    _key("boot"),
    _number("requests"),
    _number("prompt_tokens"),
    _number("completion_tokens"),
    _number("nanodollars"),
    _number("at"),
    _number("ended"),
)

refused_minutes = Table(
    "refused_minutes",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    _key("boot"),
)

audit_verdicts = Table("audit_verdicts", metadata, *_day(), _number("differences"), _number("at"), _number("told"))
