"""What KubeRay 1.5.1 takes as a RayJob, and Kubernetes as a pod and as a NetworkPolicy.

KubeRay's own definition of a RayJob repeats all of a pod four times and is 1.2 MB long; no package
has it. So its own fields stand here, written after the types of its source
(ray-project/kuberay, ray-operator/apis/ray/v1, Apache-2.0), and what belongs to a pod is checked by
Kubernetes' schemas, which `kubernetes-validate` has for each version. Both refuse unknown keys:
Kubernetes itself would drop them without a word.

A field that is not sure to be in 1.5.1 is left out, so that using it fails here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

Object = dict[str, Any]
CORE, META = "io.k8s.api.core.v1.", "io.k8s.apimachinery.pkg.apis.meta.v1."

# Each field: its type, with `!` where it is required and the version since which it exists, where
# that is 1.5 or later. `map` is of strings to strings, `[...]` a list, `=a|b` one of these words.
TYPES: dict[str, dict[str, str]] = {
    "RayJob": {
        "apiVersion": "=ray.io/v1 !",
        "kind": "=RayJob !",
        "metadata": f"{META}ObjectMeta !",
        "spec": "RayJobSpec !",
    },
    "RayJobSpec": {
        "activeDeadlineSeconds": "integer",
        "backoffLimit": "integer",
        "clusterSelector": "map",
        "entrypoint": "string",
        "entrypointNumCpus": "number",
        "entrypointNumGpus": "number",
        "entrypointResources": "string",
        "jobId": "string",
        "managedBy": "=ray.io/kuberay-operator|kueue.x-k8s.io/multikueue",
        "metadata": "map",
        "rayClusterSpec": "RayClusterSpec",
        "runtimeEnvYAML": "string",
        "shutdownAfterJobFinishes": "boolean",
        "submissionMode": "=K8sJobMode|HTTPMode|InteractiveMode|SidecarMode",
        "submitterConfig": "SubmitterConfig",
        "submitterPodTemplate": f"{CORE}PodTemplateSpec",
        "suspend": "boolean",
        "ttlSecondsAfterFinished": "integer",
    },
    "SubmitterConfig": {"backoffLimit": "integer"},
    "RayClusterSpec": {
        "authOptions": "AuthOptions 1.5.1",  # release notes of 1.5.1, with RayJob
        "autoscalerOptions": "AutoscalerOptions",
        "enableInTreeAutoscaling": "boolean",
        "headGroupSpec": "HeadGroupSpec !",
        "headServiceAnnotations": "map",
        "managedBy": "=ray.io/kuberay-operator|kueue.x-k8s.io/multikueue",
        "rayVersion": "string",
        "suspend": "boolean",
        "workerGroupSpecs": "[WorkerGroupSpec]",
    },
    "AuthOptions": {"mode": "=disabled|token"},
    "AutoscalerOptions": {
        "env": f"[{CORE}EnvVar]",
        "envFrom": f"[{CORE}EnvFromSource]",
        "idleTimeoutSeconds": "integer",
        "image": "string",
        "imagePullPolicy": "=Always|Never|IfNotPresent",
        "resources": f"{CORE}ResourceRequirements",
        "securityContext": f"{CORE}SecurityContext",
        "upscalingMode": "=Default|Aggressive|Conservative",
        "version": "=v1|v2",
        "volumeMounts": f"[{CORE}VolumeMount]",
    },
    "HeadGroupSpec": {
        "enableIngress": "boolean",
        "headService": f"{CORE}Service",
        "labels": "map 1.5",  # Ray's kuberay/autoscaling_config.py
        "rayStartParams": "map !",
        "resources": "map 1.5",
        "serviceType": "=ClusterIP|NodePort|LoadBalancer",
        "template": f"{CORE}PodTemplateSpec !",
    },
    "WorkerGroupSpec": {
        "groupName": "string !",
        "labels": "map 1.5",
        "maxReplicas": "integer !",
        "minReplicas": "integer !",
        "numOfHosts": "integer",
        "rayStartParams": "map !",
        "replicas": "integer",
        "resources": "map 1.5",
        "scaleStrategy": "ScaleStrategy",
        "template": f"{CORE}PodTemplateSpec !",
    },
    "ScaleStrategy": {"workersToDelete": "[string]"},
}

# Words that Kubernetes' server refuses others than, although its schema calls them strings. Each
# stands in the description of the field, which a test compares.
WORDS: dict[tuple[str, str], tuple[str, ...]] = {
    (f"{CORE}Toleration", "operator"): ("Exists", "Equal"),
    (f"{CORE}Toleration", "effect"): ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    (f"{CORE}PodSpec", "restartPolicy"): ("Always", "OnFailure", "Never"),
    (f"{META}LabelSelectorRequirement", "operator"): ("In", "NotIn", "Exists", "DoesNotExist"),
}
QUANTITY = r"^[+-]?(\d+\.?\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$"


def parsed(declared: str) -> tuple[str, bool, str]:
    """The type of a field, whether it is required, and since which version it exists."""
    name, *notes = declared.split()
    since = next((note for note in notes if note != "!"), "1.4")
    return name, "!" in notes, since


def schema_of(name: str) -> Object:
    """The JSON schema of a type in the notation of TYPES."""
    if name.startswith("["):
        return {"type": "array", "items": schema_of(name[1:-1])}
    if name.startswith("io.k8s."):
        return {"$ref": f"{definitions_id()}#/$defs/{name}"}
    if name in TYPES:
        return {"$ref": f"#/$defs/{name}"}
    if name == "map":
        return {"type": "object", "additionalProperties": {"type": "string"}}
    if name.startswith("="):
        return {"enum": name[1:].split("|")}
    return {"type": name}


@cache
def definitions(version: str) -> Object:
    """Kubernetes' own definitions at a version, in which unknown keys are refused."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    read: Object = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))
    for (name, field), words in WORDS.items():
        read["$defs"][name]["properties"][field]["enum"] = list(words)
    quantity = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": QUANTITY}]}
    read["$defs"]["io.k8s.apimachinery.pkg.api.resource.Quantity"] = quantity
    return read


