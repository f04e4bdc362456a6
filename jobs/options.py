"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from bench.records import PRECISIONS

Command = TypeVar("Command", bound=Callable[..., Any])


def address(command: Command) -> Command:
    """--address: which cluster."""
    return click.option(
        "--address",
        envvar="RAY_ADDRESS",
        metavar="ADDRESS",
        help="Ray cluster that this machine is a node of: auto or HOST:PORT; also read from"
        " RAY_ADDRESS. Without it, this machine alone.",
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
