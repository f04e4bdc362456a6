"""Sessions with Ray, each in a process of its own, because Ray reads its token when imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import fakenvml
import raylets

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
        # Without the second, Ray takes 127.0.0.1 for this machine's address in the network.
        "    stranger |= {'RAY_NUM_REDIS_GET_RETRIES': '2'}\n"
        "    stranger |= {'RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER': '0'}\n"
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
        "from bench.errors import TensorgapError\n"
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
    "from bench.errors import TensorgapError\n"
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
        "from bench.errors import TensorgapError\n"
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


def test_what_a_local_cluster_keeps_is_out_of_reach_and_gone_with_it(tmp_path: Path) -> None:
    done = run(
        "from pathlib import Path\n"
        "from bench import private\n"
        "from cluster import folders\n"
        "with session():\n"
        "    import ray\n"
        "    def look():\n"
        "        import bench\n"
        "        return bench.__file__\n"
        "    (node,) = ray.nodes()\n"
        "    kept = folders.session_of(node)\n"
        "    for path in (kept, ray.get(ray.remote(look).remote())):\n"
        "        assert private.is_sheltered(Path(path)), path\n"
        "assert not kept.parents[1].exists(), kept\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_a_local_cluster_listens_on_loopback_only(tmp_path: Path) -> None:
    done = run(
        "import os, time\n"
        "import processes\n"
        "with session():\n"
        "    import ray\n"
        "    ray.get(ray.remote(lambda: 1).remote())\n"
        # Ray's agents open their ports when it is up already.
        "    found, end = set(), time.monotonic() + 5\n"
        "    while time.monotonic() < end:\n"
        "        found |= processes.listening(processes.family(os.getpid()))\n"
        "        time.sleep(0.5)\n"
        "    print(*sorted({address for address, _ in found}))\n",
        tmp_path,
        PYTHONPATH=str(Path(__file__).parent),
    )
    # As Linux writes 127.0.0.1, and the same within IPv6, on little-endian machines. What a session
    # prints goes to standard error.
    addresses = done.stderr.splitlines()[-1].split()
    assert addresses == ["0000000000000000FFFF00000100007F", "0100007F"], done.stderr


def test_a_cluster_whose_code_others_can_change_is_refused_before_any_is_sent(
    fakenvml_library: Path, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        shared = Path(made)
        shared.chmod(0o755)
        with raylets.started(fakenvml_library, temp_dir=f"{made}/ray") as nodes:
            joining = f"with session({nodes.address!r}): pass\n"
            refused = run(joining, tmp_path, **nodes.environment)
            sent = list(shared.glob("ray/session_2*/runtime_resources/py_modules_files/*"))
            trusting = f"with session({nodes.address!r}, trust_local_users=True): pass\n"
            taken = run(trusting, tmp_path, **nodes.environment)
    assert refused.returncode == 1
    assert re.search(
        rf"TensorgapError: other users of \S+ can write {made}/ray/session_\S+, where Ray keeps the"
        r" code that it runs: start Ray there with --temp-dir below a folder of mode 0700",
        refused.stderr,
    )
    assert "--trust-local-users" in refused.stderr
    assert sent == []
    assert taken.returncode == 0, taken.stderr
