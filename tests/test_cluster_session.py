"""Sessions with Ray, each in a process of its own, because Ray reads its token when imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fakenvml

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
        "import os, sys\n"
        "with session():\n"
        "    import ray\n"
        "    def look():\n"
        "        import importlib.util, bench, cluster\n"
        "        import os\n"
        "        return os.nice(0), bench.__file__, cluster.__file__\n"
        "    niceness, *paths = ray.get(ray.remote(look).remote())\n"
        "    for path in paths:\n"
        "        assert 'runtime_resources' in path, path\n"
        "    assert niceness <= os.nice(0), niceness\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_a_version_that_differs_is_one_message(tmp_path: Path) -> None:
    done = run(
        "import sys\n"
        "from bench.records import TensorgapError\n"
        "with session():\n"
        "    import os, ray, subprocess\n"
        "    address = ray.get_runtime_context().gcs_address\n"
        "    code = ('import ray; ray.__version__ = \"2.59.0\"\\n'\n"
        "            'from cluster.session import session\\n'\n"
        "            f'with session({address!r}): pass')\n"
        "    from cluster.session import _local_settings\n"
        "    tried = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,\n"
        "                           env=os.environ | _local_settings(), timeout=60)\n"
        "    print(tried.stderr.splitlines()[-1], file=sys.stderr)\n",
        tmp_path,
    )
    last = done.stderr.splitlines()[-1]
    assert "ersion mismatch" in last, done.stderr
    assert "2.59.0" in last


SEEN = (
    "from bench.records import TensorgapError\n"
    "from cluster import driver\n"
    "import sys\n"
    "try:\n"
    "    with session():\n"
    "        print({k: o.devices for k, o in driver.offers().items()}, file=sys.stderr)\n"
    "except TensorgapError as error:\n"
    "    print(error, file=sys.stderr)\n"
)


def test_a_machine_with_gpus_of_two_types_offers_both(
    fakenvml_library: Path, tmp_path: Path
) -> None:
    # Ray itself takes all GPUs of a node for what the first one is, also where that is left out.
    two = fakenvml.environment(fakenvml_library, "gpu = t4", "gpu = l4")
    done = run(SEEN, tmp_path, **two)
    assert "'L4': 1, 'T4': 1" in done.stderr
    done = run(SEEN, tmp_path, CUDA_VISIBLE_DEVICES="1", **two)
    assert "'L4': 1" in done.stderr
    assert "T4" not in done.stderr


def test_a_lost_gpu_under_a_local_cluster_is_one_message(
    fakenvml_library: Path, tmp_path: Path
) -> None:
    # Ray counts the GPUs of a node that it starts, and lets the driver's errors out.
    fault = "fault = nvmlDeviceGetHandleByIndex*:0:15:0"
    done = run(
        "from bench.records import TensorgapError\n"
        "import sys\n"
        "try:\n"
        "    with session(): pass\n"
        "except TensorgapError as error:\n"
        "    print(error, file=sys.stderr)\n",
        tmp_path,
        **fakenvml.environment(fakenvml_library, f"gpu = t4\n{fault}"),
    )
    assert done.returncode == 0, done.stderr
    assert "the NVIDIA driver says: GPU is lost; nvidia-smi shows" in done.stderr
