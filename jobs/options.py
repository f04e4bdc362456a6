"""Options that several commands share."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from bench.asked import PRECISIONS
from bench.files import limits

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Only:
    """The part of a matrix that is asked for; an empty tuple keeps all."""

    gpu_types: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def shipped(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """The path of a matrix; a bare name is a shipped one, which an installation hides deep."""
    ours = {file.stem: file for file in (Path(__file__).parent / "matrices").glob("*.toml")}
    return path if path is None or os.path.isfile(path) else ours.get(str(path), path)


def matrix(required: bool = True) -> Callable[[Command], Command]:
    """MATRIX: a file, or the bare name of one that is shipped."""
    metavar, path = "MATRIX" if required else "[MATRIX]", click.Path(path_type=Path)
    return click.argument("matrix", required=required, metavar=metavar, type=path, callback=shipped)


def cluster(command: Command) -> Command:
    """--address and --trust-local-users: which cluster."""
    address = click.option(
        "--address",
        envvar="RAY_ADDRESS",
        metavar="ADDRESS",
        help="Ray cluster that this machine is a node of: auto or HOST:PORT; also read from"
        " RAY_ADDRESS. Without it, this machine alone.",
    )
    trust = click.option(
        "--trust-local-users",
        is_flag=True,
        help="Also use a cluster on whose hosts other users can change the code that Ray runs: for"
        " hosts where you trust all of them, as in a container.",
    )
    return address(trust(command))


def narrowing(command: Command) -> Command:
    """--gpu-type, --precision, --model: a part of the matrix, as the argument `only`."""

    @functools.wraps(command)
    def narrowed(*args: Any, **given: Any) -> Any:
        chosen = (given.pop(name) for name in ("gpu_types", "precisions", "models"))
        return command(*args, only=Only(*chosen), **given)

    wrapped: Any = narrowed
    precision = f"precision ({', '.join(PRECISIONS)})"
    for name, what in (("model", "model"), ("precision", precision), ("gpu-type", "GPU type")):
        wrapped = click.option(
            f"--{name}",
            f"{name.replace('-', '_')}s",
            multiple=True,
            metavar=name.upper(),
            help=f"Only this {what} of the matrix; repeatable.",
        )(wrapped)
    return wrapped  # type: ignore[no-any-return]


def size(context: click.Context, option: click.Parameter, text: str) -> int:
    """The bytes of a size such as 4GB."""
    size_bytes = limits.parse(text)
    if size_bytes is None:
        raise click.BadParameter(f"{text!r} is not a size; give one such as 500MB or 4GB")
    return size_bytes


# --max-input: how many bytes of results are read.
max_input = click.option(
    limits.OPTION,
    "most_bytes",
    callback=size,
    default=limits.shown(limits.DEFAULT_BYTES),
    show_default=True,
    metavar="SIZE",
    help="Read at most this much of results, all files together and unpacked: a small file can"
    " unpack to more than the memory holds.",
)
