"""The audit log's page in Chromium, as an auditor uses it: with and without JavaScript, by mouse and keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.integration.web.conftest import ASKED, AUDITOR, HOSTILE, MEMBER, House, sign_in, signed_in
from tests.kit.browser import inaccessible, tab
from tests.kit.wait import until

NO = "Failed to load resource: the server responded with a status of 4"
"""What Chromium says on its console of every answer that is a refusal."""


@pytest.fixture
def unruly(house: House, browser: Browser) -> Iterator[Page]:
    """A tab of the auditor's, who will be told that something was typed wrong."""
    with tab(browser, cookies=signed_in(house, browser), expect=(NO,)) as page:
        yield page


@pytest.mark.parametrize("scripts", [True, False])
def test_an_auditor_signs_in_by_the_page_and_comes_back_to_where_they_were(
    house: House, browser: Browser, scripts: bool
) -> None:
    start = house.url(query="?action=completion.create&since=2026-01-01T00%3A00&until=&outcome=")
    with tab(browser, scripts=scripts, expect=(NO,)) as page:
        page.goto(start)
        expect(page.get_by_role("alert")).to_have_text("You are not signed in.")
        assert inaccessible(page) == [] if scripts else True
        page.get_by_role("link", name="Sign in").click()
        expect(page.get_by_text("The audit log's page asks to act as you")).to_be_visible()
        sign_in(page, password="not the password")
        expect(page.get_by_role("alert")).to_contain_text("do not go together")
        sign_in(page)
        page.wait_for_url(start)
        expect(page.get_by_text(f"Signed in as {AUDITOR}")).to_be_visible()
        expect(page.get_by_label("Action")).to_have_value(ASKED)
        expect(page.get_by_label("From (UTC)")).to_have_value("2026-01-01T00:00")


def test_refusing_leads_to_a_page_that_says_so(house: House, browser: Browser) -> None:
    with tab(browser, expect=(NO,)) as page:
        page.goto(house.gateway.admin_url + "/sign-in")
        page.get_by_role("button", name="Refuse").click()
        expect(page.get_by_role("alert")).to_contain_text("The sign-in was refused")
        assert page.context.cookies(house.gateway.admin_url + "/") == [] or not _session(page, house)


def _session(page: Page, house: House) -> str:
    held = page.context.cookies(house.gateway.admin_url + "/")
    return next((str(one.get("value")) for one in held if one.get("name") == "__Host-orgate_session"), "")


def _rows(page: Page) -> list[str]:
    """The column of actions."""
    return page.locator("#entries tbody tr td:nth-child(4)").all_inner_texts()


def _first(page: Page) -> int:
    return int(page.locator("#entries tbody summary").first.inner_text().split("\n")[0].split(",")[0])


def test_the_page_is_whole_without_javascript(house: House, plain_auditor: Page) -> None:
    page = plain_auditor
    page.goto(house.gateway.admin_url + "/audit")
    page.wait_for_url(house.url())
    expect(page.get_by_role("heading", level=1)).to_have_text("Audit log of acme")
    expect(page.get_by_text("need JavaScript")).to_be_visible()
    expect(page.get_by_role("button", name="Verify")).to_be_hidden()
    assert len(_rows(page)) == 50
    page.get_by_label("Action").fill(ASKED)
    page.get_by_role("button", name="Show").click()
    assert set(_rows(page)) == {ASKED}
    expect(page.locator("#stretch")).to_contain_text("50 match")
    first = _first(page)
    page.get_by_role("navigation", name="Pages, above").get_by_role("link", name="Look on").click()
    assert len(_rows(page)) == 5
    assert _first(page) > first
    expect(page.locator("#stretch")).to_contain_text("That is the end of the log")
    page.get_by_role("link", name="Clear the filter").click()
    page.wait_for_url(house.url())
    newest = _first(page)
    for link, first in (("First", 0), ("Newer", 50), ("Older", 0)):
        page.get_by_role("link", name=link).first.click()
        assert _first(page) == first
    page.get_by_role("link", name="Newest").first.click()
    assert _first(page) >= newest


def test_an_entry_opens_and_shows_every_field(house: House, plain_auditor: Page) -> None:
    page = plain_auditor
    page.goto(house.url(query="?action=session.create"))
    wanted = house.entries(action="session.create")[0]
    row = page.locator(f"#entry-{wanted['index']}")
    expect(row.locator("dl")).to_be_hidden()
    row.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(row.locator("dl")).to_be_visible()
    assert set(row.locator("dt").all_inner_texts()) == set(wanted)
    expect(row.locator("dd", has_text=str(wanted["prev"]))).to_be_visible()


