"""`tensorgap doctor`: what this machine or cluster offers, and what is in the way."""

import itertools
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

import click

from bench import __version__, inventory
from bench.measured import Sensor
from cluster import placement
from cluster.session import session
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
    machines: Sequence[inventory.Inventory | str]
    wrong: placement.Wrong = {}
    if address is None:
        machines = [inventory.take(probe)]
    else:
        with session(address, trust_local_users):
            from cluster import nodes

            machines, wrong = nodes.inventories(), placement.mislabelled(*nodes.present())
    for found in machines:
        terminal.echo("", *([found] if isinstance(found, str) else describe(found)))
    for complaint in wrong:
        terminal.echo("", f"warning: {complaint}")
    terminal.echo("", f"model hub  {hub()}")


def describe(found: inventory.Inventory) -> Iterator[str]:
    """One machine, in lines."""
    simulated = "  (simulated: no GPU here is real)" if found.simulated else ""
    versions = ", ".join(f"{name} {version or 'absent'}" for name, version in found.packages)
    yield f"{found.hostname}  {found.system}"
    yield f"  NVIDIA driver  {found.driver or f'none: {found.no_driver}'}{simulated}"
    yield f"  packages       {versions}"
    for gpu in found.lost:
        yield f"  lost           {gpu}"
    for one, alike in itertools.groupby(found.processors):
        number = len(list(alike))
        times = f"  x {number}" if number > 1 else ""
        yield f"  {one.gpu_type}  {one.name}  ({one.detail}){times}"
        yield f"    energy      {one.energy}"
        if one.sensor is not None:
            yield f"    sensor      {describe_sensor(one.sensor)}"
        native = ", ".join(name for name, warning in one.precisions if warning is None)
        yield f"    precisions  {native or 'none'}"
        for _, warning in one.precisions:
            if warning is not None:
                yield f"    warning     {warning}"
        reasons: dict[str, list[str]] = {}
        for name, reason in one.unsupported:
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            yield f"    unsupported {', '.join(names)}: {reason}"


def describe_sensor(found: Sensor | str) -> str:
    """How a power sensor works, in one line."""
    if isinstance(found, str):
        return f"not probed: {found}"

    def ms(seconds: float | None) -> str:
        return "?" if seconds is None else f"{1000 * seconds:.0f} ms"

    every = f", every {ms(found.counter_period_s)}" if found.counter_period_s else ""
    mean = f"each the mean of {ms(found.reading_window_s)}"
    lag = f" behind a lag of {ms(found.reading_lag_s)}" if found.reading_lag_s else ""
    reason = f" ({found.reason})" if found.reason else ""
    readings = f"{found.reading} readings every {ms(found.reading_period_s)}, {mean}{lag}"
    return f"counter {found.counter}{every}; {readings}{reason}"


def hub() -> str:
    """Whether models and data sets can be fetched."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set: only what is in the cache"
    endpoint = os.environ.get("HF_ENDPOINT", _HUB)
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        urllib.request.urlopen(request, timeout=_HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        pass  # an answer, too
    except (OSError, ValueError) as error:
        return (
            f"{endpoint} cannot be reached ({getattr(error, 'reason', error)}): tiny, gpt2:random,"
            " local folders and what is in the cache work without it"
        )
    return f"{endpoint} answers"
