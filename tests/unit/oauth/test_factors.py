"""Second factors: each code, step and answer once, guesses bounded, and nobody's factor is another's."""

from __future__ import annotations

import asyncio
import json

import pyotp
import pytest
from msgspec.structs import replace

from gateway.oauth import recovery
from gateway.oauth.caller import Caller
from gateway.oauth.errors import InvalidRequestError, SecondFactorRefusedError, TooManyAttemptsError
from gateway.oauth.factors import FAILURES_PER_ADDRESS, REFUSED, Due, Enrolled, Factors
from gateway.oauth.factors_store import MAX_FACTORS, FactorKind
from policies.facts import Role
from tenants.ids import MemberId
from tenants.models import Member
from tests.kit.passkey import MANY_DEVICES, PRESENT, VERIFIED, Authenticator
from tests.unit.oauth.conftest import ACME, ADA, BY, GLOBEX, GUS, HERE, Bench

BOB = MemberId("mem_bob")


async def member(bench: Bench, org: str = "acme") -> Member:
    return await bench.control.for_org(ACME if org == "acme" else GLOBEX).members.get(
        ADA if org == "acme" else GUS
    )


async def second(bench: Bench) -> Member:
    made = Member(org=ACME, id=BOB, email="bob@acme.example", name="Bob", roles=(Role.MEMBER,))
    return await bench.control.for_org(ACME).members.create(made, BY)


async def app_of(bench: Bench, who: Member, name: str = "") -> tuple[pyotp.TOTP, Enrolled]:
    """An authenticator app that `who` has added, and what came of it. The clock goes on by a step."""
    offer = await bench.service.factors.offer(who)
    made = pyotp.TOTP(offer.secret)
    form = {"code": made.at(int(bench.now)), **({"name": name} if name else {})}
    enrolled = await bench.service.factors.enrol(who, form, offer.extra, HERE)
    bench.now += 30
    return made, enrolled


async def passkey_of(bench: Bench, who: Member, key: Authenticator) -> Enrolled:
    offer = await bench.service.factors.offer(who)
    form = {"credential": key.create(offer.options), "name": "Laptop"}
    enrolled = await bench.service.factors.enrol(who, form, offer.extra, HERE)
    bench.now += 1
    return enrolled


async def says(bench: Bench, who: Member, code: str) -> tuple[str, ...]:
    return await bench.service.factors.verify(who, {"code": code}, "", HERE)


async def refused(factors: Factors, who: Member, form: dict[str, str], extra: str = "") -> None:
    with pytest.raises(SecondFactorRefusedError) as caught:
        await factors.verify(who, form, extra, HERE)
    assert caught.value.description == REFUSED  # the same words whatever was wrong


async def test_an_app_is_added_by_its_first_code_with_ten_recovery_codes(bench: Bench) -> None:
    ada = await member(bench)
    assert await bench.service.factors.due(ada) is Due.NOTHING
    app, enrolled = await app_of(bench, ada, "My phone")
    assert len(set(enrolled.codes)) == 10
    assert (enrolled.factor.name, enrolled.factor.kind) == ("My phone", FactorKind.TOTP)
    assert app.secret not in enrolled.factor.key
    assert await bench.service.factors.due(ada) is Due.FACTOR
    assert await says(bench, ada, app.at(int(bench.now))) == ("otp",)
    assert [note.action for note in await bench.noted("factor.")] == ["factor.add", "factor.use"]


async def test_the_first_code_has_to_be_right_and_the_offer_keeps_its_secret(bench: Bench) -> None:
    ada = await member(bench)
    offer = await bench.service.factors.offer(ada)
    for code in ("000000", "", "12345", "1234567", "abcdef", "１２３４５６"):
        with pytest.raises(SecondFactorRefusedError):
            await bench.service.factors.enrol(ada, {"code": code}, offer.extra, HERE)
    again = await bench.service.factors.offer(ada, offer.extra)
    assert again.secret == offer.secret
    assert again.extra != offer.extra  # another challenge for a passkey
    assert await bench.service.factors.of(ACME, ADA) == ()


async def test_a_code_is_taken_once_and_none_before_it(bench: Bench) -> None:
    ada = await member(bench)
    app, _ = await app_of(bench, ada)
    now = int(bench.now)
    code = app.at(now)
    answers = await asyncio.gather(*(says(bench, ada, code) for _ in range(3)), return_exceptions=True)
    assert answers.count(("otp",)) == 1
    await refused(bench.service.factors, ada, {"code": code})
    await refused(bench.service.factors, ada, {"code": app.at(now - 30)})
    assert await says(bench, ada, app.at(now + 30)) == ("otp",)


