"""A connection to Ray: a cluster of this machine that ends with the sweep, or one that exists.

Ray reads its environment when it is imported. So neither this module nor what it imports does so
before the environment is set, and what does (`driver`, `lease`, `nodes`, `process`, `faults`) is
itself imported within a session.
"""

import contextlib
import functools
import logging
import os
import secrets
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import inventory
from bench.device.kinds import Card
from bench.errors import TensorgapError
from bench.fresh import own_template
from cluster import folders, head, machine
from cluster.placement import TYPE_LABEL

LOCAL = "local"
AUTO = "auto"
_REACH_TIMEOUT_S = 10.0
_OBJECT_STORE_BYTES = 100 * 2**20  # rows are small
_ROOT = Path(__file__).resolve().parent.parent  # where our packages are installed
_LOOK_S = 0.05
_SERVANTS = ("start_api_server", "start_monitor", "start_log_monitor")  # of Ray's Node


@contextlib.contextmanager
def session(
    address: str | None = None, trust_local_users: bool = False, measure: str | None = None
) -> Iterator[None]:
    """Connect to Ray for as long as the block lasts, and ship `bench` and `cluster` to its nodes.

    Args:
        address: of a cluster that this machine is a node of (`auto`, `HOST:PORT`); None starts Ray
            on this machine alone, where ray.init would join any cluster that it finds.
        trust_local_users: also use a cluster whose nodes keep Ray's files where other users of
            their hosts can change them.
        measure: what the processes of a sweep on this machine will run: their template is started
            at once, beside Ray.

    Raises:
        TensorgapError: there is no Ray or no such cluster, or others can change what it runs.
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
    settings = {"RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed"}
    template = None
    parts: tuple[machine.Part, ...] = ()
    with contextlib.ExitStack() as stack:
        if local:  # where actors run the code that this process runs
            settings |= local_settings() | {folders.TRUSTING: "1"}
            template = stack.enter_context(own_template(measure)) if measure else None
        stack.enter_context(environment(settings))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        ray = import_ray()
        options: dict[str, Any] = {"address": address}
        if address == AUTO:
            options["address"] = folders.current_address()
        if local:
            cards = inventory.visible_gpus()
            parts = machine.divide(cards)
            options = local_options(cards, parts, stack.enter_context(folders.own()))
        with explained("on this machine" if local else f"at {address}"):
            if not local:
                head.reach(options["address"], _REACH_TIMEOUT_S)
                if not trust_local_users:
                    # A connection of its own, because Ray brings the code to the nodes at once.
                    with connected(ray, options):
                        folders.refuse_shared()
                options["runtime_env"] = {
                    "py_modules": [str(_ROOT / "bench"), str(_ROOT / "cluster")],
                    "env_vars": {folders.TRUSTING: "1"} if trust_local_users else {},
                }
            stack.enter_context(connected(ray, options, parts))
        if template:
            stack.callback(template.kill)  # its memory is given back while Ray ends
        yield


def import_ray() -> Any:
    """Ray; TensorgapError where it is not installed."""
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        remedy = "runs each cell, also on one machine: pip install 'ray>=2.60'"
        raise TensorgapError(f"Ray is not installed, and {remedy}") from None
    return ray


@contextlib.contextmanager
def connected(
    ray: Any, options: Mapping[str, Any], parts: Sequence[machine.Part] = ()
) -> Iterator[None]:
    """Connect, with the handler of SIGTERM that there is: Ray's own is sys.exit(15).

    A cluster that is started here has a node for each of the parts of this machine, if any.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        with quick_start(ray), environment(parts[0].environment if parts else {}):
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except SystemExit as ended:
        raise KeyboardInterrupt from ended
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    further: list[Any] = []
    try:
        with quick_start(ray):
            for part in parts[1:]:
                further.append(further_node(ray, options, part))
        yield
    finally:
        for node in further:
            node.kill_all_processes(check_alive=False, allow_graceful=True)
        if head.answers():
            ray.shutdown()  # which would wait for the head


def local_options(
    cards: Sequence[Card], parts: Sequence[machine.Part], folder: str
) -> dict[str, Any]:
    """How ray.init starts a cluster of this machine, or the first node of one of several.

    Ray itself would label it with the type of the first GPU, even if CUDA_VISIBLE_DEVICES leaves
    that one out.
    """
    types = [part.gpu_type for part in parts] or [card.gpu_type for card in cards]
    return {
        "address": LOCAL,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "labels": {TYPE_LABEL: types[0]} if types else {},
        "_temp_dir": folder,
    }


