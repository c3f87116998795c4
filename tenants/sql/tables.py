"""The schema. One column a field of `tenants.models`; tuples are JSON text; times are Unix seconds.

Every table of an organization's things has `org` first in its primary key. The outbox, the revocations and
the tombstones have no foreign key on `orgs`: they outlive the organization.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Table,
    UniqueConstraint,
)

from tenants.sql import columns
from tenants.sql.dialect import key_text

metadata = MetaData()


def _budget() -> tuple[Column[Any], ...]:
    """One window of one budget."""
    return (
        columns.org(),
        Column("limit", key_text(80), primary_key=True),
        Column("subject", key_text(300), primary_key=True),
        Column("starts_s", BigInteger, primary_key=True, autoincrement=False),
    )


schema = Table(
    "control_schema",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    columns.number("version"),
)

# One row. Every writer locks it first, so versions and sequence numbers rise in the order of the commits.
counters = Table(
    "control_counters",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    columns.number("version"),
    columns.number("seq"),
)

orgs = Table(
    "orgs",
    metadata,
    columns.key("id"),
    columns.text("name"),
    columns.text("state"),
    columns.text("hosts"),
    columns.number("supersede", 0),
    columns.number("deadline_ms", 0),
    columns.text("holds", "[]"),
    columns.text("timezone", "UTC"),
    columns.number("weight", 1),
    columns.text("durability", "buffered"),
    columns.number("audit_retention_days", 0),
    columns.text("audit_hold", ""),
    columns.number("audit_prompt_hash", 0),
    columns.number("personal_tokens", 0),
    columns.text("dpop", "off"),
    columns.text("second_factor", "[]"),
    columns.number("created_at"),
    columns.number("version"),
    columns.number("touched"),  # the store's version at the last write the data plane should see
    Index("orgs_touched", "touched"),
)

tombstones = Table(
    "org_tombstones",
    metadata,
    columns.key("org"),
    columns.number("removed_at"),
    columns.number("removed_in"),  # the store's version that removed it
)

members = Table(
    "members",
    metadata,
    columns.org(),
    columns.key("id"),
    columns.text("email"),
    columns.text("email_key"),  # what is compared: see `rows.email_key`
    columns.text("name"),
    columns.text("roles"),
    columns.text("state"),
    columns.number("not_before"),
    columns.number("created_at"),
    columns.number("version"),
    UniqueConstraint("org", "email_key", name="members_email"),
)

teams = Table(
    "teams",
    metadata,
    columns.org(),
    columns.key("name"),
    columns.text("title"),
    columns.number("created_at"),
    columns.number("version"),
)

# Both ends are of the organization by construction: a team cannot hold another's member.
team_members = Table(
    "team_members",
    metadata,
    columns.org(),
    columns.key("team"),
    columns.key("member"),
    columns.number("added_at"),
    columns.number("lead", 0),
    ForeignKeyConstraint(["org", "team"], ["teams.org", "teams.name"], ondelete="CASCADE"),
    ForeignKeyConstraint(["org", "member"], ["members.org", "members.id"], ondelete="CASCADE"),
    Index("team_members_by_member", "org", "member"),
)

upstreams = Table(
    "upstreams",
    metadata,
    columns.org(),
    columns.key("name"),
    columns.text("base_url"),
    columns.text("protocol"),
    columns.text("ca_pem"),
    columns.number("connections"),
    columns.number("connect_timeout_ms"),
    columns.number("first_byte_timeout_ms"),
    columns.number("idle_timeout_ms"),
    columns.number("total_timeout_ms", 0),
    columns.number("max_in_flight", 0),
    columns.number("max_queue", 64),
    columns.number("connection_age_s", 3_600),
    columns.number("connection_resets", 900),
    columns.number("client_cert_version", 0),
    columns.text("auth", "bearer"),
    columns.number("key_version"),
    columns.number("version"),
)

models = Table(
    "models",
    metadata,
    columns.org(),
    columns.key("name"),
    Column("upstream", key_text(64), nullable=False),
    columns.text("model"),
    columns.text("tasks"),
    columns.number("max_tokens"),
    columns.number("version"),
    # Within the organization by construction: an alias cannot lead to another's upstream.
    ForeignKeyConstraint(["org", "upstream"], ["upstreams.org", "upstreams.name"], name="models_upstream"),
    Index("models_by_upstream", "org", "upstream"),
)

limits = Table(
    "limits",
    metadata,
    columns.org(),
    columns.key("name"),
    columns.text("scope"),
    columns.text("unit"),
    columns.number("amount"),
    columns.number("period_s"),
    columns.number("burst"),
    columns.text("subject"),
    columns.text("window", ""),
    columns.text("on_outage", "local"),
    columns.text("on_end", "finish"),
    columns.text("notify_at", "[]"),
    columns.number("version"),
)

# Each import is a version of the whole table; what a version says is never changed.
price_imports = Table(
    "price_imports",
    metadata,
    columns.org(),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    columns.number("at"),
    columns.text("by"),
    columns.text("by_org"),
    columns.number("count"),
)

prices = Table(
    "prices",
    metadata,
    columns.org(),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("model", key_text(200), primary_key=True),
    columns.number("input"),
    columns.number("output"),
)

rules = Table(
    "rules",
    metadata,
    columns.org(),
    columns.key("name"),
    columns.text("effect"),
    columns.text("roles"),
    columns.text("actions"),
    columns.text("models"),
    columns.number("version"),
)

# Of the control process alone: no worker reads it.
upstream_keys = Table(
    "upstream_keys",
    metadata,
    columns.org(),
    columns.key("name"),
    columns.text("state"),
    columns.number("stored"),
    columns.number("set_at"),
    columns.number("used_at"),
    columns.number("overlap_s"),
    columns.number("overlap_ends_at"),
    columns.number("every_s"),
    columns.number("next_at"),
    columns.text("command"),
    columns.text("revoke"),
    columns.number("rotate_overlap_s"),
    columns.text("failure"),
)

# The next three are of the control process alone. A limit may be one of the platform's: `platform/<name>`.
budget_uses = Table(
    "budget_uses",
    metadata,
    *_budget(),
    columns.number("ends_s"),
    columns.text("unit"),
    columns.number("amount"),
    columns.number("used"),
    columns.number("at_us"),
    columns.number("lent", 0),
    Index("budget_uses_end", "ends_s"),
)

budget_notices = Table(
    "budget_notices",
    metadata,
    *_budget(),
    Column("percent", BigInteger, primary_key=True, autoincrement=False),
    columns.number("ends_s"),
    columns.text("unit"),
    columns.number("amount"),
    columns.number("used"),
    columns.number("at"),
    columns.text("state"),
    columns.number("attempts"),
    columns.number("next_at"),
    Index("budget_notices_due", "state", "next_at"),
    Index("budget_notices_end", "ends_s"),
)

webhooks = Table(
    "webhooks",
    metadata,
    columns.org(),
    columns.text("url"),
    columns.text("ca_pem"),
    columns.number("set_at"),
    columns.number("delivered_at"),
    columns.text("failure"),
    columns.number("version"),
)

# Of the control process alone, both.
audit_streams = Table(
    "audit_streams",
    metadata,
    columns.org(),
    columns.key("name"),
    columns.text("kind"),
    columns.text("url"),
    columns.text("format"),
    columns.text("ca_pem"),
    columns.text("index"),
    columns.text("sourcetype"),
    columns.number("ack"),
    columns.text("region"),
    columns.number("from_start"),
    columns.number("paused"),
    columns.number("secret_version"),
    columns.number("version"),
)

audit_stream_places = Table(
    "audit_stream_places",
    metadata,
    columns.org(),
    columns.key("name"),
    columns.number("position"),
    columns.number("delivered_at"),
    columns.number("failing_since"),
    columns.text("failure"),
    columns.number("skipped"),
    columns.number("rejected"),
)

revocations = Table(
    "revocations",
    metadata,
    columns.key("org"),
    Column("member", key_text(120), primary_key=True),  # or a client's id: two names and a dot
    Column("token_id", key_text(128), primary_key=True),
    columns.number("not_before"),
    columns.number("expires_at"),
    Index("revocations_expiry", "expires_at"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    columns.number("at"),
    columns.text("org"),
    columns.text("action"),
    columns.text("target"),
    columns.text("actor"),
    columns.text("detail"),
)

# The next three have no foreign key: entries of an organization that is gone still have their people. Of the
# control process alone.
data_keys = Table(
    "data_keys",
    metadata,
    columns.key("org"),
    columns.text("id"),
    columns.text("wrapped"),
    columns.number("made_at"),
)

persons = Table(
    "persons",
    metadata,
    columns.key("org"),
    columns.key("id"),
    Column("finder", key_text(64), nullable=False),
    columns.text("key"),
    columns.text("member"),
    columns.number("made_at"),
    UniqueConstraint("org", "finder", name="persons_finder"),
)

erased_persons = Table(
    "erased_persons", metadata, columns.key("org"), columns.key("finder"), columns.number("erased_at")
)


# What is known of each day of an audit log: of the control process alone, and without a foreign key, as a log
# outlives its organization.
def _day() -> tuple[Column[Any], ...]:
    return columns.key("org"), Column("day", BigInteger, primary_key=True, autoincrement=False)


audit_days = Table(
    "audit_days",
    metadata,
    *_day(),
    columns.number("start"),
    columns.number("end"),
    columns.number("requests"),
    columns.number("at"),
)

audit_tallies = Table(
    "audit_tallies",
    metadata,
    *_day(),
    columns.key("boot"),
    columns.number("requests"),
    columns.number("prompt_tokens"),
    columns.number("completion_tokens"),
    columns.number("nanodollars"),
    columns.number("at"),
    columns.number("ended"),
)

refused_minutes = Table(
    "refused_minutes",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    columns.key("boot"),
)

audit_verdicts = Table(
    "audit_verdicts",
    metadata,
    *_day(),
    columns.number("differences"),
    columns.number("at"),
    columns.number("told"),
)
