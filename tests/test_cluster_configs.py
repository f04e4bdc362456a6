"""The configurations of cluster/configs: accepted by Ray, and the right torch for each GPU."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from autoscaling import nodes_started
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from bench.device import gpus
from cluster import machine as machine_module
from cluster import session

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "cluster" / "configs"
LABEL = "ray.io/accelerator-type"
CLOUDS = {
    "gcp": {"P100", "T4", "V100", "A100"},
    "aws": {"T4", "V100", "A10G", "A100", "H100"},
}
NODES_OF_EIGHT = {"aws": {"V100", "A100"}}
ENVIRONMENT = dict(
    re.findall(r"^export (?!PATH)(\w+)=(\S+)$", (CONFIGS / "environment.sh").read_text(), re.M)
)


def load(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    return config


def torch_build(gpu_type: str) -> str:
    """The last part of the index that `install_hint` names for a type."""
    return gpus.install_hint(gpus.COMPUTE_CAPABILITY[gpu_type]).rpartition("/")[2]


@pytest.mark.parametrize("name", ["on-premises", *CLOUDS])
def test_ray_accepts_it(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(load(name)))


@pytest.mark.parametrize("name", ["on-premises", *CLOUDS])
def test_whoever_has_no_token_is_kept_out(name: str) -> None:
    config = load(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert ENVIRONMENT["RAY_AUTH_MODE"] == "token"
    (head,) = [c for c in config["head_start_ray_commands"] if "ray start" in c]
    (worker,) = [c for c in config["worker_start_ray_commands"] if "--address=" in c]
    assert "--dashboard-host=127.0.0.1" in head
    for command in (head, worker):
        assert '--temp-dir="$RAY_TMPDIR/ray"' in command
    assert "--num-cpus=0" in head


@pytest.mark.parametrize("name", ["on-premises", *CLOUDS])
def test_what_travels_to_the_nodes_exists(name: str) -> None:
    for target, source in load(name)["file_mounts"].items():
        if target.startswith("~/tensorgap/"):
            assert (ROOT / source).exists()
            assert target == f"~/tensorgap/{source}"


@pytest.mark.parametrize(("name", "gpu_types"), CLOUDS.items())
def test_workers_of_a_cloud_are_at_zero_until_their_type_is_asked_for(
    name: str, gpu_types: set[str]
) -> None:
    config = load(name)
    workers = {k: v for k, v in config["available_node_types"].items() if k != "head"}
    assert {worker["labels"][LABEL] for worker in workers.values()} == gpu_types
    assert gpu_types <= set(gpus.COMPUTE_CAPABILITY)
    assert config["idle_timeout_minutes"] <= 10
    assert config["max_workers"] == len(workers)
    for worker in workers.values():
        assert worker["min_workers"] == 0
        assert worker["resources"]["GPU"] >= 1
        assert not {"IamInstanceProfile", "serviceAccounts"} & set(worker["node_config"])


@pytest.mark.parametrize(("name", "gpu_types"), CLOUDS.items())
def test_ray_starts_one_node_of_each_type_that_a_sweep_asks_for(
    name: str, gpu_types: set[str]
) -> None:
    config = AutoscalingConfig(load(name), skip_content_hash=True)
    for gpu_type in gpu_types:
        assert nodes_started(config, [gpu_type]) == {gpu_type.lower(): 1}
    # `max_workers` of the whole leaves room for the head.
    together = {gpu_type.lower(): 1 for gpu_type in gpu_types}
    assert nodes_started(config, sorted(gpu_types)) == together
    # A machine with eight takes eight at the same time.
    eight = NODES_OF_EIGHT.get(name, set())
    for gpu_type in eight:
        assert nodes_started(config, [gpu_type] * 8) == {gpu_type.lower(): 1}
    assert nodes_started(config, ["L4"]) == {}


def test_google_is_told_once_that_a_machine_with_a_gpu_is_not_moved() -> None:
    """An object, by `Instance.scheduling` of Google's compute.v1, not Ray's list of objects."""
    for name, node in load("gcp")["available_node_types"].items():
        told = node["node_config"].get("scheduling")
        assert told == (None if name == "head" else {"onHostMaintenance": "TERMINATE"})


def test_kuberay_has_a_group_for_each_type_with_its_build_of_torch() -> None:
    job, policy = load("kuberay"), load("kuberay-network")
    spec = job["spec"]["rayClusterSpec"]
    assert (job["kind"], job["spec"]["shutdownAfterJobFinishes"]) == ("RayJob", True)
    assert (spec["authOptions"], spec["enableInTreeAutoscaling"]) == ({"mode": "token"}, True)
    assert f"\nray=={spec['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    groups = {group["labels"][LABEL]: group for group in spec["workerGroupSpecs"]}
    assert set(groups) == CLOUDS["gcp"]
    for gpu_type, group in groups.items():
        assert (group["replicas"], group["minReplicas"]) == (0, 0)
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"].rpartition(":")[2] == torch_build(gpu_type)
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert pod["nodeSelector"].popitem()[1] == f"nvidia-tesla-{gpu_type.lower()}"
        assert pod["automountServiceAccountToken"] is False
        assert (
            group["template"]["metadata"]["labels"] == policy["spec"]["podSelector"]["matchLabels"]
        )


def test_kuberay_has_the_settings_of_the_other_configurations() -> None:
    spec = load("kuberay")["spec"]["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        set_there = {variable["name"]: variable["value"] for variable in container["env"]}
        # The operator sets the mode of authentication itself.
        assert {"RAY_AUTH_MODE": "token", **set_there} == {
            **ENVIRONMENT,
            "RAY_USAGE_STATS_ENABLED": "0",
        }


def test_a_node_has_the_settings_that_a_sweep_gives_to_its_own_ray() -> None:
    own = session.local_settings.__wrapped__()  # not through its cache, which a session shares
    # Options of `ray start` say the one, and the other is for a machine alone.
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        own.pop(name)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        own.pop(name, None)
    assert own.items() <= ENVIRONMENT.items()


@pytest.mark.parametrize("place", ["gcp.yaml", "aws.yaml", "kuberay.yaml", "../../docs/cluster.md"])
def test_a_sweep_waits_long_enough_for_a_node_of_a_cloud(place: str) -> None:
    text = (CONFIGS / place).read_text().replace("\\\n#", "")
    sweeps = re.findall(r"(?:ray submit .*(?:gcp|aws)|jobs sweep /matrix).*", text)
    assert sweeps
    for sweep in sweeps:
        assert re.search(r" --placement-timeout 1800\b", sweep)


@pytest.mark.parametrize("place", ["kuberay.yaml", "../../docs/cluster.md"])
def test_a_second_sweep_on_kubernetes_meets_nothing_that_exists_already(place: str) -> None:
    text = (CONFIGS / place).read_text().replace("\\\n#", "")
    commands = re.findall(r"kubectl (?:create|apply) .*", text)
    network, matrix, job = commands
    assert network == "kubectl apply -f cluster/configs/kuberay-network.yaml"
    assert "--dry-run=client -o yaml | kubectl apply -f -" in matrix
    assert job == "kubectl create -f cluster/configs/kuberay.yaml"
    # `create` makes only what gets a new name each time.
    assert load("kuberay")["metadata"] == {"generateName": "tensorgap-"}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A home with the project, a Python that notes what it is asked to install, and no GPU."""
    for name in ("cluster/configs", "setup.cfg", "constraints.txt"):
        target = tmp_path / "tensorgap" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source = ROOT / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    note = (
        f'{{ echo "$@"; for last; do :; done; [ -p "$last" ] && cat "$last"; }} >> {tmp_path}/asked'
    )
    # -S: its packages are those of PYTHONPATH alone.
    program(tmp_path, "python", f'[ "$1" = -c ] && exec {sys.executable} -S "$@"\n{note}\ntrue')
    return tmp_path


