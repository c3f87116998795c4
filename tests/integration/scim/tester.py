"""The SCIM ecosystem's tester, in a process of its own: `python -m tests.integration.scim.tester URL CA`.

It compiles what it reads; several threads of one Python 3.11 may not do that at once. The token comes on stdin; on
stdout go the results, JSON: `[[status, in words], ...]`.
"""

from __future__ import annotations

import json
import ssl
import sys

import httpx2
from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_tester import Status, check_server

GOOD = {Status.SUCCESS, Status.COMPLIANT, Status.ACCEPTABLE}


def main(url: str, ca: str) -> None:
    headers = {"authorization": f"Bearer {sys.stdin.read().strip()}"}
    context = ssl.create_default_context(cafile=ca)
    with httpx2.Client(base_url=url, headers=headers, verify=context, timeout=20) as client:
        results = [(one.status in GOOD, repr(one)) for one in check_server(SyncSCIMClient(client))]
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
