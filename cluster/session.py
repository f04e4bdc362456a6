"""A connection to Ray: a cluster of this machine that ends with the sweep, or one that exists."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.records import TensorgapError

LOCAL = "local"
# Ray's agent on each node polls NVML every 5 s and so disturbs what is measured; once an hour is
# as good as never (ray-project/ray#65808: it cannot be switched off).
_AGENT_INTERVAL_MS = "3600000"
_OBJECT_STORE_BYTES = 100 * 2**20  # rows are small


@contextlib.contextmanager
def session(address: str | None = None) -> Iterator[None]:
    """Connect to Ray for as long as the block lasts, and ship `bench` and `cluster` to its nodes.

    Args:
        address: of a cluster (`auto`, `HOST:PORT`, `ray://HOST:PORT`); None starts Ray on this
            machine alone. Without an address ray.init would join any cluster that it finds here.

    Raises:
        TensorgapError: there is no cluster at the address, or Ray does not start.
    """
    local = address in (None, LOCAL)
    with _environment(_local_settings() if local else {}):
        import ray

        options: dict[str, Any] = {
            "address": LOCAL if local else address,
            "runtime_env": {"py_modules": [_package("bench"), _package("cluster")]},
            "log_to_driver": False,
            "logging_level": logging.ERROR,
        }
        if local:
            options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            where = "on this machine" if local else f"at {address}"
            raise TensorgapError(
                f"no Ray {where}: {first} (a cluster is given by --address auto on its head, or"
                " --address HOST:6379; its token stands in RAY_AUTH_TOKEN or ~/.ray/auth_token)"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


def _local_settings() -> dict[str, str]:
    """A cluster that nobody else can use, and that leaves nothing behind.

    Its token lives in this process only: with a token file, which ray.init would write, every
    later `ray start` of the same user would ask for authentication.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "REPORTER_UPDATE_INTERVAL_MS": _AGENT_INTERVAL_MS,
    }


def _package(name: str) -> str:
    """The folder of one of our packages, wherever it is installed."""
    return str(Path(__file__).resolve().parent.parent / name)


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
