"""Knock at each port of a host as a stranger without the token: `knock.py ADDRESS PORT...`.

Prints a JSON object: what each port answered, by HTTP and by gRPC.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys

import grpc

_PAGES = ("/", "/metrics", "/api/jobs/", "/api/version", "/logs", "/api/healthz")
# One method of each service that Ray's processes have; whichever the port does not have is
# UNIMPLEMENTED there.
_METHODS = (
    "NodeManagerService/GetNodeStats",
    "NodeManagerService/GetSystemConfig",
    "CoreWorkerService/GetCoreWorkerStats",
    "CoreWorkerService/KillActor",
    "ObjectManagerService/Push",
    "ObjectManagerService/FreeObjects",
    "NodeInfoGcsService/GetAllNodeInfo",
    "InternalKVGcsService/InternalKVKeys",
    "JobInfoGcsService/GetAllJobInfo",
    "ReporterService/GetTraceback",
    "LogService/ListLogs",
)
_WAIT_S = 3


def main() -> None:
    """Knock, and tell."""
    address, *ports = sys.argv[1:]
    print(json.dumps({port: [*_http(address, port), *_grpc(address, port)] for port in ports}))


def _http(address: str, port: str) -> list[str]:
    found = []
    for page in _PAGES:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address, int(port)), _WAIT_S) as connection,
        ):
            connection.settimeout(_WAIT_S)
            connection.sendall(f"GET {page} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
            first = connection.recv(1000).decode(errors="replace").partition("\r\n")[0]
            if first.startswith("HTTP/"):
                found.append(f"{page} {first.split()[1]}")
        if not found:
            break  # it speaks something else
    return found


def _grpc(address: str, port: str) -> list[str]:
    found = []
    with grpc.insecure_channel(f"{address}:{port}") as channel:
        for method in _METHODS:
            call = channel.unary_unary(f"/ray.rpc.{method}")
            try:
                call(b"", timeout=_WAIT_S)
                found.append(f"{method} OK")
            except grpc.RpcError as error:
                found.append(f"{method} {error.code().name}")
    return found


if __name__ == "__main__":
    main()
