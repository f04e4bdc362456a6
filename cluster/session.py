"""A connection to Ray: a cluster of this machine that ends with the sweep, or one that exists."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import inventory
from bench.errors import TensorgapError
from cluster import folders
from cluster.placement import TYPE_LABEL

LOCAL = "local"
AUTO = "auto"
# Ray's agent on each node polls NVML every 5 s and so disturbs what is measured; once an hour is
# as good as never (ray-project/ray#65808: it cannot be switched off).
_AGENT_INTERVAL_MS = "3600000"
# Ray runs its workers at nice 15, so that anything else on the host computes first.
_NICENESS = "0"
_REACH_TIMEOUT_S = 10.0
_PROBE_TIMEOUT_S = 3.0
_OBJECT_STORE_BYTES = 100 * 2**20  # rows are small


class HeadLostError(TensorgapError):
    """The head of the cluster is gone: a call to it would hang, and then end this process."""


def head_answers() -> bool:
    """Whether the head of the connected cluster can be reached, found out without Ray's help.

    A call through Ray would wait for up to 60 s and then end this process.
    """
    import ray

    try:
        _reach(ray.get_runtime_context().gcs_address, _PROBE_TIMEOUT_S)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def session(address: str | None = None, trust_local_users: bool = False) -> Iterator[None]:
    """Connect to Ray for as long as the block lasts, and ship `bench` and `cluster` to its nodes.

    Args:
        address: of a cluster that this machine is a node of (`auto`, `HOST:PORT`); None starts Ray
            on this machine alone, where ray.init would join any cluster that it finds.
        trust_local_users: also use a cluster whose nodes keep Ray's files where other users of
            their hosts can change them.

    Raises:
        TensorgapError: there is no Ray, no cluster at the address, Ray does not start, or others
            can change what it runs.
    """
    if address is not None and "://" in address:
        raise TensorgapError(
            f"address {address}: neither the Ray client (ray://) nor the dashboard (http://) can"
            " stream rows; run on a node of the cluster with --address auto, or through ray job"
            " submit (unset RAY_ADDRESS, if the address comes from there)"
        )
    local = address in (None, LOCAL)
    # Ray prints its own news of dead workers on standard output, which is ours alone; the row of
    # the cell says the same in fewer words.
    quiet = {"RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed"}
    settings = quiet | _local_settings() if local else quiet
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment(settings))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        ray = _ray()
        if local:
            where = "on this machine"
            options = {
                "address": LOCAL,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "labels": _local_labels(),
                "_temp_dir": stack.enter_context(folders.own()),
            }
        else:
            where = f"at {address}"
            head = folders.current_address() if address == AUTO else str(address)
            options = {"address": head}
        with _explained(where):
            if not local:
                _reach(head)
                if not trust_local_users:
                    # A connection of its own, because Ray brings the code to the nodes at once.
                    with _connected(ray, options):
                        folders.refuse_shared()
            code = {
                "py_modules": [_package("bench"), _package("cluster")],
                "env_vars": {folders.TRUSTING: "1"} if trust_local_users else {},
            }
            stack.enter_context(_connected(ray, options | {"runtime_env": code}))
        yield


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise TensorgapError(
            "Ray is not installed, and runs each cell, also on one machine: pip install 'ray>=2.60'"
        ) from None
    return ray


@contextlib.contextmanager
def _connected(ray: Any, options: Mapping[str, Any]) -> Iterator[None]:
    with _driver_explained(), _own_sigterm():
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        if head_answers():
            ray.shutdown()  # which would wait for the head


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the handler that there is: Ray's own, from when it starts, is sys.exit(15)."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as ended:
        raise KeyboardInterrupt from ended
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    """Say in one line why there is no connection."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        text = str(error).strip() or type(error).__name__
        first = text.splitlines()[0]
        if "ersion mismatch" in first:  # the versions stand in the lines below
            first = " ".join(text.split())
        raise TensorgapError(
            f"no Ray {where}: {first} (a cluster is given by --address auto on its head, or"
            " --address HOST:6379; its token stands in RAY_AUTH_TOKEN or ~/.ray/auth_token)"
        ) from error


def _local_labels() -> dict[str, str]:
    """The type of this machine's GPUs, if they are of one: Ray itself would name the first.

    It does so also where CUDA_VISIBLE_DEVICES leaves the first out.
    """
    types = {card.gpu_type for card in inventory.visible_gpus()}
    return {TYPE_LABEL: types.pop()} if len(types) == 1 else {}


@contextlib.contextmanager
def _driver_explained() -> Iterator[None]:
    """Say in words what the NVIDIA driver told Ray, which counts the GPUs of a node it starts."""
    try:
        yield
    except Exception as error:
        if not type(error).__name__.startswith("NVMLError"):  # of Ray's own copy of pynvml
            raise
        raise TensorgapError(
            f"Ray cannot count the GPUs of this machine: the NVIDIA driver says: {error};"
            " nvidia-smi shows which GPU it is: reset it (nvidia-smi --gpu-reset), or restart the"
            " machine"
        ) from error


def _reach(address: str, timeout_s: float = _REACH_TIMEOUT_S) -> None:
    """Raise OSError where nothing listens: ray.init would try again for minutes.

    `auto` and names that are no HOST:PORT are left to Ray.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()


@functools.cache
def _local_settings() -> dict[str, str]:
    """The environment of a cluster that nobody else can use, and that leaves nothing behind.

    Its token lives in this process only: with a token file, which ray.init would write, every
    later `ray start` of the same user would ask for authentication. Ray reads the token once, when
    it is imported, so it stays the same for all sessions of a process; where Ray is imported
    already it keeps its own default.
    """
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # What Ray does by itself where it knows no clusters: each port on loopback only.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Nobody reads Ray's own metrics, whose ports ask nobody for a token; -1 cannot be opened.
        "RAY_enable_metrics_collection": "0",
        "AUTOSCALER_METRIC_PORT": "-1",
        "DASHBOARD_METRIC_PORT": "-1",
        "REPORTER_UPDATE_INTERVAL_MS": _AGENT_INTERVAL_MS,
        "RAY_worker_niceness": _NICENESS,
        # Ray counts GPUs in NVML's order, which is not CUDA's own.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # Ray starts a spare worker for each core, which would compute beside the first measurement.
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
    }
    if "ray" not in sys.modules:
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return settings


def _package(name: str) -> str:
    """The folder of one of our packages, wherever it is installed."""
    return str(Path(__file__).resolve().parent.parent / name)


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
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
