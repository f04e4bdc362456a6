"""`tensorgap doctor`: what this machine or cluster offers, and what is in the way."""

from __future__ import annotations

import itertools
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence

import click

from bench import __version__
from bench.inventory import Inventory, Processor
from bench.measured import Sensor
from jobs import options, terminal

_HUB = "https://huggingface.co"
_HUB_TIMEOUT_S = 3.0


@click.command("doctor")
@options.cluster
@click.option(
    "--probe",
    is_flag=True,
    help="Also find out how the power sensor of each GPU here works: half a minute each.",
)
def command(address: str | None, trust_local_users: bool, probe: bool) -> None:
    """Show devices, their types and precisions, energy meters, versions, and the model hub.

    Without --address it looks at this machine and starts nothing; with it, each node of the
    cluster answers for itself, and a label that names other GPUs than the node has is told.

    \b
    tensorgap doctor
    tensorgap doctor --probe
    tensorgap doctor --address auto
    """
    if probe and address:
        raise click.UsageError(
            "--probe looks at this machine only: leave out --address (or unset RAY_ADDRESS)"
        )
    terminal.echo(f"tensorgap {__version__}")
    machines, wrong = inventories(address, trust_local_users, probe)
    for found in machines:
        terminal.echo("")
        terminal.echo(*([found] if isinstance(found, str) else describe(found)))
    for node in wrong:
        terminal.echo("", f"warning: {node}")
    terminal.echo("", f"model hub  {hub()}")


def inventories(
    address: str | None, trust_local_users: bool, probe: bool
) -> tuple[Sequence[Inventory | str], Sequence[str]]:
    """Of each node, and the nodes whose labels name other GPUs than they have."""
    if address is None:
        from bench import inventory

        return [inventory.take(probe)], []
    from cluster import placement
    from cluster.session import session

    with session(address, trust_local_users):
        from cluster import nodes

        wrong = placement.mislabelled(*nodes.present())
        return nodes.inventories(), list(map(str, wrong))


def describe(found: Inventory) -> Iterable[str]:
    """One machine, in lines."""
    yield f"{found.hostname}  {found.system}"
    driver = f"{found.driver}" if found.driver else f"none: {found.no_driver}"
    if found.simulated:
        driver += "  (simulated: no GPU here is real)"
    yield f"  NVIDIA driver  {driver}"
    versions = ", ".join(f"{name} {version or 'absent'}" for name, version in found.packages)
    yield f"  packages       {versions}"
    for gpu in found.lost:
        yield f"  lost           {gpu}"
    for processor, alike in itertools.groupby(found.processors):
        yield from describe_processor(processor, len(list(alike)))


def describe_processor(processor: Processor, count: int) -> Iterable[str]:
    """Its processors of one kind, in lines."""
    times = f"  x {count}" if count > 1 else ""
    yield f"  {processor.gpu_type}  {processor.name}  ({processor.detail}){times}"
    yield f"    energy      {processor.energy}"
    if processor.sensor is not None:
        yield f"    sensor      {describe_sensor(processor.sensor)}"
    native = [name for name, warning in processor.precisions if warning is None]
    yield f"    precisions  {', '.join(native) or 'none'}"
    for name, warning in processor.precisions:
        if warning is not None:
            yield f"    warning     {name}: {warning}"
    reasons: dict[str, list[str]] = {}
    for name, reason in processor.unsupported:
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        yield f"    unsupported {', '.join(names)}: {reason}"


def describe_sensor(found: Sensor | str) -> str:
    """How a power sensor works, in one line."""
    if isinstance(found, str):
        return f"not probed: {found}"
    counter = f"counter {found.counter}"
    if found.counter_period_s:
        counter += f", every {_ms(found.counter_period_s)}"
    readings = f"{found.reading} readings every {_ms(found.reading_period_s)}"
    readings += f", each the mean of {_ms(found.reading_window_s)}"
    if found.reading_lag_s:
        readings += f" behind a lag of {_ms(found.reading_lag_s)}"
    reason = f" ({found.reason})" if found.reason else ""
    return f"{counter}; {readings}{reason}"


def _ms(seconds: float | None) -> str:
    return "?" if seconds is None else f"{1000 * seconds:.0f} ms"


def hub() -> str:
    """Whether models and data sets can be fetched."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set: only what is in the cache"
    endpoint = os.environ.get("HF_ENDPOINT", _HUB)
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_HUB_TIMEOUT_S):
            return f"{endpoint} answers"
    except urllib.error.HTTPError:
        return f"{endpoint} answers"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return (
            f"{endpoint} cannot be reached ({reason}): tiny, gpt2:random, local folders and what is"
            " in the cache work without it"
        )