def program(home: Path, name: str, text: str) -> None:
    path = home / ".tensorgap" / "bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def set_up(home: Path) -> list[str]:
    """Run setup.sh; returns the lines of what was to be installed."""
    setup = home / "tensorgap/cluster/configs/setup.sh"
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(home / "site")}
    subprocess.run(["bash", setup], env=environment, check=True)
    asked = (home / "asked").read_text().splitlines()
    return [line for line in asked if line != "-m pip --version"]


def test_a_node_installs_the_torch_that_has_kernels_for_its_gpu(machine: Path) -> None:
    for capability in sorted(set(gpus.COMPUTE_CAPABILITY.values())):
        program(machine, "nvidia-smi", f"echo {capability[0]}.{capability[1]}")
        torch, *_ = set_up(machine)
        wanted = [w for w in shlex.split(gpus.install_hint(capability))[2:] if w != "--upgrade"]
        assert torch.split()[-len(wanted) :] == wanted
        (machine / "asked").unlink()


def test_a_node_with_gpus_of_two_types_installs_the_torch_that_the_older_one_needs(
    machine: Path,
) -> None:
    for capabilities in (r"10.0\n6.0", r"6.0\n7.5"):
        program(machine, "nvidia-smi", f"printf '{capabilities}\n'")
        torch, *_ = set_up(machine)
        assert torch.endswith("/whl/cu126")
        (machine / "asked").unlink()


