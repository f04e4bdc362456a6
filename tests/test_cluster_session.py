"""Sessions with Ray, each in a process of its own, because Ray reads its token when imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HEAD = "from cluster.session import session\n"


def run(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HEAD + code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=home,
        env=os.environ | {"HOME": str(home)} | environment,
    )


def test_a_local_cluster_needs_its_token_and_leaves_none_behind(tmp_path: Path) -> None:
    done = run(
        "with session():\n"
        "    import os, subprocess, sys, ray\n"
        "    address = ray.get_runtime_context().gcs_address\n"
        "    stranger = {k: v for k, v in os.environ.items() if not k.startswith('RAY_')}\n"
        "    joining = f'import ray; ray.init({address!r}, log_to_driver=False)'\n"
        "    stranger |= {'RAY_NUM_REDIS_GET_RETRIES': '2'}\n"
        "    tried = subprocess.run([sys.executable, '-c', joining], env=stranger,\n"
        "                           capture_output=True, text=True, timeout=60)\n"
        "    print('refused' if tried.returncode and 'oken' in tried.stderr else tried.stderr)\n",
        tmp_path,
    )
    # Standard output belongs to the program that holds the session.
    assert done.stdout == ""
    assert "refused" in done.stderr, done.stderr
    assert not (tmp_path / ".ray" / "auth_token").exists()


def test_two_sessions_of_one_process_both_work(tmp_path: Path) -> None:
    done = run(
        "for _ in range(2):\n"
        "    with session():\n"
        "        import ray\n"
        "        assert ray.cluster_resources()['CPU'] >= 1\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_workers_run_the_code_that_was_submitted_and_have_no_jobs(tmp_path: Path) -> None:
    done = run(
        "import sys\n"
        "with session():\n"
        "    import ray\n"
        "    def look():\n"
        "        import importlib.util, bench, cluster\n"
        "        return bench.__file__, cluster.__file__\n"
        "    for path in ray.get(ray.remote(look).remote()):\n"
        "        assert 'runtime_resources' in path, path\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_gpu_cells_land_on_nodes_of_their_type(tmp_path: Path) -> None:
    """Three raylets on this machine, two of which say that they have GPUs."""
    done = run(
        "import sys\n"
        "from ray.cluster_utils import Cluster\n"
        "from bench import matrix as matrices\n"
        "from bench.records import Measurement\n"
        "from cluster import driver\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 0, "
        "'include_dashboard': False})\n"
        "for gpu_type in ('T4', 'A100'):\n"
        "    cluster.add_node(num_cpus=1, num_gpus=1,"
        " labels={'ray.io/accelerator-type': gpu_type})\n"
        "matrix = matrices.parse('''\n"
        "[cells]\ngpu_types = ['auto', 'P100']\nprecisions = ['fp32']\n"
        "[[workloads]]\nmodel = 'tiny'\n''', 'm', 'm')\n"
        "with session(cluster.address):\n"
        "    offers = driver.offers()\n"
        "    for event in driver.sweep('r', matrix, set(offers) - {'CPU'}):\n"
        "        if isinstance(event, Measurement):\n"
        "            print(event.cell.gpu_type, event.outcome, event.reason, file=sys.stderr)\n"
        "cluster.shutdown()\n",
        tmp_path,
        RAY_AUTH_MODE="disabled",
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stderr.splitlines() if line[:1] in "TAP"}
    assert "T4 UNSUPPORTED torch" in rows["T4"]
    assert "A100 UNSUPPORTED torch" in rows["A100"]
    assert "P100 UNPLACED the cluster has no P100 (it has A100, CPU, T4)" in rows["P100"]
