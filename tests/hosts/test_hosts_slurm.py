"""cluster/configs/slurm.sbatch through a real Slurm: cut by its time limit, cancelled, two at once.

One job with three types needs longer than its time limit. Meanwhile another with one type runs on a
node of the first, is cancelled, and resumed by a third.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import network
import pytest
import slurm
from network import Host, until
from slurm import CONFIG, GPU_TYPES, Slurm
from test_hosts_commands import MATRIX

from bench.measured import Measurement, Outcome
from bench.results import store as results

pytestmark = pytest.mark.timeout(1800)

TINY = re.sub(r"precisions = .*", 'precisions = ["fp32"]', MATRIX)
TINY = re.sub(r"gpu_types = .*", f"gpu_types = {[*GPU_TYPES]}", TINY)


def matrix(rows: int, each_s: int) -> str:
    """So many rows of each type, which wait for so long each, without work for this machine."""
    text = TINY.replace("idle_s = 0.1", f"idle_s = {each_s}")
    return text.replace("[1, 2]", str([*range(1, rows + 1)]))


ROWS = 10  # of each type: longer than the time until Slurm's signal
SHORT_ROWS = 5
# Slurm tells it 105 to 135 s after the start, because it looks every 30 s.
LIMITS = {"--time=04:00:00": "--time=4", "USR1@600": "USR1@105"}
SHARED_NODE = {"--exclusive --mem=0": "--cpus-per-task=2 --mem=1900"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, fakenvml_library: Path) -> Iterator[Slurm]:
    reason = network.why_not() or slurm.why_not()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    lan = network.Network(folder)
    try:
        built = slurm.build(lan, folder, fakenvml_library)
        built.project("long.toml").write_text(matrix(ROWS, 12))
        built.project("short.toml").write_text(matrix(SHORT_ROWS, 4))
        yield built
    finally:
        lan.close()


def written(cluster: Slurm, name: str, changes: dict[str, str], one_type: bool = False) -> str:
    """The configuration with other values in the lines that are the user's."""
    text = cluster.project(CONFIG).read_text()
    if one_type:
        text = re.sub(r"#SBATCH hetjob\n.*\n", "", text)
        assert text.count("--partition") == 1
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    cluster.project(name).write_text(text)
    return name