async def test_the_code_that_added_an_app_does_not_sign_in_too(bench: Bench) -> None:
    ada = await member(bench)
    offer = await bench.service.factors.offer(ada)
    code = pyotp.TOTP(offer.secret).at(int(bench.now))
    await bench.service.factors.enrol(ada, {"code": code}, offer.extra, HERE)
    await refused(bench.service.factors, ada, {"code": code})


@pytest.mark.parametrize(("off", "good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
async def test_a_phone_s_clock_may_be_one_step_off(bench: Bench, off: int, good: bool) -> None:
    ada = await member(bench)
    app, _ = await app_of(bench, ada)
    bench.now += 300
    code = app.at(int(bench.now) + 30 * off)
    if good:
        assert await says(bench, ada, f" {code[:3]} {code[3:]} ") == ("otp",)
    else:
        await refused(bench.service.factors, ada, {"code": code})


async def test_guesses_are_bounded_and_a_right_password_forgives_none(bench: Bench) -> None:
    ada = await member(bench)
    app, enrolled = await app_of(bench, ada)
    form = {"org": "acme", "email": "ada@acme.example", "password": "correct horse battery"}
    guesses = 0
    end = bench.now + 86_400
    while bench.now < end:
        await bench.service.signin.password(form, HERE)
        try:
            await refused(bench.service.factors, ada, {"code": "000000"})
            guesses += 1
        except TooManyAttemptsError as error:
            bench.now += error.retry_after_s or 0  # 0 would never end
    assert guesses <= 22
    bench.now = end - 3_600
    with pytest.raises(TooManyAttemptsError):
        await says(bench, ada, app.at(int(bench.now)))  # even the right one
    assert await says(bench, ada, enrolled.codes[0]) == ("otp",)  # nobody guesses those
    assert await bench.service.factors.reset(ACME, ADA) == 1  # by an admin: what was guessed is forgotten too
    app, _ = await app_of(bench, ada)
    assert await says(bench, ada, app.at(int(bench.now))) == ("otp",)


async def test_an_address_that_fails_too_often_waits(bench: Bench) -> None:
    ada, key = await member(bench), Authenticator()
    await passkey_of(bench, ada, key)
    asked = await bench.service.factors.challenge(ada)
    for _ in range(FAILURES_PER_ADDRESS):
        await refused(bench.service.factors, ada, {"credential": "{}"}, asked.extra)
    answer = {"credential": key.get(asked.options)}
    with pytest.raises(TooManyAttemptsError):
        await bench.service.factors.verify(ada, answer, asked.extra, HERE)
    elsewhere = Caller(address="192.0.2.9")
    assert await bench.service.factors.verify(ada, answer, asked.extra, elsewhere) == ("hwk",)


async def test_a_recovery_code_is_good_once_however_it_is_typed(bench: Bench) -> None:
    ada = await member(bench)
    _, enrolled = await app_of(bench, ada)
    first, other = enrolled.codes[:2]
    assert await says(bench, ada, first.lower().replace("-", " ").replace("0", "o").replace("1", "l")) == ("otp",)
    await refused(bench.service.factors, ada, {"code": first})
    await refused(bench.service.factors, ada, {"code": other[:-1]})
    assert await bench.service.factors.codes_left(ACME, ADA) == 9
    renewed = await bench.service.factors.renew_codes(ada, HERE)
    await refused(bench.service.factors, ada, {"code": other})
    assert await says(bench, ada, renewed[0]) == ("otp",)


async def test_recovery_codes_are_kept_as_digests_of_their_member(bench: Bench) -> None:
    ada, bob = await member(bench), await second(bench)
    _, of_ada = await app_of(bench, ada)
    await app_of(bench, bob)
    await refused(bench.service.factors, bob, {"code": of_ada.codes[0]})
    with pytest.raises(InvalidRequestError):
        await bench.service.factors.renew_codes(await member(bench, "globex"), HERE)
    assert recovery.is_code(of_ada.codes[0])


async def test_a_secret_that_is_copied_to_another_row_opens_no_more(bench: Bench) -> None:
    ada, bob = await member(bench), await second(bench)
    app, enrolled = await app_of(bench, ada)
    await bench.store.factors.add(replace(enrolled.factor, member=BOB, credential="copied"))
    await refused(bench.service.factors, bob, {"code": app.at(int(bench.now))})
    assert await says(bench, ada, app.at(int(bench.now))) == ("otp",)


async def test_a_passkey_signs_in(bench: Bench) -> None:
    ada, key = await member(bench), Authenticator()
    enrolled = await passkey_of(bench, ada, key)
    assert (enrolled.methods, len(enrolled.codes)) == (("hwk",), 10)
    asked = await bench.service.factors.challenge(ada)
    assert not asked.codes
    options = json.loads(asked.options)
    assert options["userVerification"] == "required"
    assert [one["id"] for one in options["allowCredentials"]] == [enrolled.factor.credential]
    answer = {"credential": key.get(asked.options)}
    assert await bench.service.factors.verify(ada, answer, asked.extra, HERE) == ("hwk",)
    notes = await bench.noted("factor.")
    assert [(note.action, note.detail.get("kind")) for note in notes] == [
        ("factor.add", "passkey"),
        ("factor.use", "passkey"),
    ]


@pytest.mark.parametrize("counts", [True, False])
async def test_an_answer_is_taken_once_of_keys_that_do_not_count_too(bench: Bench, counts: bool) -> None:
    ada, key = await member(bench), Authenticator(counts=counts, flags=PRESENT | VERIFIED | MANY_DEVICES)
    await passkey_of(bench, ada, key)
    asked = await bench.service.factors.challenge(ada)
    answer = {"credential": key.get(asked.options)}
    won = await asyncio.gather(
        *(bench.service.factors.verify(ada, answer, asked.extra, HERE) for _ in range(5)), return_exceptions=True
    )
    assert won.count(("swk",)) == 1
    await refused(bench.service.factors, ada, answer, asked.extra)
    bench.now += 1
    again = await bench.service.factors.challenge(ada)
    await refused(bench.service.factors, ada, answer, again.extra)
    assert await bench.service.factors.verify(ada, {"credential": key.get(again.options)}, again.extra, HERE)
    await refused(bench.service.factors, ada, {"credential": key.get(asked.options)}, asked.extra)


async def test_a_copy_of_a_key_that_counts_is_noticed(bench: Bench) -> None:
    ada, key = await member(bench), Authenticator()
    await passkey_of(bench, ada, key)
    for count, good in ((5, True), (3, False), (4, False), (5, False), (6, True)):
        bench.now += 1
        asked = await bench.service.factors.challenge(ada)
        key.count = count
        answer = {"credential": key.get(asked.options)}
        if good:
            assert await bench.service.factors.verify(ada, answer, asked.extra, HERE) == ("hwk",)
        else:
            await refused(bench.service.factors, ada, answer, asked.extra)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        (Authenticator(flags=PRESENT), {}),
        (Authenticator(flags=VERIFIED), {}),
        (Authenticator(rp_id="evil.example"), {}),
        (Authenticator(origin="https://gateway.example.evil.example"), {}),
        (Authenticator(origin="http://gateway.example"), {}),
        (Authenticator(origin="https://gateway.example:8443"), {}),
        (Authenticator(), {"type": "webauthn.create"}),
        (Authenticator(), {"challenge": "AAAA"}),
    ],
)
async def test_an_answer_has_to_be_for_this_page_by_a_person_who_was_verified(
    bench: Bench, key: Authenticator, changes: dict[str, str]
) -> None:
    ada = await member(bench)
    await passkey_of(bench, ada, good := Authenticator(key=key.key))
    asked = await bench.service.factors.challenge(ada)
    await refused(bench.service.factors, ada, {"credential": key.get(asked.options, **changes)}, asked.extra)
    offer = await bench.service.factors.offer(ada)
    other = Authenticator(origin=key.origin, rp_id=key.rp_id, flags=key.flags, id=b"another")
    kind = {**changes, "type": "webauthn.get"} if "type" in changes else changes
    form = {"credential": other.create(offer.options, **kind)}
    with pytest.raises(SecondFactorRefusedError):
        await bench.service.factors.enrol(ada, form, offer.extra, HERE)
    assert await bench.service.factors.verify(ada, {"credential": good.get(asked.options)}, asked.extra, HERE)


