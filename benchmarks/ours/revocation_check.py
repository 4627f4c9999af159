"""``python -m benchmarks.ours.revocation_check``: ns of CPU to ask whether a subject is revoked; nothing changes."""

from __future__ import annotations

import json
import sys
from time import process_time_ns

from benchmarks.driver import run, say
from seamline.mesh.identity.revocation import Revocation, Revocations
from seamline.module.principal import Subject, User

ENTRIES = 10_000


async def main() -> None:
    known = Revocations()
    known.apply(Revocation("session", f"other-{each}") for each in range(ENTRIES))
    subject = Subject(User("ann", "https://id.example", session="s", authenticated_at=1)).acting("front")
    say({"ready": True})
    for line in sys.stdin:
        calls = json.loads(line)["calls"]
        began = process_time_ns()
        for _ in range(calls):
            known.check(subject)
        say({"ns": (process_time_ns() - began) / calls})


if __name__ == "__main__":
    run(main)
