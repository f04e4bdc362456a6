"""kuberay.yaml and kuberay-network.yaml: what KubeRay, Kubernetes and Ray's autoscaler take."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from autoscaling import nodes_started
from kuberay_api import WORDS, complaints, definitions, selects, validator, versions_needed
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from bench.device import gpus

CONFIGS = Path(__file__).resolve().parent.parent / "cluster" / "configs"
TEXT = (CONFIGS / "kuberay.yaml").read_text(encoding="utf-8")
# What an anchor of YAML shares is written out, so that a change stays where it is made.
JOB: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(TEXT)))
POLICY: dict[str, Any] = yaml.safe_load((CONFIGS / "kuberay-network.yaml").read_text())
NETWORK = "io.k8s.api.networking.v1.NetworkPolicy"
VERSIONS = kubernetes_validate.utils.all_versions()
OLDEST, NEWEST = (".".join(v.split(".")[:2]) for v in (VERSIONS[0], VERSIONS[-1]))
# In these any key may stand.
FREE = {"labels", "matchLabels", "nodeSelector", "rayStartParams", "limits", "requests"}

Path_ = tuple[str | int, ...]


def small(job: dict[str, Any]) -> dict[str, Any]:
    """The job with its first worker group only."""
    kept = copy.deepcopy(job)
    del kept["spec"]["rayClusterSpec"]["workerGroupSpecs"][1:]
    return kept


def walk(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Each value in a document, with the way to it."""
    yield path, value
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from walk(item, (*path, key))


def at(document: Any, path: Path_) -> Any:
    for key in path:
        document = document[key]
    return document


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kuberay_and_kubernetes_take_them(version: str) -> None:
    assert not [e.message for e in validator("RayJob", version).iter_errors(JOB)]
    assert list(complaints(JOB)) == []
    assert not [e.message for e in validator(NETWORK, version).iter_errors(POLICY)]
    kubernetes_validate.validate(POLICY, version, strict=True)
    assert None not in [value for _, value in (*walk(JOB), *walk(POLICY))]


@pytest.mark.parametrize(("name", "document"), [("RayJob", small(JOB)), (NETWORK, POLICY)])
def test_no_key_may_be_misspelt(name: str, document: dict[str, Any]) -> None:
    check = validator(name, NEWEST)
    assert check.is_valid(document)
    missed = []
    paths = [path for path, _ in walk(document) if path and isinstance(path[-1], str)]
    for path in paths:
        if FREE & set(path[:-1]):
            continue
        changed = copy.deepcopy(document)
        holder = at(changed, path[:-1])
        holder[f"{path[-1]}x"] = holder.pop(path[-1])
        if check.is_valid(changed):
            missed.append(path)
    assert len(paths) > 10
    assert missed == []


@pytest.mark.parametrize(("name", "document"), [("RayJob", small(JOB)), (NETWORK, POLICY)])
def test_no_value_may_be_of_another_type(name: str, document: dict[str, Any]) -> None:
    check = validator(name, NEWEST)
    assert check.is_valid(document)
    missed = []
    for path, value in walk(document):
        # A string where there is a structure, a number where there is a string.
        other: Any = {str: 7, bool: "true", int: "x y"}.get(type(value), "text")
        is_quantity = path[-2:-1] in (("limits",), ("requests",))
        if not path or (is_quantity and other == 7):  # a quantity may be a number
            continue
        changed = copy.deepcopy(document)
        at(changed, path[:-1])[path[-1]] = other
        if check.is_valid(changed):
            missed.append(path)
    assert missed == []


SPEC = ("spec", "rayClusterSpec")
HEAD = (*SPEC, "headGroupSpec")
GROUP = (*SPEC, "workerGroupSpecs", 0)
POD = (*GROUP, "template", "spec")
CONTAINER = (*POD, "containers", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*SPEC, "authOptions", "mode"), "Token"),
        ((*SPEC, "autoscalerOptions", "version"), "2"),
        ((*SPEC, "autoscalerOptions", "upscalingMode"), "Fast"),
        (("spec", "submissionMode"), "K8SJobMode"),
        ((*POD, "tolerations", 0, "operator"), "Exist"),
        ((*POD, "tolerations", 0, "effect"), "NoScheduling"),
        ((*POD, "restartPolicy"), "never"),
        ((*CONTAINER, "resources", "limits", "memory"), "16 GB"),
        ((*CONTAINER, "resources", "requests", "cpu"), "four"),
        (("apiVersion",), "ray.io/v1alpha1"),
        # Of later versions of KubeRay.
        ((*SPEC, "authOptions", "enableK8sTokenAuth"), True),
        ((*SPEC, "networkPolicy"), {"mode": "DenyAllIngress"}),
        ((*GROUP, "priority"), 1),
    ],
)
def test_a_word_that_the_server_does_not_know_is_refused(path: Path_, value: Any) -> None:
    changed = copy.deepcopy(JOB)
    at(changed, path[:-1])[path[-1]] = value
    found = [
        tuple(error.absolute_path) for error in validator("RayJob", NEWEST).iter_errors(changed)
    ]
    assert found
    assert all(place in (path, path[:-1]) for place in found)


