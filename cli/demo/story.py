"""The demo, step by step. What an admin does is done with the very commands an admin types."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import ssl
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from msgspec import json

from cli.demo.editor import Editor, Seen
from cli.demo.processes import Processes, free_port
from cli.demo.report import Row, Screen, hidden
from cli.demo.stopping import Stopping
from cli.errors import RefusedError

PASSWORD = "a demo password, known to everybody"  # noqa: S105  # it opens an installation that is thrown away
MARKER = "orgate_demo_marker_5f1c"
PROMPT = f"# {MARKER}\n\ndef fib(n):\n"
LIMIT = 5
INTERRUPTED = 130


@dataclass
class Stage:
    """Everything the steps share. `owners`: invitation codes of the owners by organization."""

    home: Path
    screen: Screen
    processes: Processes
    stopping: Stopping
    url: str
    admin_url: str
    model_url: str
    http: httpx.Client
    ca: Path
    owners: dict[str, tuple[str, str]]
    rows: list[Row] = field(default_factory=list)

    def orgate(self, *arguments: str, given: str = "", expect: int = 0, quiet: bool = False) -> str:
        """Run one `orgate` command in this process; returns what it printed. `given` is its standard input."""
        from cli.main import main

        if not quiet:
            self.screen.command(arguments)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _stdin(given):
            code = main(list(arguments))
        if code == INTERRUPTED:  # the person stopped the demo, not only this command
            raise KeyboardInterrupt
        if code != expect:
            raise RefusedError(f"`orgate {' '.join(hidden(arguments))}` ended with {code}", err.getvalue().strip())
        return out.getvalue() + (err.getvalue() if expect else "")

    @contextmanager
    def step(self, what: str, expected: str) -> Iterator[Callable[[bool, str], None]]:
        """Time one step. The block calls what it is given with (as expected?, what was seen)."""
        self.stopping.check()  # an interrupt that comes while a loop ends is raised by nobody else
        started = time.monotonic()
        told: list[tuple[bool, str]] = []
        self.screen.step(what)
        try:
            yield lambda good, seen: told.append((good, seen))
        except (RefusedError, httpx.HTTPError) as error:
            told.append((False, str(error)))
            self.screen.note(f"{error}\n{getattr(error, 'fix', '')}")
        good, seen = told[-1] if told else (False, "nothing")
        self.rows.append(Row(what, expected, seen, (time.monotonic() - started) * 1000, good))
        self.screen.seen(good, seen)

    def resets(self, count: int) -> dict[str, object]:
        """Wait until the model has counted `count` resets; the newest one."""
        view = self.http.get(f"{self.model_url}/demo/streams", params={"wait": "reset", "count": count}).json()
        if view["reset"] < count:
            raise RefusedError(f"the model saw {view['reset']} resets, not {count}")
        newest: dict[str, object] = view["resets"][-1]
        return newest


def tell(home: Path, stopping: Stopping, *, keep: bool) -> int:
    """Run the demo in `home`; returns the exit code. `stopping` ends it and everything it started."""
    screen = Screen(sys.stdout)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["ORGATE_CONFIG_DIR"] = str(home / "config")
    good = stopped = False
    with Processes(home, stopping) as processes:
        try:
            with stopping.heeded():
                stage = _start(home, screen, processes, stopping)
                for act in (_sign_in, _connect_model, _complete, _cancel, _limit, _other_org, _audit, _traces):
                    act(stage)
                good = screen.table(stage.rows)
                screen.editor_lines(stage.url, str(stage.ca), str(home / "config"), keep=keep)
                if keep:
                    screen.note("everything is left running; Ctrl-C ends it")
                    while True:
                        time.sleep(3600)
        except KeyboardInterrupt:
            stopped = True
            screen.note("stopping")
    if stopped:
        screen.note("stopped; no process is left behind")
        return 0 if keep else 130
    return 0 if good else 1


def _start(home: Path, screen: Screen, processes: Processes, stopping: Stopping) -> Stage:
    from gateway.install import initialize
    from gateway.pki import write_development_tls

    screen.title()
    public, admin, model = free_port(), free_port(), free_port()
    started = time.monotonic()
    installed = initialize(
        home / "gateway",
        operator_email="operator@platform.example",
        org="acme",
        owner_email="owner@acme.example",
        public_port=public,
        admin_port=admin,
    )
    tls = write_development_tls(home / "model-tls", ["127.0.0.1", "localhost"])
    (home / "model-tls" / "keys").write_text("sk-demo-acme-key\n")
    stage = Stage(
        home=home,
        screen=screen,
        processes=processes,
        stopping=stopping,
        url=f"https://127.0.0.1:{public}",
        admin_url=f"https://127.0.0.1:{admin}",
        model_url=f"https://127.0.0.1:{model}",
        http=httpx.Client(verify=_trust(installed.ca, tls.ca), timeout=15),
        ca=installed.ca,
        owners={person.org: (person.email, person.invitation) for person in installed.people},
    )
    with stage.step("a gateway and a demo model start", "both ready") as saw:
        processes.start(
            "model",
            ["-m", "gateway.demo_model", "--port", str(model), "--certificate", str(tls.certificate),
             "--key", str(tls.key), "--key-file", str(home / "model-tls" / "keys"), "--token-ms", "25"],
        )  # fmt: skip
        processes.start("gateway", ["-m", "cli.main", "serve", "--settings", str(installed.settings)])
        processes.wait(stage.http, stage.url + "/readyz")
        processes.wait(stage.http, stage.admin_url + "/readyz")
        processes.wait(stage.http, stage.model_url + "/demo/streams")
        saw(True, f"ready {(time.monotonic() - started) * 1000:.0f} ms after `init` began")
    return stage


def _sign_in(stage: Stage) -> None:
    with stage.step("two organizations, their people signed in", "3 sign-ins by device flow") as saw:
        operator, code = stage.owners["platform"]
        _login(stage, "operator", "platform", operator, code)
        stage.orgate("--profile", "operator", "org", "create", "globex")
        roles = ("--role", "owner", "--role", "member")
        invited = stage.orgate(
            *("--profile", "operator", "member", "create", "owner@globex.example", "--org", "globex"),
            *(*roles, "--output", "json"),
        )
        stage.owners["globex"] = ("owner@globex.example", _invitation(invited))
        _login(stage, "globex", "globex", *stage.owners["globex"])
        _login(stage, "owner", "acme", *stage.owners["acme"])
        ada = stage.orgate("--profile", "owner", "member", "create", "ada@acme.example", "--output", "json")
        _login(stage, "ada", "acme", "ada@acme.example", _invitation(ada))
        who = json.decode(stage.orgate("--profile", "ada", "whoami", "--output", "json", quiet=True))
        saw(True, f"operator, owners and member {who.get('id', who.get('member', ''))}")


def _login(stage: Stage, profile: str, org: str, email: str, invitation: str) -> None:
    server = ("--server", stage.url, "--admin-url", stage.admin_url, "--ca", str(stage.ca))
    person = ("--org", org, "--email", email, "--invitation", invitation, "--password-stdin")
    stage.orgate("login", "--profile", profile, *server, *person, given=PASSWORD + "\n")


def _connect_model(stage: Stage) -> None:
    with stage.step("an upstream, its key and a model alias", "the upstream takes the key") as saw:
        ca = str(stage.home / "model-tls" / "ca.pem")
        stage.orgate(
            "--profile", "owner", "upstream", "create", "demo", "--url", stage.model_url, "--upstream-ca", ca
        )
        stage.orgate("--profile", "owner", "key", "set", "demo", given="sk-demo-acme-key\n")
        stage.orgate(
            "--profile", "owner", "model", "create", "code", "--upstream", "demo", "--model", "demo-coder"
        )
        tested = stage.orgate("--profile", "owner", "upstream", "test", "demo", "--output", "json")
        result = json.decode(tested)
        saw(result["ok"], f"status {result['status']}: {result['detail']}")


def _editor(stage: Stage, profile: str) -> Editor:
    token = stage.orgate("--profile", profile, "token", quiet=True).strip()
    return Editor(stage.url, stage.ca.read_text(), token)


def _complete(stage: Stage) -> None:
    with stage.step("a completion streams into the editor", "200, ghost text as it is made") as saw:
        editor = _editor(stage, "ada")
        try:
            stage.screen.ghost_begin(PROMPT.partition("\n\n")[2])
            seen = editor.complete(_body(), show=stage.screen.ghost)
            stage.screen.ghost_end()
        finally:
            editor.close()
        good = seen.status == 200 and seen.chunks > 1 and bool(seen.text)
        overhead = seen.headers.get("x-orgate-overhead-ms", "?")
        saw(
            good, f"{seen.status}, {seen.chunks} chunks, first after {seen.first_ms:.0f} ms, gateway {overhead} ms"
        )


def _cancel(stage: Stage) -> None:
    editor = _editor(stage, "ada")
    try:
        for what, cancel_after, extra in (
            ("typing on in mid-stream", 3, {"x_pace_ms": 100}),
            ("typing on before the first byte", 0, {"x_first_byte_ms": 5000}),
        ):
            with stage.step(f"{what} cancels", "the model's stream is reset") as saw:
                before = stage.http.get(f"{stage.model_url}/demo/streams").json()
                seen = editor.complete({**_body(), **extra}, cancel_after=cancel_after)
                reset = stage.resets(before["reset"] + 1)
                after = stage.http.get(f"{stage.model_url}/demo/streams").json()
                late = float(str(reset["at_ms"])) - seen.cancelled_at * 1000
                place = "before headers" if reset["before_headers"] else f"after {reset['after_chunks']} chunks"
                good = reset["before_headers"] == (cancel_after == 0) and after["open"] == 0
                saw(good, f"{reset['how']} {place}, {late:.1f} ms after the client's")
    finally:
        editor.close()


def _limit(stage: Stage) -> None:
    with stage.step(f"more than {LIMIT} requests a minute", "429 with Retry-After, naming the limit") as saw:
        what = ("--scope", "member", "--unit", "requests", "--amount", str(LIMIT), "--per", "minute")
        stage.orgate("--profile", "owner", "limit", "set", "typing", *what)
        editor = _editor(stage, "ada")
        try:
            answers = _until_refused(editor)
        finally:
            editor.close()
        last = answers[-1]
        error = json.decode(last.body).get("error", {}) if last.status == 429 else {}
        good = last.status == 429 and error.get("limit") == "typing" and "retry-after" in last.headers
        wait = last.headers.get("retry-after")
        saw(good, f"{len(answers) - 1} served, then {last.status} by '{error.get('limit')}', retry after {wait} s")
        stage.orgate("--profile", "owner", "limit", "delete", "typing", "--yes")


def _until_refused(editor: Editor) -> list[Seen]:
    answers = []
    for _ in range(LIMIT + 2):
        answers.append(editor.complete({**_body(), "stream": False, "max_tokens": 4, "x_pace_ms": 0}))
        if answers[-1].status != 200:
            break
    return answers


def _other_org(stage: Stage) -> None:
    with stage.step("the other organization's token asks for this model", "as if the model did not exist") as saw:
        editor = _editor(stage, "globex")
        try:
            theirs = editor.complete(_body())
            never = editor.complete({**_body(), "model": "code2"})
        finally:
            editor.close()
        same = theirs.body == never.body.replace(b"'code2'", b"'code'")
        saw(
            theirs.status == 404 and same,
            f"{theirs.status} {json.decode(theirs.body)['error']['code']}, as for a made-up name",
        )
    with stage.step("its owner asks the admin API for this organization", "as if it did not exist") as saw:
        token = stage.orgate("--profile", "globex", "token", "--admin", quiet=True).strip()
        headers = {"authorization": f"Bearer {token}", "x-request-id": "demo-request"}
        theirs_answer = stage.http.get(f"{stage.admin_url}/admin/v1/orgs/acme/members", headers=headers)
        never_answer = stage.http.get(f"{stage.admin_url}/admin/v1/orgs/nobody/members", headers=headers)
        same = theirs_answer.content.replace(b"acme", b"") == never_answer.content.replace(b"nobody", b"")
        saw(
            theirs_answer.status_code == 404 and same,
            f"{theirs_answer.status_code}, byte for byte as for one that never was",
        )


def _audit(stage: Stage) -> None:
    pack = stage.home / "pack"
    with stage.step(
        "the audit log is exported and verified offline", "every entry, chain and signature hold"
    ) as saw:
        stage.orgate("--profile", "owner", "audit", "export", str(pack))
        verdict = json.decode(stage.orgate("audit", "verify", str(pack), "--output", "json"))
        saw(verdict["ok"], f"{verdict['entries']} entries, chain, tree and signature hold")
    with stage.step("one byte of the pack is flipped", "the verifier says where, exit code 1") as saw:
        bad = stage.home / "tampered"
        shutil.copytree(pack, bad)
        entries = bytearray((bad / "entries.jsonl").read_bytes())
        entries[len(entries) // 2] ^= 1
        (bad / "entries.jsonl").write_bytes(entries)
        told = stage.orgate("audit", "verify", str(bad), expect=1)
        saw(True, _one_line(told))


def _traces(stage: Stage) -> None:
    with stage.step("the prompt is looked for on disk and in the logs", "nowhere") as saw:
        found = [path for path in stage.home.rglob("*") if path.is_file() and MARKER.encode() in path.read_bytes()]
        saw(not found, f"in {len(found)} files" if found else "in no file")


def _body() -> dict[str, object]:
    return {"model": "code", "prompt": PROMPT, "suffix": "\n\nprint(fib(10))\n", "stream": True, "max_tokens": 48}


def _invitation(output: str) -> str:
    code: str = json.decode(output)["invitation"]["code"]
    return code


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if "entr" in line or "line" in line]
    return textwrap.shorten((wrong or lines or ["detected"])[0], 100, placeholder=" …")


@contextmanager
def _stdin(text: str) -> Iterator[None]:
    real, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(text.encode()))
    try:
        yield
    finally:
        sys.stdin = real


def _trust(*files: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for file in files:
        context.load_verify_locations(cafile=str(file))
    return context