def test_what_is_typed_wrong_is_said_beside_what_was_right(house: House, unruly: Page) -> None:
    page = unruly
    page.goto(house.url(query="?since=yesterday&outcome=good&after=-1&action=completion.create"))
    assert page.get_by_role("alert").all_inner_texts() == [
        "From (UTC) is not a time; write 2026-01-31T12:00, which is UTC.",
        "Outcome is not one of those offered.",
        "From entry is not the number of an entry.",
    ]
    assert set(_rows(page)) == {ASKED}


def test_what_the_log_says_stays_text(house: House, auditor: Page) -> None:
    auditor.on("dialog", lambda dialog: pytest.fail(dialog.message))
    auditor.goto(house.url(query="?action=audit.read&after=60"))
    auditor.locator("details", has_text=HOSTILE).first.locator("summary").click()
    expect(auditor.get_by_text(HOSTILE).first).to_be_visible()
    assert auditor.locator("img").count() == 0
    hostile = '"><script>alert(1)</script>'
    auditor.goto(house.url(query=f"?actor={hostile}&action={hostile}&model=</main>"))
    expect(auditor.get_by_label("Actor")).to_have_value(hostile)
    expect(auditor.locator("#timeline-text")).to_contain_text("None of the entries")


def test_the_timeline_leads_to_the_entries_of_a_bar(house: House, auditor: Page) -> None:
    auditor.goto(house.url(query="?action=completion.create"))
    expect(auditor.locator("#timeline-text")).to_contain_text(re.compile(r"^55 of the entries 0 to \d+ match"))
    counts = [
        int(re.search(r": (\d+) ", text)[1])  # type: ignore[index]
        for text in auditor.locator("svg title").all_text_contents()
    ]
    assert sum(counts) == 55
    auditor.locator("svg a").first.focus()
    auditor.keyboard.press("Enter")
    auditor.wait_for_url(re.compile("since="))
    assert set(_rows(auditor)) == {ASKED}
    expect(auditor.locator("#stretch")).to_contain_text("match")
    expect(auditor.locator("#timeline-text")).to_contain_text(f"{counts[0]} of the entries")


def test_nothing_matches(house: House, auditor: Page) -> None:
    auditor.goto(house.url(query="?action=no.such"))
    expect(auditor.locator("#timeline-text")).to_contain_text("None of the entries")
    expect(auditor.get_by_role("cell")).to_have_text("No entry here matches.")


def test_the_page_is_accessible_by_day_and_by_night(house: House, unruly: Page) -> None:
    unruly.goto(house.url(query="?since=x&action=session.create"))
    expect(unruly.locator("svg")).to_be_visible()
    unruly.locator("summary").first.click()
    verify(unruly)
    assert inaccessible(unruly) == []
    unruly.emulate_media(color_scheme="dark")
    assert inaccessible(unruly, "color-contrast") == []


# -- the verifier -----------------------------------------------------------------------------------------


def verify(page: Page) -> str:
    """Press the button; what is said in the end."""
    page.get_by_role("button", name="Verify the whole log").click()
    expect(page.locator("#verdict .good, #verdict .bad")).to_be_visible()
    expect(page.locator("#verdict")).to_be_focused()
    return page.locator("#verdict").inner_text()


def test_a_good_log_is_good_and_what_is_not_proven_is_said(house: House, auditor: Page) -> None:
    auditor.goto(house.url())
    said = verify(auditor)
    assert re.match(r"Good: \d{2,} entries of acme, whole, in order, unchanged", said)
    assert "the key came with the pack" in said
    noted = house.entries(action="audit.export")[-1]
    assert noted["detail"]["start"] == 0  # type: ignore[index]


@pytest.fixture(scope="module")
def pieces(house: House) -> dict[str, bytes]:
    """What the verifier downloads, as it was at one moment."""
    base = "/admin/v1/orgs/acme/audit/"
    found = {name: house.owner.admin("GET", base + name).content for name in ("checkpoint", "key")}
    end = found["checkpoint"].split(b"\n")[1].decode()
    return {**found, "log": house.owner.admin("GET", base + "log", params={"start": 0, "end": end}).content}