def definitions_id() -> str:
    return "https://kubernetes.io/api/_definitions.json"


@cache
def validator(name: str, version: str) -> Draft202012Validator:
    """Of one of TYPES or of Kubernetes' definitions, at a version of Kubernetes."""
    own = {
        kind: {
            "type": "object",
            "additionalProperties": False,
            "required": [field for field, text in fields.items() if parsed(text)[1]],
            "properties": {field: schema_of(parsed(text)[0]) for field, text in fields.items()},
        }
        for kind, fields in TYPES.items()
    }
    kubernetes = Resource.from_contents(definitions(version))
    schema = {"$id": "https://ray.io/api", "$defs": own, **schema_of(name)}
    return Draft202012Validator(schema, registry=kubernetes @ Registry())


def versions_needed(name: str, value: Any) -> Iterator[str]:
    """Since which version each of KubeRay's fields in a document exists; 1.4 for any earlier."""
    if name.startswith("["):
        for item in value:
            yield from versions_needed(name[1:-1], item)
    for field, text in TYPES.get(name, {}).items():
        if field in value:
            kind, _, since = parsed(text)
            yield since
            yield from versions_needed(kind, value[field])


def complaints(job: Object) -> Iterator[str]:
    """What the operator refuses beyond the schema (controllers/ray/utils/validation.go)."""
    named = job["metadata"].get("generateName", job["metadata"].get("name", ""))
    # Kubernetes appends five characters; the operator takes 47 in all.
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,41}", named):
        yield f"{named} is no name of a RayJob"
    spec = job["spec"]
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished without shutdownAfterJobFinishes"
    cluster = spec["rayClusterSpec"]
    if cluster.get("authOptions", {}).get("mode") == "token":
        version = tuple(int(part) for part in cluster.get("rayVersion", "0").split("."))
        if version < (2, 52):
            yield "the token takes Ray 2.52"
    groups = cluster["workerGroupSpecs"]
    names = [group["groupName"] for group in groups]
    if len(names) != len(set(names)):
        yield "two worker groups of one name"
    for group in (cluster["headGroupSpec"], *groups):
        yield from complaints_about_a_group(group, cluster)


def complaints_about_a_group(group: Object, cluster: Object) -> Iterator[str]:
    parameters = group["rayStartParams"]
    if "labels" in parameters:
        yield "labels in rayStartParams are ignored"
    if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & set(parameters):
        yield "resources in two places"
    for key, value in group.get("labels", {}).items():
        if not re.fullmatch(r"([a-z0-9.-]+/)?[A-Za-z0-9._-]{1,63}", key) or not re.fullmatch(
            r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value
        ):
            yield f"{key}: {value} is no label"
    least, most = group.get("minReplicas", 0), group.get("maxReplicas", 0)
    if not 0 <= least <= group.get("replicas", least) <= most:
        yield f"{least} to {most} replicas"
    pod = group["template"]["spec"]
    if cluster["autoscalerOptions"].get("version") == "v2":
        if pod.get("restartPolicy", "Never") != "Never":
            yield "autoscaler v2 restarts no pod"
        if any(v["name"] == "RAY_enable_autoscaler_v2" for v in pod["containers"][0]["env"]):
            yield "the version of the autoscaler is said twice"
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    for container in pod["containers"]:
        yield from complaints_about_a_container(container, volumes)


def complaints_about_a_container(container: Object, volumes: set[str]) -> Iterator[str]:
    """Kubernetes' own rules, which are not in its schema."""
    for mount in container.get("volumeMounts", ()):
        if mount["name"] not in volumes:
            yield f"no volume {mount['name']}"
    set_there = [variable["name"] for variable in container.get("env", ())]
    if len(set_there) != len(set(set_there)):
        yield "a variable is set twice"
    resources = container["resources"]
    if "nvidia.com/gpu" in resources["requests"]:
        yield "GPUs are a limit"


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector of Kubernetes takes something with these labels."""
    asked = selector.get("matchLabels", {}).items() <= labels.items()
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "Exists"
        asked = asked and expression["key"] in labels
    return asked
