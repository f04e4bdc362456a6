"""cluster/configs/slurm.sbatch with programs in place of Slurm and Ray.

tests/hosts has the same with a real Slurm.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cluster_configs import CONFIGS, program

TEXT = (CONFIGS / "slurm.sbatch").read_text()
UNTIL_ENDED = "trap 'kill $!; exit' TERM; sleep 60 & wait"
SWEEP = """\
import os, pathlib, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: os.path.exists("busy") or sys.exit(130))
def stop(*_):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is merged
    time.sleep(0.3)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("sweeping").touch()
time.sleep(60)
"""


def headers() -> list[str]:
    return re.findall(r"^#SBATCH (.*)$", TEXT, re.M)


def test_the_components_are_the_users_and_alone_on_their_nodes() -> None:
    components = [line for line in headers() if "--partition" in line]
    assert headers().count("hetjob") == len(components) - 1
    for line in components:
        assert line.endswith(" # yours")
        assert {"--exclusive", "--mem=0", "--nodes=1", "--ntasks-per-node=1"} <= set(line.split())
    # Slurm reads no header below the first command.
    assert TEXT.rindex("#SBATCH") < TEXT.index("\nset -eo pipefail")


def test_each_ray_has_ports_and_a_folder_of_its_own_and_no_command_has_the_token() -> None:
    starts = re.findall(r"(?:ray start|start_nodes.py) (?:.*\\\n)*.*", TEXT)
    assert len(starts) == 2
    for start in starts:
        assert '--temp-dir="$RAY_TMPDIR/ray"' in start
        assert "--dashboard-agent-listen-port=0" in start
        assert "--block" in start
        assert "TOKEN" not in start
    head = starts[1]
    assert {"--port=0", "--num-cpus=0", "--include-dashboard=false"} <= set(head.split())
    assert "6379" not in TEXT
    assert not re.search(r"^\s*ray stop", TEXT, re.M)


@pytest.mark.parametrize("job", [1, 67_108_863])  # MaxJobId of slurm.conf at its highest
def test_a_socket_of_ray_has_a_path_that_is_short_enough(job: int) -> None:
    session = "ray/session_2026-11-28_14-35-49_030699_4194304/sockets/plasma_store"
    assert len(f"/tmp/tensorgap-ray-{2**32 - 2}/n{job}/{session}") <= 107  # unix(7)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose Slurm and Ray only note what they are asked; a sweep lasts until a signal."""
    configs = tmp_path / "cluster/configs"
    shutil.copytree(CONFIGS, configs)
    environment = configs / "environment.sh"
    environment.write_text(environment.read_text().replace("/tmp/", f"{tmp_path}/"))
    note = f'echo "{{}} $*" >> {tmp_path}/asked'
    made = "mkdir -p $RAY_TMPDIR/ray; echo 192.0.2.1:7 > $RAY_TMPDIR/ray/ray_current_cluster"
    # A shell cannot trap what bash lets each job in the background ignore.
    (tmp_path / "sweep.py").write_text(SWEEP)
    for name, text in {
        "ray": f"{note.format('ray')}\n{made}\n{UNTIL_ENDED}",
        "srun": f"{note.format('srun')}\necho $$ > {tmp_path}/step\n{UNTIL_ENDED}",
        "scancel": f"{note.format('scancel')}\nkill $(cat {tmp_path}/step)",
        "scontrol": f"{note.format('scontrol')}\n[ $1 = requeue ] || echo $3",
        "squeue": f'date --date="+$(cat {tmp_path}/left || echo 3600) seconds" --iso=seconds',
        "python": f"{note.format('python')}\n[ $1 = -m ] || exit 0\n"
        f"if [ -f {tmp_path}/done ]; then exit $(cat {tmp_path}/done); fi\n"
        f"exec {sys.executable} -S {tmp_path}/sweep.py",
    }.items():
        program(tmp_path, name, text)
    return tmp_path


class Job:
    """slurm.sbatch, run as Slurm does."""

    def __init__(self, project: Path, *arguments: str, **variables: str) -> None:
        settings = {"HOME": str(project), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "first"}
        settings |= {"SLURM_HET_SIZE": "2", "SLURM_JOB_NODELIST_HET_GROUP_1": "second"}
        self.project = project
        self.process = subprocess.Popen(
            ["bash", CONFIGS / "slurm.sbatch", *arguments],
            cwd=project,
            env={**os.environ, **settings, **variables},
            start_new_session=True,
        )

    def end(self, *signals: signal.Signals) -> tuple[int, list[str]]:
        """Exit code, and what was asked of Slurm and Ray."""
        for number in signals:
            while not (self.project / "sweeping").exists():
                time.sleep(0.02)
            if number == signal.SIGTERM:  # as scancel does; --signal=B: is for the script alone
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)
        return self.process.wait(60), (self.project / "asked").read_text().splitlines()


