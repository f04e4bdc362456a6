"""Says which parts of a results folder cannot be read, for every command that reads one."""

from __future__ import annotations

from collections.abc import Iterable

import click

from bench.results import Torn


def report(torn: Iterable[Torn], consequence: str) -> None:
    """Name each torn part, the fault and what follows from it, on standard error."""
    for part in torn:
        click.echo(f"tensorgap: torn part {part.path}: {part.reason}; {consequence}", err=True)