def test_a_node_without_a_gpu_installs_what_setup_cfg_asks_for_and_no_cuda(machine: Path) -> None:
    torch, *others = set_up(machine)
    assert torch.endswith("torch --index-url https://download.pytorch.org/whl/cpu")
    assert {"ray>=2.60", "ray[default]>=2.60", "pyarrow>=17"} <= set(others)


def test_torch_comes_without_what_it_needs_which_comes_from_pypi(machine: Path) -> None:
    torch, others, *_ = set_up(machine)
    assert "--no-deps" in torch
    assert "--no-deps" not in others and "--index-url" not in others


@pytest.mark.parametrize(
    ("found", "capability", "replaced"),
    [
        ("2.13.0+cpu", "7.5", True),
        ("2.13.0+cu130", "6.0", True),
        ("2.13.0", "7.5", True),
        ("2.13.0+cu130", "7.5", False),
        ("2.13.0+cu130", "", False),
    ],
)
def test_a_torch_for_another_gpu_is_replaced(
    found: str, capability: str, replaced: bool, machine: Path
) -> None:
    metadata = machine / "site" / f"torch-{found}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {found}\n")
    program(machine, "nvidia-smi", f"echo {capability}")
    torch, others, *_ = set_up(machine)
    assert ("--force-reinstall" in torch.split()) == replaced
    assert "--force-reinstall" not in others


def test_a_driver_that_fails_is_no_gpu(machine: Path) -> None:
    program(machine, "nvidia-smi", "echo NVIDIA-SMI has failed because it could not; exit 9")
    torch, *_ = set_up(machine)
    assert torch.endswith("/whl/cpu")


def test_a_half_made_environment_is_made_again(machine: Path) -> None:
    whole = machine / ".tensorgap" / "bin" / "python"
    whole.rename(machine / "whole")
    program(machine, "python", 'echo "No module named pip" >&2; exit 1')
    program(
        machine,
        "python3",
        f'[ "$1" = -c ] && exec {sys.executable} "$@"\n'
        f'[ "$*" = "-m venv {machine}/.tensorgap" ] && mv {machine}/whole {whole}',
    )
    torch, *_ = set_up(machine)
    assert torch.endswith("/whl/cpu")


def test_a_second_setup_changes_nothing(machine: Path) -> None:
    set_up(machine)
    shell = (machine / ".bashrc").read_text()
    set_up(machine)
    assert (machine / ".bashrc").read_text() == shell


