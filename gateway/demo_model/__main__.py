"""Command line of the demo model server."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from gateway.demo_model.dialect import Pace
from gateway.demo_model.routes import DEFAULT_MODELS, MAX_BODY_BYTES, Routes, key_digests
from gateway.demo_model.server import DemoModel, server_context


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gateway.demo_model",
        description="An OpenAI-compatible model server for demonstrations. Prints its address once it listens.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one")
    parser.add_argument("--certificate", type=Path, help="PEM certificate chain; without one, clear text")
    parser.add_argument("--key", type=Path, help="PEM private key of the certificate")
    parser.add_argument(
        "--key-file", type=Path, help="API keys to accept, one a line; without it, no key is asked"
    )
    parser.add_argument("--model", action="append", metavar="NAME", help="a model to offer; may be repeated")
    parser.add_argument("--token-ms", type=float, default=0.0, help="milliseconds between two tokens of an answer")
    parser.add_argument("--first-byte-ms", type=float, default=0.0, help="milliseconds before an answer begins")
    parser.add_argument("--max-body-bytes", type=int, default=MAX_BODY_BYTES, help="longest request body accepted")
    return parser


async def _serve(server: DemoModel, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    url = await server.start(host, port)
    sys.stdout.write(f"demo model listening on {url}\n")
    sys.stdout.flush()
    await stop.wait()
    await server.stop()


def main() -> int:
    parser = _arguments()
    options = parser.parse_args()
    if (options.certificate is None) != (options.key is None):
        parser.error("--certificate and --key go together")
    try:
        context = server_context(options.certificate, options.key) if options.certificate else None
        keys = key_digests(options.key_file.read_text()) if options.key_file else None
        pace = Pace(token_ms=options.token_ms, first_byte_ms=options.first_byte_ms).checked()
    except (OSError, ValueError) as problem:
        parser.error(str(problem))
    routes = Routes(
        models=tuple(options.model or DEFAULT_MODELS),
        pace=pace,
        keys=keys,
        max_body_bytes=options.max_body_bytes,
    )
    try:
        asyncio.run(_serve(DemoModel(routes, context), options.host, options.port))
    except OSError as problem:
        sys.stderr.write(f"cannot listen on {options.host}:{options.port}: {problem.strerror or problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
