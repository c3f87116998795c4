"""`orgate serve`: one supervisor, one control process, one tree of workers.

The supervisor starts both children at once, starts one again that dies, passes signals on, and leaves no
process behind: each child asks the kernel for SIGTERM when its parent is gone, so even kill -9 of the
supervisor ends them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import IO

from gateway.hardening import keep_memory_private
from gateway.process import environment, python
from gateway.secrets.masterkey import MasterKeyError, read_master_key
from gateway.secrets.passphrase import inherited
from gateway.settings import Listener, Settings, SettingsError, load
from gateway.witness_files import WitnessSettingsError, read_ca, read_policies

log = logging.getLogger("orgate.serve")

SETTINGS_VARIABLE = "ORGATE_SETTINGS"
RESTART_S = (0.2, 0.5, 1, 2, 5, 10)
"""Waits before a dead child is started again; the last one repeats. A minute of life begins the row anew."""

NEVER_READY_S = 3

LATE_S = 10
"""Past what workers give themselves to drain and the tree gives them: then the whole session is killed."""

HOPELESS = 78
"""Exit code (EX_CONFIG of sysexits.h) of a child that said why it cannot start and that waiting won't help.

At the first start the supervisor gives up with it; later it tries on, since the other half still serves."""

SOCKET_PATH_MAX = 107
"""Bytes that fit in `sun_path` (unix(7)), without its end."""

_PR_SET_PDEATHSIG = 1


class AlreadyServingError(Exception):
    """Another `orgate serve` holds this folder."""


class CannotServeError(Exception):
    """What makes serving impossible, found before anything is started; `fix` says what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def die_with_parent(parent: int) -> None:
    """Ask for SIGTERM when the parent is gone (prctl(2)); called first thing in every child."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(0)


def run(settings_path: Path) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    Raises `SettingsError`, `AlreadyServingError`, `CannotServeError`.
    """
    keep_memory_private()
    settings = load(settings_path)
    configure_logging(settings.server.log_level)
    settings.bus_socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _lock(settings.bus_socket.parent / "serve.lock"):
        examine(settings)
        settings.bus_socket.unlink(missing_ok=True)
        return _Supervisor(settings, settings_path).run()