def further_node(ray: Any, options: Mapping[str, Any], part: machine.Part) -> Any:
    """One more node of the cluster that ray.init has started with these options.

    It ends with this process, as that cluster does, whatever ends it. Ray has no public function
    for it; this is what `ray.cluster_utils` does.
    """
    parameters = ray._private.parameter.RayParams(
        gcs_address=ray.get_runtime_context().gcs_address,
        num_cpus=part.num_cpus,
        num_gpus=len(part.uuids),
        labels={TYPE_LABEL: part.gpu_type},
        object_store_memory=options["object_store_memory"],
        temp_dir=options["_temp_dir"],
        include_log_monitor=False,
        dashboard_agent_listen_port=None,  # one that is free
    )
    with environment(part.environment):
        return ray._private.node.Node(parameters, shutdown_at_exit=False)


@contextlib.contextmanager
def quick_start(ray: Any) -> Iterator[None]:
    """Have Ray start a cluster here without what nothing here uses, and without idle seconds.

    Three processes are left out: the dashboard's server (started though there is no dashboard), the
    autoscaler's monitor and the one that forwards logs. Of the 3.8 s that ray.init takes on two
    cores they are 1.9, and of the 1.4 s of ray.shutdown 1.0. The agent of the node is the one of a
    Ray without a dashboard, which imports less. And Ray looks every second whether its raylet is
    up. Ray 2.60 has no option for any of it; in a Ray that names them otherwise nothing changes.
    """
    private = ray._private
    patience = types.SimpleNamespace(**vars(time))
    patience.sleep = lambda seconds: time.sleep(min(seconds, _LOOK_S))
    changes: dict[tuple[Any, str], Any] = {
        (private.services, "time"): patience,
        (private.utils, "get_dashboard_dependency_error"): lambda: ImportError("not used"),
        **{(private.node.Node, name): lambda *given, **options: None for name in _SERVANTS},
    }
    before = {(owner, name): vars(owner).get(name) for owner, name in changes}
    for (owner, name), value in changes.items():
        if before[owner, name]:
            setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name), value in before.items():
            if value:
                setattr(owner, name, value)


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Say in one line why there is no connection."""
    try:
        yield
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        # Of Ray's own copy of pynvml: Ray counts the GPUs of a node that it starts.
        if type(error).__name__.startswith("NVMLError"):
            raise TensorgapError(
                f"Ray cannot count the GPUs of this machine: the NVIDIA driver says: {error};"
                " nvidia-smi shows which one it is: reset it (nvidia-smi --gpu-reset), or restart"
            ) from error
        if not isinstance(error, RuntimeError | ValueError | OSError):
            raise
        first = text.splitlines()[0]
        if "ersion mismatch" in first:  # the versions stand in the lines below
            first = " ".join(text.split())
        raise TensorgapError(
            f"no Ray {where}: {first} (a cluster is given by --address auto on its head, or"
            " --address HOST:6379; its token stands in RAY_AUTH_TOKEN or ~/.ray/auth_token)"
        ) from error


@functools.cache
def local_settings() -> dict[str, str]:
    """The environment of a cluster that no one else can use, and that leaves nothing behind.

    Its token lives in this process only: with a token file, which ray.init would write, every
    later `ray start` of the same user would ask for authentication. Ray reads the token when it is
    imported, so all sessions of a process have the same, or Ray's default if it was before.
    """
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # What Ray does by itself where it knows no clusters: each port on loopback only.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # No one reads Ray's own metrics, whose ports need no token; -1 cannot be opened.
        "RAY_enable_metrics_collection": "0",
        "AUTOSCALER_METRIC_PORT": "-1",
        "DASHBOARD_METRIC_PORT": "-1",
        # Ray's agent on each node polls NVML every 5 s and so disturbs what is measured; once an
        # hour is as good as never (ray-project/ray#65808: it cannot be switched off).
        "REPORTER_UPDATE_INTERVAL_MS": "3600000",
        # Ray runs its workers at nice 15, so that anything else on the host computes first.
        "RAY_worker_niceness": "0",
        # Ray counts GPUs in NVML's order, which is not CUDA's own.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # Ray starts a spare worker for each core, which would compute beside the first measurement.
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
    }
    if "ray" not in sys.modules:
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return settings


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set these variables for as long as the block lasts."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in before.items() if value is not None})
