"""What a provider means for other sign-ins: whose password still opens anything, whose single sign-on counts."""

from __future__ import annotations

from gateway.oauth.caller import Caller
from gateway.oauth.errors import SignInRefusedError
from tenants.idp import IdentityProvider
from tenants.idprules import top_role
from tenants.models import Member
from tenants.store import Actor, ControlStore

ONLY = "your organization signs in with single sign-on only: choose it instead of a password"


async def require_password(control: ControlStore, member: Member, caller: Caller) -> None:
    """`member` has shown their password. Raises `SignInRefusedError` where that is closed to them; a use of the
    emergency door is written down."""
    store = control.for_org(member.org)
    provider = await store.idp.get()
    if provider is None or not provider.only:
        return
    by = Actor(member.org, member.id, request_id=caller.request_id)
    if _has_key(provider, member):
        await store.note("session.break_glass", member.id, by, {"reason": "password while single sign-on is set"})
        return
    await store.note("session.refuse", member.id, by, {"reason": "single sign-on only"})
    raise SignInRefusedError(ONLY)


async def is_closed(control: ControlStore, member: Member) -> bool:
    """Whether a password opens nothing to `member` any more."""
    provider = await control.for_org(member.org).idp.get()
    return provider is not None and provider.only and not _has_key(provider, member)


async def is_of_now(control: ControlStore, member: Member, began: float) -> bool:
    """Whether who came by single sign-on at `began`, Unix seconds, came from the provider that there is now."""
    provider = await control.for_org(member.org).idp.get()
    return provider is not None and provider.set_at <= began


def _has_key(provider: IdentityProvider, member: Member) -> bool:
    # An owner who is none any more has no key to the door either, whatever the list says.
    return member.id in provider.break_glass and top_role(member.org) in member.roles
