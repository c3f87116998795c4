"""The columns that hold text and no canary, each with the reason. A new one that is not here fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ENUMERATION: Final = "one of a few words, or a list of them or of numbers: the same for everybody"
MADE: Final = "made by the server: a digest, a random id, or something wrapped"
EMPTY: Final = "empty until a delivery or a rotation fails; what is written then is a status, and no foreign text"
PASSING: Final = "a queue, or a row that ends when it is used: emptied while the rest is planted"
NAMED: Final = "the settings' own, or one of the server's clients, audiences and scopes: the same for everybody"
ELSEWHERE: Final = (
    "written by a sign-in with a provider or a factor, or a pushed request: tests/integration/oauth has them"
)
NOBODYS: Final = "a table that knows no organization"

_WHY: Mapping[str, tuple[str, ...]] = {
    ENUMERATION: (
        *("orgs.state", "orgs.holds", "orgs.timezone", "orgs.durability", "members.roles", "members.state"),
        *("upstreams.protocol", "upstreams.auth", "models.tasks", "limits.scope", "limits.unit", "limits.window"),
        *("limits.on_outage", "limits.on_end", "limits.notify_at", "rules.effect", "rules.roles", "rules.actions"),
        *("upstream_keys.state", "budget_uses.unit", "budget_notices.unit", "budget_notices.state"),
        *("audit_streams.kind", "audit_streams.format", "audit_streams.region", "oauth_devices.status"),
        *("orgs.dpop", "orgs.second_factor", "services.roles", "services.state", "oauth_clients.auth_method"),
        *("oauth_clients.grant_types", "oauth_clients.planes", "oauth_clients.state", "static_keys.actions"),
        *("identity_providers.default_roles", "service_trusts.planes", "oauth_factors.kind"),
    ),
    MADE: (
        *("data_keys.wrapped", "persons.finder", "persons.key", "persons.member", "erased_persons.finder"),
        *("audit_tallies.boot", "oauth_passwords.hash", "oauth_invitations.digest", "oauth_devices.digest"),
        *("oauth_devices.user_code_digest", "oauth_codes.digest", "oauth_codes.challenge", "oauth_codes.family"),
        *("oauth_client_secrets.digest", "static_keys.digest", "scim_tokens.digest", "oauth_codes.jkt"),
        *("oauth_families.jkt", "oauth_assertions.digest", "oauth_pushed.digest", "oauth_recovery.digest"),
        *("oauth_codes.token_id", "oauth_families.current", "oauth_families.recent", "revocations.token_id"),
    ),
    EMPTY: ("upstream_keys.failure", "webhooks.failure", "audit_stream_places.failure"),
    PASSING: (
        *("outbox.action", "outbox.target", "outbox.actor", "outbox.detail"),
        *("budget_uses.limit", "budget_uses.subject", "budget_notices.limit", "budget_notices.subject"),
    ),
    NAMED: (
        *("upstream_keys.command", "upstream_keys.revoke", "oauth_families.client", "oauth_codes.client"),
        *("oauth_codes.redirect_uri", "oauth_codes.resource", "oauth_codes.scope", "audit_stream_places.name"),
        *("oauth_codes.amr", "oauth_families.amr", "oauth_devices.amr"),
    ),
    ELSEWHERE: (
        *("break_glass.member", "identity_links.issuer", "identity_links.subject", "identity_links.member"),
        *("oauth_factors.member", "oauth_factors.name", "oauth_factors.key", "oauth_factors.credential"),
        *("oauth_recovery.member", "oauth_assertions.client", "oauth_pushed.client", "oauth_pushed.form"),
    ),
    NOBODYS: (
        *("refused_minutes.boot", "oauth_attempts.account", "oauth_devices.client", "oauth_devices.resource"),
        *("oauth_devices.scope", "oauth_devices.member"),
    ),
}

EXEMPT: Final[Mapping[str, str]] = {column: reason for reason, columns in _WHY.items() for column in columns}
