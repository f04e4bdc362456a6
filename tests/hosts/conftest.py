"""The hosts, and the cluster that the user's commands make of them, once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fleet
import network
import pytest
from fleet import CONFIG, Fleet


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory, fakenvml_library: Path) -> Iterator[Fleet]:
    """A client, a head and four GPU hosts."""
    reason = network.why_not()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("hosts")
    lan = network.Network(folder)
    try:
        yield fleet.build(lan, folder, fakenvml_library)
    finally:
        lan.close()


@pytest.fixture(scope="session")
def cluster(hosts: Fleet) -> Fleet:
    """The hosts after `ray up`."""
    done = hosts.ray("up", "-y", CONFIG)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return hosts
