"""A control process's writer in PostgreSQL and objects, to be killed: run as a program by test_store_kills.

Appends for ever, two entries at a time; prints the last number once it is durable. Signs and moves on the way.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import count

from gateway.audit.log_store import Rule
from gateway.audit.orglog import OrgLog
from tests.contract.log_store import PostgresAndObjects
from tests.fakes.audit import ACME, SIGNER
from tests.unit.audit.test_files import drafts

RULE = Rule(7 * 365 * 86_400_000, held=False)


def main(boot: str, *place: str) -> None:
    log = OrgLog(PostgresAndObjects(*place).open().open(ACME), ACME, SIGNER)
    for n in count(1, 2):
        log.append(drafts(n, n + 1, boot=boot))
        os.write(1, b"%d\n" % (n + 1))
        if n % 10 == 1:
            log.store.tend(RULE, log.save_checkpoint().encode(), time.time_ns() // 10**6)


if __name__ == "__main__":
    main(*sys.argv[1:])
