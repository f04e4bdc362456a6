"""Another user of the machine who tries to get at a sweep: a process of its own, without any right.

Started as root, it gives that up for good before it reads its first line. Each line of its standard
input is a JSON list of what to try: a path, the id of a process, or an address; when the input
ends it prints what it has gained as a JSON list of sentences.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401  # which socket loads late, when this user cannot read it
import json
import os
import socket
import sys
from pathlib import Path

UID = 54321
# These say that a node is alive, and nothing else; Ray asks nobody for a token there.
_HEALTH = ("/api/healthz", "/api/local_raylet_healthz")
_PAGES = ("/", "/metrics", "/api/jobs/", "/api/version", "/logs", "/stats")


def main() -> None:
    """Try all that comes, and tell."""
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    os.umask(0)
    gained: dict[str, None] = {}
    for line in sys.stdin:
        for kind, target in json.loads(line):
            gained.update(dict.fromkeys(_TRIES[kind](target)))
    print(json.dumps(list(gained)))


def _path(target: str) -> list[str]:
    """List, read, write, and put something beside."""
    gained = []
    path = Path(target)
    with contextlib.suppress(OSError):
        os.listdir(path)
        gained.append(f"lists {path}")
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.read(1)
        gained.append(f"reads {path}")
    with contextlib.suppress(OSError), open(path, "r+b"):
        gained.append(f"writes {path}")
    with contextlib.suppress(OSError):
        made = path / "second-user"
        made.mkdir()
        gained.append(f"writes into {path}")
        made.rmdir()
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(target)
        gained.append(f"connects to {path}")
    return gained


def _replace(target: str) -> list[str]:
    """Put something else in the place of a file or folder, which must not be in use."""
    path = Path(target)
    aside = path.with_name(f"{path.name}.second-user")
    try:
        path.rename(aside)
    except OSError:
        return []
    aside.rename(path)
    return [f"replaces {path}"]


def _process(target: int) -> list[str]:
    """Look into a process, and end it; its command line is open to all."""
    gained = []
    for name in ("environ", "mem", "maps", "io", "stack"):
        with contextlib.suppress(OSError), open(f"/proc/{target}/{name}", "rb") as file:
            file.read(1)
            gained.append(f"reads {name} of {target}")
    with contextlib.suppress(OSError):
        os.listdir(f"/proc/{target}/fd")
        gained.append(f"lists the open files of {target}")
    with contextlib.suppress(OSError):
        os.kill(target, 0)
        gained.append(f"may signal {target}")
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{target}/cmdline").read_text(errors="replace")
        if "token" in words.lower():
            gained.append(f"sees a token in the command line of {target}")
    return gained


def _port(target: int) -> list[str]:
    """Ask for pages without a token."""
    gained = []
    for page in _PAGES + _HEALTH:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target), 2) as c:
            c.settimeout(2)
            c.sendall(f"GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            answer = c.recv(1000).decode(errors="replace")
            if answer.startswith("HTTP/") and " 200 " in answer[:20] and page not in _HEALTH:
                gained.append(f"reads {page} at port {target}")
    return gained


_TRIES = {"path": _path, "replace": _replace, "process": _process, "port": _port}

if __name__ == "__main__":
    main()