@pytest.fixture
def serve(auditor: Page, pieces: dict[str, bytes]) -> Callable[..., None]:
    """Somebody between server and browser, or a server that lies: the pieces, changed or with more headers."""

    def now(more: Mapping[str, str] = MappingProxyType({}), **changed: bytes) -> None:
        auditor.unroute_all()
        for name, body in {**pieces, **changed}.items():
            answer = {"body": body, "headers": {"content-type": "text/plain", **more}}
            auditor.route(re.compile(rf"/audit/{name}(\?|$)"), partial(_fulfill, answer=answer))

    return now


def _fulfill(route: Route, answer: Any) -> None:
    route.fulfill(**answer)


def test_what_the_auditor_has_from_elsewhere_decides(
    house: House, auditor: Page, serve: Callable[..., None], pieces: dict[str, bytes]
) -> None:
    other = house.operator.admin("GET", "/admin/v1/orgs/platform/audit/key").text.strip()
    note = pieces["checkpoint"].decode()
    serve()
    auditor.goto(house.url())
    key = auditor.get_by_label("The log's key, as you got it from elsewhere")
    kept = auditor.get_by_label("A checkpoint that you kept")
    key.fill(pieces["key"].decode())
    kept.fill(note)
    said = verify(auditor)
    assert said.startswith("Good")
    assert "the checkpoint that you kept" in said
    assert "the key came with the pack" not in said
    kept.fill(note.replace("/audit/", "/other/"))
    assert verify(auditor).startswith("Wrong")
    kept.fill("")
    key.fill(other)
    assert "is not the key that was given" in verify(auditor)
    key.fill("not a key")
    assert "is not of the form name+id+base64" in verify(auditor)
    key.fill("")
    auditor.get_by_label("Witnesses whom you trust").fill("quorum nobody")
    assert verify(auditor).startswith("Wrong")


def flipped(body: bytes) -> bytes:
    at = body.index(b'"completion.create"') + 1
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


