"""Writes versions and rotates the master key without end, and says what it has been promised; killed from outside."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from seamline.secrets.backends.file import FileBackend
from seamline.secrets.keys import key_file


def main(folder: Path) -> None:
    store = FileBackend(folder, "shop", lambda make: key_file(folder / "master.key", make=make))
    sys.stdout.write("open\n")
    sys.stdout.flush()
    for number in range(10_000):
        now = int(time.time() * 1000)
        value = f"value-{number}".encode()
        version = store.write("key", value, after=None, until_ms=now + 3_600_000, now_ms=now, by="child")
        sys.stdout.write(f"{version} {number}\n")
        sys.stdout.flush()
        if number % 3 == 2:
            store.rotate_master()


main(Path(sys.argv[1]))