async def test_another_person_s_passkey_is_nobody_s(bench: Bench) -> None:
    """Of the same organization, of another one, and one that says it is somebody else's."""
    ada, bob, gus = await member(bench), await second(bench), await member(bench, "globex")
    keys = [Authenticator(id=name) for name in (b"ada", b"bob", b"gus")]
    for who, key in zip((ada, bob, gus), keys, strict=True):
        await passkey_of(bench, who, key)
    for key in (*keys[1:], Authenticator(id=b"ada"), Authenticator(id=b"nobody")):
        asked = await bench.service.factors.challenge(ada)
        await refused(bench.service.factors, ada, {"credential": key.get(asked.options)}, asked.extra)
    of_bob = await bench.service.factors.challenge(bob)
    crossed = {"credential": keys[0].get(of_bob.options)}
    await refused(bench.service.factors, ada, crossed, (await bench.service.factors.challenge(ada)).extra)
    with pytest.raises(InvalidRequestError):  # nor is one registered twice
        await passkey_of(bench, bob, keys[0])


STRANGE: tuple[object, ...] = (1, None, [], {}, "é", "a" * 99)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "x",
        "[" * 12_000,
        "A" * 20_000,
        '{"id":"a","rawId":"a","type":"public-key","response":{}}',
        *(json.dumps({"rawId": value, "id": value, "response": value}) for value in STRANGE),
    ],
)
async def test_what_is_no_answer_at_all_is_a_no(bench: Bench, text: str) -> None:
    ada = await member(bench)
    await passkey_of(bench, ada, Authenticator(id=b"a"))
    asked = await bench.service.factors.challenge(ada)
    await refused(bench.service.factors, ada, {"credential": text}, asked.extra)
    offer = await bench.service.factors.offer(ada)
    with pytest.raises(SecondFactorRefusedError):
        await bench.service.factors.enrol(ada, {"credential": text}, offer.extra, HERE)


