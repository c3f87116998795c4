"""Every generated page of docs/reference/, by file name."""

from __future__ import annotations

from docs.build import admin, audit, cli, data, metrics, oauth, settings


def pages() -> dict[str, str]:
    """File name → text. The same code gives the same text, whatever the machine and the hash seed."""
    return {
        "admin-api.json": admin.openapi(),
        "admin-api.md": admin.render(),
        "audit-entry.md": audit.render(),
        "cli.md": cli.render(),
        "data-plane.json": data.openapi(),
        "data-plane.md": data.render(),
        "metrics.md": metrics.render(),
        "oauth.md": oauth.render(),
        "roles.md": admin.roles(),
        "settings.md": settings.render(),
    }
