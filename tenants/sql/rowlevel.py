"""Row-level security of PostgreSQL, generated from the metadata, and whether it holds for whoever is signed in.

Every table with an `org` column (and `orgs`, by its `id`) shows a transaction the rows of the one organization
that its setting `orgate.org` names: '*' is all of them, and without the setting there are none. A statement that
forgets its WHERE then finds nothing of another organization's, and can write nothing there.
It does not hold for superusers, for roles with BYPASSRLS, nor, unless it is forced, for a table's owner:
`role_fault` finds who is one. Whoever signs in with the runtime role can set the setting too: what it guards
against is a fault in a statement, not somebody who has the role's password.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from sqlalchemy import MetaData, Table

from tenants.sql.address import SCHEMA
from tenants.sql.connecting import SETTING

POLICY: Final = "one_org"
_MINE: Final = f"(SELECT current_setting('{SETTING}', true))"
_BY_ID: Final = {"orgs": "id"}

ROLE: Final = """
SELECT current_user::text, r.rolsuper, r.rolbypassrls,
    (SELECT min(c.relname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'orgate' AND c.relkind = 'r' AND pg_has_role(current_user, c.relowner, 'MEMBER')),
    (SELECT min(c.relname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org' AND NOT a.attisdropped
     WHERE n.nspname = 'orgate' AND c.relkind = 'r' AND NOT (c.relrowsecurity AND c.relforcerowsecurity)),
    current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off'
FROM pg_roles r WHERE r.rolname = current_user
"""


USABLE: Final = """
SELECT coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'orgate'), false)
"""


class RoleFacts(NamedTuple):
    """What `ROLE` answers. `owned`, `open`: a table that the role owns, one that shows it all rows; or None."""

    role: str
    superuser: bool
    bypasses: bool
    owned: str | None
    open: str | None
    durable: bool


def role_fault(facts: RoleFacts) -> tuple[str, str] | None:
    """What is wrong with serving as this role, and what to do; None when nothing is."""
    again = "name a role of its own in store.url, as docs/guides/operator.md says under PostgreSQL"
    if facts.superuser:
        return f"role {facts.role} is a superuser: row-level security does not hold for it", again
    if facts.bypasses:
        return f"role {facts.role} has BYPASSRLS: row-level security does not hold for it", again
    if facts.owned:
        return f"role {facts.role} owns the table {facts.owned}, or is a member of the role that does", again
    if facts.open:
        return (
            f"the table {facts.open} has no forced row-level security",
            "run `orgate store migrate`: it is generated anew",
        )
    if not facts.durable:
        return "fsync or synchronous_commit is off: a power cut would lose what was acknowledged", "turn it on"
    return None


def column_of(table: Table) -> str | None:
    """The column that says whose a row is; None for tables of the platform's own."""
    if "org" in table.c:
        return "org"
    return _BY_ID.get(table.name)


def policies(metadatas: Sequence[MetaData]) -> Iterator[str]:
    """Statements that put the policy on every table there should be one on. Harmless when repeated."""
    for metadata in metadatas:
        for table in metadata.sorted_tables:
            column = column_of(table)
            if column is None:
                continue
            name = f"{SCHEMA}.{table.name}"
            yield f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"
            yield f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY"
            yield f"DROP POLICY IF EXISTS {POLICY} ON {name}"
            # For reading and for writing (WITH CHECK is USING when it is not said).
            yield f"CREATE POLICY {POLICY} ON {name} USING ({column} = {_MINE} OR {_MINE} = '*')"


def grants(role: str) -> Iterator[str]:
    """Statements that give the runtime role what it needs and take anything else. `role` is quoted already."""
    yield f"REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC"
    yield f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}"
    yield f"REVOKE ALL ON ALL TABLES IN SCHEMA {SCHEMA} FROM {role}"
    yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {SCHEMA} TO {role}"
    yield f"REVOKE INSERT, UPDATE, DELETE ON {SCHEMA}.control_schema FROM {role}"