@pytest.mark.parametrize(
    "path",
    [
        ("spec",),
        (*SPEC, "headGroupSpec"),
        (*HEAD, "template"),
        (*GROUP, "groupName"),
        (*GROUP, "maxReplicas"),
        (*POD, "containers"),
        (*CONTAINER, "name"),
        (*CONTAINER, "env", 0, "name"),
    ],
)
def test_what_is_required_may_not_be_missing(path: Path_) -> None:
    changed = copy.deepcopy(JOB)
    del at(changed, path[:-1])[path[-1]]
    found = [error.message for error in validator("RayJob", NEWEST).iter_errors(changed)]
    assert found == [f"{path[-1]!r} is a required property"]


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("metadata", "generateName"), "Tensorgap-", "is no name"),
        (("spec", "shutdownAfterJobFinishes"), False, "without shutdownAfterJobFinishes"),
        ((*SPEC, "rayVersion"), "2.51.0", "takes Ray 2.52"),
        ((*GROUP, "groupName"), "t4", "two worker groups"),
        ((*GROUP, "rayStartParams", "labels"), "a=b", "are ignored"),
        ((*HEAD, "resources"), {"CPU": "0"}, "in two places"),
        ((*GROUP, "labels"), {"ray.io/accelerator-type": "P 100"}, "is no label"),
        ((*GROUP, "minReplicas"), 2, "replicas"),
        ((*POD, "restartPolicy"), "Always", "restarts no pod"),
        ((*CONTAINER, "env", 0, "name"), "RAY_enable_autoscaler_v2", "said twice"),
        ((*CONTAINER, "env", 0, "name"), "CUDA_DEVICE_ORDER", "set twice"),
        ((*CONTAINER, "volumeMounts"), [{"name": "m", "mountPath": "/m"}], "no volume m"),
        ((*CONTAINER, "resources", "requests", "nvidia.com/gpu"), 1, "are a limit"),
    ],
)
def test_what_the_operator_refuses_beyond_the_schema_is_found(
    path: Path_, value: Any, complaint: str
) -> None:
    changed = copy.deepcopy(JOB)
    at(changed, path[:-1])[path[-1]] = value
    assert any(complaint in found for found in complaints(changed))


def test_it_takes_the_version_of_kuberay_that_it_says() -> None:
    (said,) = re.findall(r"KubeRay (\d+\.\d+\.\d+) or newer", TEXT)
    needed = {tuple(int(p) for p in v.split(".")) for v in versions_needed("RayJob", JOB)}
    assert max(needed) == tuple(int(part) for part in said.split("."))


def test_the_words_of_kubernetes_are_those_of_its_descriptions() -> None:
    for (name, field), words in WORDS.items():
        description = definitions(NEWEST)["$defs"][name]["properties"][field]["description"]
        assert set(words) <= set(re.findall(r"\w+", description))


def test_ray_s_autoscaler_reads_one_gpu_of_its_type_in_each_group() -> None:
    cluster = {
        "metadata": {"name": "tensorgap", "namespace": "default"},
        "spec": JOB["spec"]["rayClusterSpec"],
    }
    # It ends with Ray's own check of what it made.
    read = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    assert read["idle_timeout_minutes"] == 5
    types = read["available_node_types"]
    head = types[read["head_node_type"]]
    assert (head["resources"]["CPU"], head["labels"]) == (0, {})
    for name in types.keys() - {read["head_node_type"]}:
        node = types[name]
        (gpu_type,) = node["labels"].values()
        assert gpu_type in gpus.COMPUTE_CAPABILITY
        assert gpu_type.lower() == name
        assert (node["resources"]["GPU"], node["resources"]["CPU"]) == (1, 4)
        assert (node["min_workers"], node["max_workers"]) == (0, 1)
        assert nodes_started(AutoscalingConfig(copy.deepcopy(read)), [gpu_type]) == {name: 1}


OWN = JOB["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["labels"]
# The labels that KubeRay and Kubernetes set (kuberay: helm-chart/.../deployment.yaml,
# ray-operator/config/manager/manager.yaml; kubernetes: the controller of jobs).
HERE: dict[str, tuple[dict[str, str], bool, bool]] = {
    "a pod of the cluster": (OWN, True, True),
    "the submitter": ({"job-name": "tensorgap-x"}, True, True),
    "the operator, installed by Helm": (
        {
            "app.kubernetes.io/name": "kuberay-operator",
            "app.kubernetes.io/component": "kuberay-operator",
        },
        False,
        True,
    ),
    "the operator, installed by kustomize": (
        {
            "app.kubernetes.io/name": "kuberay",
            "app.kubernetes.io/component": "kuberay-operator",
        },
        False,
        True,
    ),
    "a pod of another Ray cluster": ({"app.kubernetes.io/name": "kuberay"}, True, False),
    "a stranger": ({"app": "web"}, True, False),
    "a job of another namespace": ({"job-name": "x"}, False, False),
    "its labels in another namespace": (OWN, False, False),
}


@pytest.mark.parametrize("who", HERE)
def test_who_may_talk_to_its_pods(who: str) -> None:
    labels, same_namespace, allowed = HERE[who]
    assert selects(POLICY["spec"]["podSelector"], OWN)
    (rule,) = POLICY["spec"]["ingress"]
    assert (
        any(
            ("namespaceSelector" in peer or same_namespace) and selects(peer["podSelector"], labels)
            for peer in rule["from"]
        )
        == allowed
    )
