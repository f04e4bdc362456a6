"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from bench.asked import PRECISIONS
from bench.files import limits

Command = TypeVar("Command", bound=Callable[..., Any])


class _MatrixFile(click.Path):
    """The path of a matrix; a bare name is one of ours, which an installation hides deep."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        ours = {file.stem: file for file in (Path(__file__).parent / "matrices").glob("*.toml")}
        return path if os.path.isfile(path) else ours.get(str(path), path)


def _size(context: click.Context, option: click.Parameter, text: str) -> int:
    """The bytes of a size such as 4GB."""
    size_bytes = limits.parse(text)
    if size_bytes is None:
        raise click.BadParameter(f"{text!r} is no size; give one such as 500MB or 4GB")
    return size_bytes


def matrix(required: bool = True) -> Callable[[Command], Command]:
    """MATRIX: a file, or the bare name of one that is shipped."""
    metavar = "MATRIX" if required else "[MATRIX]"
    return click.argument("matrix", required=required, metavar=metavar, type=_MatrixFile())


def address(command: Command) -> Command:
    """--address: which cluster."""
    return click.option(
        "--address",
        envvar="RAY_ADDRESS",
        metavar="ADDRESS",
        help="Ray cluster that this machine is a node of: auto or HOST:PORT; also read from"
        " RAY_ADDRESS. Without it, this machine alone.",
    )(command)


def trust_local_users(command: Command) -> Command:
    """--trust-local-users: whether a cluster may keep Ray's files where others can write."""
    return click.option(
        "--trust-local-users",
        is_flag=True,
        help="Also use a cluster on whose hosts other users can change the code that Ray runs: for"
        " where you trust all of them, as in a container.",
    )(command)


def narrowing(command: Command) -> Command:
    """--gpu-type, --precision, --model: a part of the matrix."""
    for name, what in (
        ("model", "this model"),
        ("precision", f"this precision ({', '.join(PRECISIONS)})"),
        ("gpu-type", "this GPU type"),
    ):
        command = click.option(
            f"--{name}",
            f"{name.replace('-', '_')}s",
            multiple=True,
            metavar=name.upper(),
            help=f"Only {what} of the matrix; repeatable.",
        )(command)
    return command


def max_input(command: Command) -> Command:
    """--max-input: how many bytes of results are read."""
    return click.option(
        limits.OPTION,
        "most_bytes",
        callback=_size,
        default=limits.shown(limits.DEFAULT_BYTES),
        show_default=True,
        metavar="SIZE",
        help="Read at most so much of results, of all files together and unpacked: a small file"
        " can unpack to more than the memory holds.",
    )(command)
