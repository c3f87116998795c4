"""Which schema this Orgate writes. Knows no SQL: workers import it too."""

from __future__ import annotations

from typing import Final

from tenants.store import NewerSchemaError

SCHEMA_VERSION: Final = 17


def refuse_newer(found: int) -> None:
    """Raise `NewerSchemaError` when a later Orgate wrote the database: this one would misread it."""
    if found > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"the control store has schema {found}, this Orgate knows {SCHEMA_VERSION}: "
            "run the newer Orgate, or restore a backup of before its first start"
        )