TAMPERED: tuple[tuple[str, Callable[[bytes], bytes], str], ...] = (
    ("log", flipped, "its `prev` is not the hash of the entry before it"),
    ("log", lambda body: body[: body.rindex(b"\n", 0, -1) + 1], "the manifest counts"),
    ("log", lambda body: body[: len(body) // 2], "not JSON"),
    ("log", lambda body: body.split(b"\n", 1)[1], "expected 0"),
    ("log", lambda body: b"", "the manifest counts"),
    ("checkpoint", lambda body: body[:-9] + b"AAAAAAA=\n", "the signature"),
    ("key", lambda body: body.replace(b"+", b"+0", 1), "key"),
)


def test_what_was_tampered_with_is_said_in_words(
    house: House, auditor: Page, serve: Callable[..., None], pieces: dict[str, bytes]
) -> None:
    auditor.goto(house.url())
    for what, change, says in TAMPERED:
        serve(**{what: change(pieces[what])})
        said = verify(auditor)
        assert said.startswith("Wrong: the log of acme does not verify"), what
        assert says in said, (what, said)
    serve({"x-orgate-remark": "not cosigned since 5"})
    said = verify(auditor)
    assert said.startswith("Good")
    assert "not cosigned since 5" in said


def test_what_a_browser_cannot_verify_it_does_not_begin(
    house: House, auditor: Page, serve: Callable[..., None], pieces: dict[str, bytes]
) -> None:
    origin, _, *rest = pieces["checkpoint"].split(b"\n")
    auditor.goto(house.url())
    serve(checkpoint=b"\n".join([origin, b"200001", *rest]))
    assert verify(auditor) == (
        "Not verified: The log has 200001 entries; a browser takes 200000."
        " Use orgate audit export and orgate audit verify."
    )
    serve(checkpoint=b"<html>a proxy's page</html>")
    assert verify(auditor) == "Not verified: The server's checkpoint cannot be understood."

    def shortened(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace('data-first="0"', 'data-first="7"'))

    auditor.route(house.url(), shortened)
    auditor.goto(house.url())
    assert verify(auditor).startswith("Not verified: Entries before 7 are past their retention")


def test_a_download_that_breaks_off_proves_nothing(house: House, auditor: Page, browser: Browser) -> None:
    with tab(browser, cookies=signed_in(house, browser), expect=("net::ERR",)) as page:
        page.route(re.compile("/audit/log"), lambda route: route.abort())
        page.goto(house.url())
        assert verify(page) == "Not verified: The download broke off; try again."


# -- who may not ------------------------------------------------------------------------------------------


def test_a_member_without_the_role_gets_a_page_that_says_which(house: House, browser: Browser) -> None:
    with tab(browser, expect=(NO,)) as page:
        page.goto(house.url())
        page.get_by_role("link", name="Sign in").click()
        sign_in(page, MEMBER)
        expect(page.get_by_role("alert")).to_have_text(
            "This needs one of the roles: operator, owner, admin, auditor."
        )
        assert inaccessible(page) == []
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading")).to_have_text("You are signed out")
    assert house.entries(action="admin.refuse")[-1]["client"] == "orgate-web"


def test_another_organizations_page_is_one_that_never_existed(house: House, browser: Browser) -> None:
    house.operator.admin("POST", "/admin/v1/orgs", json={"id": "globex", "name": "Globex"})
    seen = set()
    with tab(browser, cookies=signed_in(house, browser), expect=(NO,)) as page:
        for org in ("globex", "zzzzzz", "platform", "NOT A SLUG"):
            answer = page.goto(house.url(org))
            assert answer is not None
            dropped = {"date", "x-request-id"}
            fields = tuple(sorted(item for item in answer.headers.items() if item[0] not in dropped))
            seen.add((answer.status, answer.text(), fields))
    assert len(seen) == 1
    assert seen.pop()[0] == 404


def test_an_operator_may_look_and_is_written_down_as_such(house: House, browser: Browser) -> None:
    with tab(browser, expect=(NO,)) as page:
        page.goto(house.url())
        page.get_by_role("link", name="Sign in").click()
        sign_in(page, "operator@orgate.test", "platform")
        page.wait_for_url(house.url())
        expect(page.get_by_text("Signed in as operator@orgate.test of platform")).to_be_visible()
        expect(page.locator("#timeline-text")).to_contain_text("match")
    assert "platform" in {entry.get("actor_org") for entry in house.entries(action="audit.read")}


def test_signing_out_ends_the_session_also_for_who_kept_the_cookie(house: House, browser: Browser) -> None:
    with tab(browser, expect=(NO,)) as page:
        page.goto(f"{house.gateway.admin_url}/sign-in")
        sign_in(page)
        page.wait_for_url(house.url())
        kept = page.context.cookies(house.gateway.admin_url + "/")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading")).to_have_text("You are signed out")
        assert not _session(page, house)
        page.go_back()
        expect(page.get_by_role("alert")).to_have_text("You are not signed in.")
        page.context.add_cookies(kept)  # type: ignore[arg-type]
        page.goto(house.url())
        expect(page.get_by_role("alert")).to_have_text("You are not signed in.")


def test_whoever_loses_access_loses_the_page_at_the_next_click(house: House, browser: Browser) -> None:
    member = house.join("brief@acme.test", "auditor")
    with tab(browser, expect=(NO,)) as page:
        page.goto(f"{house.gateway.admin_url}/sign-in")
        sign_in(page, "brief@acme.test")
        page.wait_for_url(house.url())
        expect(page.locator("#timeline-text")).to_contain_text("match")
        path = f"/admin/v1/orgs/acme/members/{member}"
        found = house.owner.admin("GET", path)
        body = {"email": "brief@acme.test", "name": "brief", "roles": ["member"]}
        house.owner.admin("PUT", path, json=body, headers={"if-match": found.headers["etag"]})
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("alert")).to_contain_text("This needs one of the roles")
        house.owner.admin("POST", f"{path}/suspend")
        page.reload()
        expect(page.get_by_role("alert")).to_have_text("Your session has ended.")
        expect(page.get_by_role("link", name="Sign in")).to_be_visible()


def test_a_session_that_ended_meanwhile_is_said_by_the_verifier_too(house: House, browser: Browser) -> None:
    with tab(browser, expect=(NO,)) as page:
        page.goto(f"{house.gateway.admin_url}/sign-in")
        sign_in(page)
        page.wait_for_url(house.url())
        expect(page.locator("#timeline-text")).to_contain_text("match")
        page.context.clear_cookies()
        assert verify(page) == "Not verified: You are not signed in."


def test_who_reads_is_in_the_log(house: House, auditor: Page) -> None:
    auditor.goto(house.url(query="?action=member.create"))
    expect(auditor.locator("#timeline-text")).to_contain_text("match")
    wanted = {"target": "timeline", "client": "orgate-web", "detail": {"action": "member.create"}}
    until(
        lambda: any(wanted.items() <= one.items() for one in house.entries(action="audit.read")), "what was read"
    )