async def test_a_credential_s_id_is_of_a_bounded_length(bench: Bench) -> None:
    ada = await member(bench)
    offer = await bench.service.factors.offer(ada)
    for length, good in ((1_024, False), (1_023, True)):
        form = {"credential": Authenticator(id=b"x" * length).create(offer.options)}
        if good:
            assert (await bench.service.factors.enrol(ada, form, offer.extra, HERE)).codes
        else:
            with pytest.raises(SecondFactorRefusedError):
                await bench.service.factors.enrol(ada, form, offer.extra, HERE)


async def test_a_member_has_so_many_and_their_names_are_short_lines(bench: Bench) -> None:
    ada = await member(bench)
    for n in range(MAX_FACTORS):
        await app_of(bench, ada, f"app\n{n}" + "x" * 100)
    with pytest.raises(InvalidRequestError):
        await app_of(bench, ada)
    names = [one.name for one in await bench.service.factors.of(ACME, ADA)]
    assert all(len(name) == 60 and "\n" not in name for name in names)


async def test_the_last_one_stays_where_one_is_demanded(bench: Bench) -> None:
    ada = await member(bench)
    _, first = await app_of(bench, ada)
    await demand(bench, Role.MEMBER)
    with pytest.raises(InvalidRequestError):
        await bench.service.factors.remove(ada, first.factor.id, HERE)
    _, other = await app_of(bench, ada)
    await bench.service.factors.remove(ada, first.factor.id, HERE)
    await demand(bench)
    await bench.service.factors.remove(ada, other.factor.id, HERE)
    with pytest.raises(InvalidRequestError):
        await bench.service.factors.remove(ada, other.factor.id, HERE)
    assert await bench.service.factors.due(ada) is Due.NOTHING
    assert [note.action for note in await bench.noted("factor.")][-2:] == ["factor.remove"] * 2


async def demand(bench: Bench, *roles: Role) -> None:
    found = await bench.control.orgs.get(ACME)
    await bench.control.orgs.replace(replace(found, second_factor=roles), found.version, BY)


async def test_a_demand_is_of_roles(bench: Bench) -> None:
    ada = await member(bench)
    await demand(bench, Role.OWNER, Role.ADMIN)
    assert await bench.service.factors.due(ada) is Due.NOTHING
    await demand(bench, Role.ADMIN, Role.MEMBER)
    assert await bench.service.factors.due(ada) is Due.ENROL
    assert await bench.service.factors.due(await member(bench, "globex")) is Due.NOTHING