@pytest.mark.parametrize(
    ("devices", "wanted"),
    [
        ("", set()),
        ("3D controller: NVIDIA Corporation TU104GL", {"nvidia-driver-580-server"}),
        (
            "3D controller: NVIDIA Corporation GA100\nBridge: NVIDIA Corporation NVSwitch",
            {"nvidia-driver-580-server", "nvidia-fabricmanager-580"},
        ),
    ],
)
def test_a_plain_ubuntu_gets_the_driver_where_there_is_a_gpu(
    devices: str, wanted: set[str], machine: Path
) -> None:
    for name, text in {
        "lspci": f"echo '{devices}' | grep .",
        "dpkg": "false",
        "sudo": f"echo $@ >> {machine}/asked",
        "systemctl": "false",
        "nvidia-smi": "true",
    }.items():
        program(machine, name, text)
    path = f"{machine}/.tensorgap/bin:{os.environ['PATH']}"
    subprocess.run(["bash", CONFIGS / "ubuntu.sh"], env={**os.environ, "PATH": path}, check=True)
    asked = (machine / "asked").read_text().split()
    assert {word for word in asked if word.startswith("nvidia-")} == wanted
    assert "python3-venv" in asked


def test_the_images_of_kuberay_can_be_built() -> None:
    lines = (CONFIGS / "Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY"):
            *sources, _ = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources)
    spec = load("kuberay")["spec"]["rayClusterSpec"]
    groups = (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    builds = {g["template"]["spec"]["containers"][0]["image"].rpartition(":")[2] for g in groups}
    (built,) = [line for line in lines if "for build in" in line]
    assert builds == set(built.partition("in ")[2].rstrip("; do").split())


def test_a_host_has_joined_once_each_of_its_nodes_has() -> None:
    path = CONFIGS / "await_hosts.py"
    specification = importlib.util.spec_from_file_location("await_hosts", path)
    assert specification and specification.loader
    await_hosts = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(await_hosts)
    first = {"NodeName": "10.0.0.1", "Labels": {machine_module.NODES_LABEL: "2"}}
    other = {"NodeName": "10.0.0.2", "Labels": {}}
    assert await_hosts.whole([first, other]) == {"10.0.0.2"}
    assert await_hosts.whole([first, other, first]) == {"10.0.0.1", "10.0.0.2"}


def test_a_host_starts_its_nodes_with_nothing_installed_and_leaves_no_trace_in_what_runs_there(
    tmp_path: Path,
) -> None:
    ray = tmp_path / "ray" / "scripts"
    ray.mkdir(parents=True)
    (ray.parent / "__init__.py").touch()
    (ray / "__init__.py").touch()
    (ray / "scripts.py").write_text("import sys; print(sys.argv[1:], [p for p in sys.path if p])")
    script = CONFIGS / "start_nodes.py"
    command = [sys.executable, script, "--address=head:6379", "--block"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
    assert done.stdout.startswith("['start', '--address=head:6379', '--block'] "), done.stderr
    assert repr(str(ROOT)) not in done.stdout


def test_ray_s_files_on_a_node_lie_below_a_folder_that_nobody_else_enters(tmp_path: Path) -> None:
    text = (CONFIGS / "environment.sh").read_text()
    moved = tmp_path / "environment.sh"
    moved.write_text(text.replace("/tmp/", f"{tmp_path}/"))
    folder = tmp_path / f"tensorgap-ray-{os.getuid()}"

    def shell() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euc", f'. {moved}; echo "$RAY_TMPDIR"'], capture_output=True, text=True
        )

    for _ in range(2):  # each shell on the node reads it
        done = shell()
        assert (done.stdout, done.stderr) == (f"{folder}\n", "")
        assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    done = shell()
    assert done.stdout == "/dev/null\n"
    assert f"{folder} is not a folder of" in done.stderr
    # As somebody else may make it first.
    folder.rmdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "theirs")
    assert shell().stdout == "/dev/null\n"