def configure_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    # They write URLs and statements at INFO and DEBUG.
    for library in ("httpx", "httpcore", "aiosqlite", "urllib3", "hvac"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _lock(path: Path) -> IO[str]:
    held = path.open("w", encoding="ascii")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise AlreadyServingError(f"another `orgate serve` runs on {path.parent.parent}") from None
    return held


def examine(settings: Settings) -> None:
    """Look at what every start needs, so that a mistake is told in a line and not by processes that die.

    Raises `CannotServeError` for the first thing that is wrong.
    """
    if len(os.fsencode(settings.bus_socket)) > SOCKET_PATH_MAX:
        raise CannotServeError(
            f"{settings.bus_socket}: the path of a socket has {SOCKET_PATH_MAX} bytes at most",
            "move the home to a folder with a shorter path",
        )
    for name, listener in (("public", settings.public), ("admin", settings.admin)):
        _pair(name, settings, listener)
        _free(name, listener)
    try:
        read_master_key(settings.secrets.master_key, settings.home)
    except MasterKeyError as error:
        raise CannotServeError(str(error), "without its master key the sealed file opens for nobody") from None
    try:
        read_policies(settings)
        read_ca(settings)
    except WitnessSettingsError as error:
        raise CannotServeError(error.message, error.fix) from None
    logs = settings.path(settings.audit.path) / "orgs"
    if settings.database is not None and not settings.database.exists() and logs.is_dir() and any(logs.iterdir()):
        # An empty database would begin to count again, and nobody could sign in.
        raise CannotServeError(
            f"{settings.database} is missing, although there are audit logs", "restore it from a backup"
        )


def _pair(name: str, settings: Settings, listener: Listener) -> None:
    certificate, key = settings.path(listener.certificate), settings.path(listener.key)
    for part, path in (("certificate", certificate), ("key", key)):
        if not os.access(path, os.R_OK):
            raise CannotServeError(f"{name}.{part}: {path} cannot be read", "mend its name, or run `orgate init`")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise CannotServeError(
            f"{name}: {certificate} and {key} cannot be used ({error.reason})", "they must be one PEM pair"
        ) from None


def _free(name: str, listener: Listener) -> None:
    """Workers share their port with each other (SO_REUSEPORT), and would share it with a stranger unasked."""
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are ending don't matter
        try:
            probe.bind((listener.host, listener.port))
        except OSError as error:
            raise CannotServeError(
                f"{name}: {listener.host}:{listener.port} cannot be listened on ({error.strerror})",
                f"stop what listens there, or change {name}.host or {name}.port",
            ) from None


class _Child:
    """One child process, started again when it dies. The wait is kept by the supervisor's loop."""

    def __init__(self, part: str, settings_path: Path) -> None:
        self._part = part
        self._settings_path = settings_path
        self._deaths = 0
        self._born = 0.0
        self._next = 0.0
        self.hopeless = False
        self.process: subprocess.Popen[bytes] | None = None

    def tend(self, now: float) -> None:
        if self.process is not None and self.process.poll() is not None:
            log.error("the %s process ended with status %s", self._part, self.process.returncode)
            self.hopeless = self.process.returncode == HOPELESS
            self._deaths = 0 if now - self._born > 60 else self._deaths + 1
            self._next = now + RESTART_S[min(self._deaths, len(RESTART_S) - 1)]
            self.process = None
        if self.process is None and now >= self._next:
            # A session of its own: Ctrl-C in a terminal reaches the supervisor, which decides the order.
            self.process = subprocess.Popen(  # noqa: S603  # our own interpreter and module, no shell
                python("-m", "gateway.app", self._part, str(os.getpid())),
                env=environment(**{SETTINGS_VARIABLE: str(self._settings_path.resolve())}),
                start_new_session=True,
                pass_fds=inherited(),
            )
            self._born = now

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def end(self, patience_s: float) -> None:
        """SIGTERM, wait, then SIGKILL to its whole session so that no worker stays behind."""
        process = self.process
        if process is None:
            return
        self.signal(signal.SIGTERM)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            log.warning("the %s process did not drain in %.0f s; killing it", self._part, patience_s)
        with contextlib.suppress(ProcessLookupError):  # the usual case: the whole session is gone already
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class _Supervisor:
    def __init__(self, settings: Settings, settings_path: Path) -> None:
        self._settings = settings
        self._settings_path = settings_path
        self._control = _Child("control", settings_path)
        self._public = _Child("public", settings_path)
        self._stop = False
        self._reload = False

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        announced = False
        try:
            while not self._stop:
                now = time.monotonic()
                self._control.tend(now)
                self._public.tend(now)
                if not announced and (self._control.hopeless or self._public.hopeless):
                    return 1
                if self._reload:
                    self._reload = False
                    self._pass_on_reload()
                if not announced and self._answers():
                    announced = True
                    log.info("serving %s; admin on %s", self._settings.server.url, self._settings.server.admin_url)
                time.sleep(0.05)
        finally:
            # Workers first: what they settle while draining still reaches the control process.
            # One that never got ready has nothing to drain, and may have missed the signal while it started.
            server = self._settings.server
            patience_s = server.drain_delay_s + server.drain_s + LATE_S
            self._public.end(patience_s if announced else NEVER_READY_S)
            self._control.end(10)
            log.info("stopped")
        return 0

    def _pass_on_reload(self) -> None:
        """Look first: settings or a certificate that cannot be used must not cost what is being served."""
        try:
            settings = load(self._settings_path)
            for name, listener in (("public", settings.public), ("admin", settings.admin)):
                _pair(name, settings, listener)
        except (SettingsError, CannotServeError) as error:
            log.error("not reloaded: %s", error)  # noqa: TRY400  # the message is all there is to say
            return
        log.info("reloading")
        self._control.signal(signal.SIGHUP)
        self._public.signal(signal.SIGHUP)

    def _answers(self) -> bool:
        for listener in (self._settings.public, self._settings.admin):
            with socket.socket() as probe:
                probe.settimeout(0.2)
                if probe.connect_ex((listener.host, listener.port)) != 0:
                    return False
        return True

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        self._reload = True
