"""One library in a Node.js of its own, and the person at the browser whom its flows need."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.integration.oauth.test_pages import Form
from tests.kit.gateway import PASSWORD, RunningGateway
from tests.kit.node import NPM, node


@dataclass
class Person:
    """Somebody with a browser: pages, their forms, cookies, and no redirect followed by itself."""

    gateway: RunningGateway
    org: str
    email: str

    def does(self, what: dict[str, str]) -> str:
        if "device" in what:
            return self.at_device(what["device"])
        return self.authorizes(what["authorize"]) if "authorize" in what else self.refuses(what["refuse"])

    def authorizes(self, page: str) -> str:
        """Signs in at `page` and says yes: where they are sent to."""
        with self._browser() as browser:
            first = browser.get(page)
            assert first.status_code == 200, first.text
            who = {"org": self.org, "email": self.email, "password": PASSWORD}
            consent = self._send(browser, page, first, **who, action="ask")
            assert consent.status_code == 200, consent.text
            answer = self._send(browser, page, consent, action="approve")
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def refuses(self, page: str) -> str:
        with self._browser() as browser:
            answer = self._send(browser, page, browser.get(page), action="deny")
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def at_device(self, user_code: str) -> str:
        """Types the code in at the verification page, and says yes."""
        page = self.gateway.url + "/oauth/device"
        with self._browser() as browser:
            who = {"org": self.org, "email": self.email, "password": PASSWORD}
            consent = self._send(browser, page, browser.get(page), user_code=user_code, **who, action="ask")
            assert consent.status_code == 200, consent.text
            answer = self._send(browser, page, consent, action="approve")
        assert answer.status_code == 200, answer.text
        return "approved"

    def _browser(self) -> httpx.Client:
        return httpx.Client(verify=ssl.create_default_context(cafile=str(self.gateway.ca)), timeout=20)

    def _send(self, browser: httpx.Client, page: str, shown: httpx.Response, **filled: str) -> httpx.Response:
        where = urlsplit(page)._replace(query="").geturl()
        fields = {name: value for name, value in Form(shown.text).fields.items() if name}
        return browser.post(where, data={**fields, **filled}, headers={"origin": self.gateway.url})


class Library:
    """The script `name` of `tests/npm`. Use as a context manager."""

    def __init__(self, name: str, person: Person) -> None:
        self._person = person
        self._ours = {"issuer": person.gateway.url}
        self._process = subprocess.Popen(
            [node(), str(NPM / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_EXTRA_CA_CERTS": str(person.gateway.ca)},
        )

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(60) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()

    def run(self, flow: str, **given: Any) -> Any:
        """Go through `flow`; what it found. Fails when the library has any complaint."""
        self._say({"flow": flow, **self._ours, **given})
        while "person" in (said := self._heard()):
            self._say({"did": self._person.does(said["person"])})
        assert "done" in said, said
        return said["done"]

    def _say(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the script ended: {self._process.poll()}"
        found: dict[str, Any] = json.loads(line)
        return found