def submitted(cluster: Slurm, *arguments: str) -> str:
    """The id of a new job."""
    done = cluster.run("sbatch", "--parsable", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def job(cluster: Slurm, number: str) -> dict[str, str]:
    """What Slurm tells of a job, or of the first component of one."""
    told = cluster.run("scontrol", "show", "job", number).stdout.partition("\n\n")[0]
    return dict(re.findall(r"(\w+)=(\S+)", told))


def log(cluster: Slurm, number: str) -> str:
    return cluster.project(f"tensorgap-{number}.log").read_text()


def folder_of(cluster: Slurm, number: str) -> Path | None:
    """The results of a job, once it has some."""
    found = [*cluster.project(f"results/slurm-{number}").glob("*/*")]
    return found[0] if found else None


def rows_of(cluster: Slurm, number: str) -> list[Measurement]:
    rows, corrupt = results.Results.open(str(folder_of(cluster, number))).read()
    assert not corrupt
    return rows


def ray_of(host: Host, number: str) -> list[str]:
    """Ids of the processes on a host, as it numbers them, that belong to the Ray of a job."""
    mine = f"grep --files-with-matches --no-messages ^RAY_TMPDIR=.*/n*{number}$ --null-data"
    found = host.run("bash", "-c", f"{mine} /proc/[0-9]*/environ")
    return [line.split("/")[2] for line in found.stdout.split()]


def wait_for_end(cluster: Slurm, number: str) -> dict[str, str]:
    """What Slurm tells of a job that has ended."""

    def over() -> bool:
        time.sleep(1)
        state = job(cluster, number)["JobState"]
        if state == "PENDING":
            # A Slurm in which nothing changes does not look at a job of several components.
            cluster.run("scontrol", "update", f"JobId={number}", "Nice=0")
        return state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    until(over, f"end of job {number}", 900)
    return job(cluster, number)


@pytest.fixture(scope="module")
def long(cluster: Slurm) -> str:
    """The job that is cut by its time limit."""
    name = written(cluster, "limited.sbatch", {**LIMITS, **SHARED_NODE})
    return submitted(cluster, name, "long.toml", "--simulated")


@pytest.fixture(scope="module")
def other(cluster: Slurm, long: str) -> str:
    """A job of one type beside it, once it has rows."""
    name = written(cluster, "one.sbatch", SHARED_NODE, one_type=True)
    number = submitted(cluster, name, "short.toml", "--simulated", "--gpu-type", "P100")
    until(
        lambda: folder_of(cluster, number) is not None and len(rows_of(cluster, number)) > 0,
        "a row of the job beside it",
        400,
    )
    return number


def test_slurm_accepts_it_as_it_is_and_names_a_partition_that_is_not_there(
    cluster: Slurm,
) -> None:
    done = cluster.run("sbatch", "--test-only", CONFIG, "long.toml")
    assert done.returncode == 0, done.stderr
    assert "on a100,p100,v100" in done.stderr
    lacking = written(cluster, "lacking.sbatch", {"--partition=a100": "--partition=h100"})
    done = cluster.run("sbatch", lacking, "long.toml")
    assert done.returncode != 0
    assert "nvalid partition" in done.stderr


def test_nobody_else_on_a_node_can_read_the_token(cluster: Slurm, other: str) -> None:
    node = cluster.nodes["P100"]
    ours = ray_of(node, other)
    assert len(ours) > 4
    read = node.path(f"/proc/{ours[0]}/environ").read_text()
    (token,) = re.findall(r"\bRAY_AUTH_TOKEN=(\w+)", read)
    assert len(token) == 64
    assert token not in node.run("ps", "-A", "-ww", "-o", "args").stdout
    stranger = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    for process in ours:
        done = node.run(*stranger, "cat", f"/proc/{process}/environ")
        assert (done.returncode, done.stdout) == (1, "")
    kept = node.run("grep", "--recursive", "--no-messages", token, "/tmp", "/run", slurm.SHARED)
    assert kept.stdout == ""


def test_two_jobs_on_a_node_do_not_meet(cluster: Slurm, long: str, other: str) -> None:
    # One has measured; that the other does, too, shows in its rows.
    node = cluster.nodes["P100"]
    assert job(cluster, other)["BatchHost"] == node.name
    assert not set(ray_of(node, long)) & set(ray_of(node, other))
    assert "Traceback" not in log(cluster, other)


def test_a_job_that_is_cancelled_keeps_its_rows_and_is_gone_from_its_nodes(
    cluster: Slurm, other: str
) -> None:
    assert cluster.run("scancel", other).returncode == 0
    ended = wait_for_end(cluster, other)
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0")
    assert "tensorgap: stopped; what is measured is kept" in log(cluster, other)
    folder = folder_of(cluster, other)
    assert folder is not None
    assert (folder / "results.parquet").exists()
    outcomes = [row.outcome for row in rows_of(cluster, other)]
    assert 0 < outcomes.count(Outcome.OK) < SHORT_ROWS
    # Ray ends at the same moment; what it lost is measured by --resume.
    assert {*outcomes} <= {Outcome.OK, Outcome.LOST, Outcome.UNPLACED}
    node = cluster.nodes["P100"]
    until(lambda: not ray_of(node, other), "the end of its processes")
    assert other not in node.run("ls", "/tmp/tensorgap-ray-0").stdout


def test_a_new_job_resumes_what_another_has_left(cluster: Slurm, other: str) -> None:
    folder = folder_of(cluster, other)
    assert folder is not None
    place = f"results/slurm-{other}/{folder.parent.name}/{folder.name}"
    number = submitted(cluster, "one.sbatch", "--resume", place)
    ended = wait_for_end(cluster, number)
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), log(cluster, number)
    rows = rows_of(cluster, other)
    assert len({row.key for row in rows}) == len(rows) == SHORT_ROWS
    assert {row.outcome for row in rows} == {Outcome.OK}


def test_a_sweep_over_three_types_that_its_time_limit_cuts_is_complete(
    cluster: Slurm, long: str
) -> None:
    ended = wait_for_end(cluster, long)
    said = log(cluster, long)
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), said
    assert int(ended["Restarts"]) >= 1
    assert "tensorgap: finishing the running cells" in said
    assert re.search(r"tensorgap: \d+ rows are measured already", said)
    assert "Traceback" not in said
    rows = rows_of(cluster, long)
    assert len({row.key for row in rows}) == len(rows) == len(GPU_TYPES) * ROWS
    for row in rows:
        assert (row.outcome, row.reason) == (Outcome.OK, None), row.cell
        assert row.device is not None
        assert row.device.hostname == row.cell.gpu_type.lower()
        assert row.device.gpu_type == row.cell.gpu_type
    for host in cluster.nodes.values():
        assert ray_of(host, long) == []
        assert host.run("ls", "/tmp/tensorgap-ray-0").stdout == ""
