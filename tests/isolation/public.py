"""The public listener's cells: the data plane's raw routes, and the pages and endpoints behind the relay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx

from tests.isolation.credentials import Credential, kinds
from tests.isolation.matrix import Matrix, Shape, shape
from tests.isolation.names import NEVER, SHARED
from tests.isolation.orgs import absent
from tests.isolation.table import PUBLIC, Route

ASKED: Mapping[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "x"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/embeddings": {"input": "x"},
}
NOBODYS = {"client_id": "orgate-cli"}


def data(matrix: Matrix, pairs: Iterable[tuple[str, str]], every: int = 1, first: int = 0) -> None:
    """Each route of the data plane × another's model and one that never existed × every kind of credential. The
    token alone says who somebody is: `another's …` meets its own organization there, where neither exists."""
    routes = [route for route in matrix.routes if route.listener == PUBLIC and route.tenancy == "token"]
    for number, (attacker, victim) in enumerate(pairs, first):
        for place, route in enumerate(routes):
            for turn, credential in enumerate(kinds(matrix.world, attacker, victim)):
                if (turn + place + number) % every == 0:
                    _data(matrix, route, credential, victim)


def _data(matrix: Matrix, route: Route, credential: Credential, victim: str) -> None:
    real = matrix.world.orgs[victim].ids["models"]
    answers: list[httpx.Response] = []
    shapes: list[Shape] = []
    for model in (real, absent(victim, real)):
        body = {"json": {"model": model, **ASKED.get(route.path, {})}} if route.method != "GET" else {}
        path = route.path.replace("{below}", model)
        answers.append(matrix.send(route, path, credential, names=[model], **body))
        shapes.append(shape(answers[-1], model))
    cell = f"{route} [{credential.name}]"
    if shapes[0] != shapes[1]:
        matrix.ledger.fault("oracle", cell, f"{answers[0].text[:200]} / {answers[1].text[:200]}")
    listing = route.path == "/v1/models" and route.method in {"GET", "HEAD"}
    entitled = route.opened_by in credential.opens and listing
    if (answers[0].status_code < 400) != entitled and not (listing and answers[0].status_code == 405):
        matrix.ledger.fault("status", cell, f"{answers[0].status_code}: {answers[0].text[:200]}")
    if real in answers[0].text.replace(f"'{real}'", ""):
        matrix.ledger.fault("bytes", cell, answers[0].text[:300])


def relayed(matrix: Matrix, attacker: str, victim: str, every: int = 1) -> None:
    """Every other path of the public listener × method × kind of credential: nothing is let in by what opens the
    other listeners, and no answer tells whose account exists."""
    routes = [route for route in matrix.routes if route.listener == PUBLIC and route.tenancy == "none"]
    credentials = kinds(matrix.world, attacker, victim)
    for place, route in enumerate(routes):
        for turn, credential in enumerate(credentials):
            if (place + turn) % every:
                continue
            sent = {"data": {"token": "zq", **NOBODYS}} if route.method in {"POST", "PUT", "PATCH"} else {}
            # A web session's cookie is of the admin listener; what is sent here is a stranger's.
            path = route.path.replace("{below}", victim)
            answer = matrix.send(
                route, path, credential, names=[victim], headers={"accept": "application/json"}, **sent
            )
            if any(f'"{one}":"' in answer.text for one in ("access_token", "refresh_token")):
                matrix.ledger.fault("status", f"{route} [{credential.name}]", answer.text)
    nobody = Credential("none", {})
    for route in routes:
        if route.path.endswith("/{below}"):  # an organization's id
            paths = {org: route.path.replace("{below}", org) for org in (victim, NEVER)}
            shapes = [
                shape(matrix.send(route, path, nobody, names=[org], params={"state": "zq", "code": "zq"}), org)
                for org, path in paths.items()
            ]
            if shapes[0] != shapes[1]:
                matrix.ledger.fault("oracle", f"{route} [none]", f"{shapes[0]} / {shapes[1]}")
    known = {route.path for route in routes}
    for path, name, real, never in _forms(matrix, attacker, victim):
        if path not in known:
            continue
        route = next(one for one in routes if one.path == path and one.method == "POST")
        shapes = [_submit(matrix, route, attacker, form) for form in (real, never)]
        if shapes[0] != shapes[1]:
            matrix.ledger.fault("oracle", f"{route} [{name}]", f"{shapes[0]} / {shapes[1]}")


def _forms(
    matrix: Matrix, attacker: str, victim: str
) -> Iterator[tuple[str, str, Mapping[str, str], Mapping[str, str]]]:
    """(path, what it is about, a form that names what is there, the same that names what never was)."""
    world = matrix.world
    person = world.orgs[victim].people["member"]
    invited = {"org": victim, "email": person.email, "code": "ABCD-EFGH-JKLM-NPQR", "password": "x" * 20}
    invited["password_again"] = invited["password"]
    nobody = {"email": absent(victim, person.email)}
    yield "/oauth/invitation", "account", invited, {**invited, **nobody}
    yield "/oauth/invitation", "organization", {**invited, **nobody}, {**invited, **nobody, "org": NEVER}

    def device(org: str, email: str) -> dict[str, str]:
        begun = world.gateway.http.post(world.gateway.url + "/oauth/device_authorization", data=NOBODYS).json()
        said = {"org": org, "email": email, "password": "not the password", "action": "approve"}
        return {"user_code": begun["user_code"], **said}

    for role in ("member", "owner"):
        email = world.orgs[victim].people[role].email
        yield "/oauth/device", f"{role}'s password", device(victim, email), device(victim, absent(victim, email))
    yield "/oauth/device", "organization", device(victim, nobody["email"]), device(NEVER, nobody["email"])
    token = world.orgs[victim].owner.refresh_token
    fresh = {"grant_type": "refresh_token", "client_id": f"{attacker}.{SHARED}"}
    yield (
        "/oauth/token",
        "refresh token",
        {**fresh, "refresh_token": token},
        {**fresh, "refresh_token": token[:-4] + "zzzz"},
    )
    access = world.orgs[victim].people["owner"].data
    yield "/oauth/introspect", "access token", {"token": access}, {"token": access[:-4] + "zzzz"}
    yield "/oauth/introspect", "refresh token", {"token": token}, {"token": token[:-4] + "zzzz"}


def _submit(matrix: Matrix, route: Route, attacker: str, form: Mapping[str, str]) -> Shape:
    """As a person's browser where there is a page; as the attacker's own client where clients ask."""
    world, hidden = matrix.world, {}
    if route.path in {"/oauth/invitation", "/oauth/device"}:
        page = world.gateway.http.get(world.gateway.url + route.path)
        found = re.search(r'name="(csrf(?:_token)?)" value="([^"]+)"', page.text)
        assert found is not None, page.text
        hidden = {found[1]: found[2]}
    headers = {"accept": "application/json", "origin": world.gateway.url}
    if route.path == "/oauth/introspect":
        headers |= world.orgs[attacker].credentials["client secret"]["oauth"]
    nobody = Credential("none", {})
    answer = matrix.send(route, route.path, nobody, names=form.values(), data={**hidden, **form}, headers=headers)
    return shape(answer, *sorted(form.values(), key=len, reverse=True))
