"""What a SCIM token may do, written out: the column of the table that is nobody's role."""

from __future__ import annotations

from tenants.roles import SCIM, Operation


def test_a_scim_token_manages_people_and_teams_and_nothing_else() -> None:
    assert {op.value.partition(".")[0] for op in SCIM} == {"member", "team", "scim"}


def test_a_scim_token_makes_no_invitation_no_owner_no_lead_and_no_token() -> None:
    barred = {
        Operation.MEMBER_INVITE,
        Operation.OWNER_WRITE,
        Operation.TEAM_SET_LEAD,
        Operation.SCIM_UPDATE,
        Operation.SCIM_TOKEN_LIST,
        Operation.SCIM_TOKEN_CREATE,
        Operation.SCIM_TOKEN_DELETE,
    }
    assert not SCIM & barred