@pytest.fixture
def finished(project: Path) -> Iterator[Path]:
    """A project whose sweep ends at once with 1: some cells are not OK."""
    (project / "done").write_text("1")
    yield project


def test_a_sweep_that_ends_gives_its_exit_code_to_the_job(finished: Path) -> None:
    code, asked = Job(finished, "study", "--model", "tiny").end()
    assert code == 1
    assert "python -m jobs sweep study --model tiny --output results/slurm-7" in asked
    assert "python cluster/configs/await_hosts.py first second" in asked
    assert any(line.startswith("srun --het-group=0-1 --export=ALL ") for line in asked)
    assert not any("requeue" in line for line in asked)
    assert [*(finished / f"tensorgap-ray-{os.getuid()}").iterdir()] == []


def test_a_job_that_is_not_heterogeneous_has_no_groups(finished: Path) -> None:
    _, asked = Job(finished, "study", SLURM_HET_SIZE="").end()
    assert any(line.startswith("srun --export=ALL ") for line in asked)


def test_what_the_time_limit_cuts_is_put_into_the_queue_again(project: Path) -> None:
    code, asked = Job(project, "study").end(signal.SIGUSR1)
    assert code == 130
    # Once Ray has ended.
    assert asked[-2:] == ["scancel --quiet --signal=TERM 7", "scontrol requeue 7"]


def test_what_does_not_end_is_stopped_a_minute_before_the_limit(project: Path) -> None:
    (project / "busy").touch()
    (project / "left").write_text("62")
    code, asked = Job(project, "study").end(signal.SIGUSR1)
    assert (code, asked[-1]) == (130, "scontrol requeue 7")


def test_where_slurm_does_not_say_how_long_it_is_stopped_at_once(project: Path) -> None:
    (project / "busy").touch()
    program(project, "squeue", "echo slurm_load_jobs error >&2; exit 1")
    code, asked = Job(project, "study").end(signal.SIGUSR1)
    assert (code, asked[-1]) == (130, "scontrol requeue 7")


def test_a_job_that_was_started_often_enough_is_not_requeued(project: Path) -> None:
    _, asked = Job(project, "study", SLURM_RESTART_COUNT="20").end(signal.SIGUSR1)
    assert not any("requeue" in line for line in asked)


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGUSR1, signal.SIGTERM]])
def test_a_job_that_is_cancelled_is_not_requeued(
    project: Path, signals: list[signal.Signals]
) -> None:
    (project / "busy").touch()  # Ctrl-C lets what runs end
    code, asked = Job(project, "study").end(*signals)
    assert code == 130
    assert not any("requeue" in line for line in asked)


def test_a_job_that_is_started_again_resumes_its_own_results(finished: Path) -> None:
    folder = finished / "results/slurm-7/study/20261124T120000Z"
    folder.mkdir(parents=True)
    (folder / "source.json").touch()
    _, asked = Job(finished, "study", SLURM_RESTART_COUNT="1").end()
    assert f"python -m jobs sweep --resume {folder.relative_to(finished)}" in asked
    # Another cluster has given the number of this job before.
    (finished / "asked").unlink()
    _, asked = Job(finished, "study").end()
    assert "python -m jobs sweep study --output results/slurm-7" in asked


def test_what_a_node_that_failed_has_left_is_not_taken_for_a_head(finished: Path) -> None:
    left = finished / f"tensorgap-ray-{os.getuid()}" / "7/ray/ray_current_cluster"
    left.parent.mkdir(parents=True, mode=0o700)
    left.parents[2].chmod(0o700)
    left.write_text("192.0.2.9:9")
    program(finished, "srun", f"echo $RAY_ADDRESS > {finished}/head; echo $$ > {finished}/step")
    Job(finished, "study").end()
    assert (finished / "head").read_text() == "192.0.2.1:7\n"


def test_a_job_that_was_told_to_resume_does_so_each_time(finished: Path) -> None:
    _, asked = Job(finished, "--resume", "results/here", SLURM_RESTART_COUNT="1").end()
    assert "python -m jobs sweep --resume results/here" in asked


def test_a_head_that_does_not_start_ends_the_job(project: Path) -> None:
    program(project, "ray", "echo it cannot >&2; exit 1")
    job = Job(project, "study")
    assert job.process.wait(60) != 0
    assert "scontrol requeue 7" not in (project / "asked").read_text()
