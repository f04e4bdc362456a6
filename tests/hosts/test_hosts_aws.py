"""aws.yaml, run by Ray's own launcher and provider against an EC2 on loopback that asks for rights.

No cloud is contacted. What a node would do is not done: ssh and rsync are two programs that note
what they are told, as if every host obeyed at once.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_account
import botocore.exceptions
import pytest
import yaml
from aws_account import Account, Right, allows, grants

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "cluster" / "configs"
CONFIG: dict[str, Any] = yaml.safe_load((CONFIGS / "aws.yaml").read_text())
NODES: dict[str, Any] = CONFIG["available_node_types"]
WORKERS = [name for name in NODES if name != "head"]
GPU_TYPES = [NODES[name]["labels"]["ray.io/accelerator-type"] for name in WORKERS]
ZONES = CONFIG["provider"]["availability_zone"].split(",")
PLACEHOLDER = "sg-00000000000000000"
POLICIES = {
    who: json.loads((CONFIGS / f"aws-{who}.json").read_text()) for who in ("head", "launch")
}

# Ray's command line, without the seconds that it waits before it sets each tag or asks again.
_RAY = """
from ray.autoscaler._private import commands
from ray.autoscaler._private.aws import node_provider
from ray.scripts.scripts import main
node_provider.TAG_BATCH_DELAY, commands.POLL_INTERVAL = 0, 0.1
main()
"""

# What autoscaler v2 does on the head, of the configuration that the launcher brought there: a
# worker of each type that is asked for is started, one is set up, all are ended.
_HEAD = """
import json, sys, time
from autoscaling import nodes_started
from ray.autoscaler._private.aws import node_provider
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler.v2.instance_manager.config import FileConfigReader
from ray.autoscaler.v2.instance_manager.node_provider import NodeProviderAdapter
from ray.autoscaler.v2.instance_manager.ray_installer import RayInstaller
from ray.core.generated.instance_manager_pb2 import Instance

node_provider.TAG_BATCH_DELAY = 0
config_file, *gpu_types = sys.argv[1:]
reader = FileConfigReader(config_file)
config = reader.get_cached_autoscaling_config()
provider = _get_node_provider(config.get_provider_config(), config.get_config("cluster_name"))
adapter = NodeProviderAdapter(provider, reader)

def workers():
    return {k: v for k, v in adapter.get_non_terminated().items() if v.node_type != "head"}

def until(condition):
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        if errors := adapter.poll_errors():
            sys.exit(repr([error.__cause__ for error in errors]))
        time.sleep(0.1)

adapter.launch(nodes_started(config, gpu_types), "request")
until(lambda: len(workers()) == len(gpu_types))
started = workers()
print(json.dumps({v.node_type: k for k, v in started.items()}), flush=True)
first = next(iter(started.values()))
RayInstaller(provider, config).install_ray(
    Instance(cloud_instance_id=first.cloud_instance_id, instance_type=first.node_type), "10.0.0.1"
)
adapter.terminate(list(started), "request")
until(lambda: not workers())
"""


@dataclass(frozen=True)
class Place:
    """A machine: its home, the programs that it finds, and whose credentials it has."""

    home: Path
    environment: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-c", _RAY, *arguments)


def place(home: Path, url: str, credentials: dict[str, str]) -> Place:
    """A home with the token and the project, where ssh and rsync note their arguments."""
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("token")
    (home / "tensorgap").symlink_to(ROOT)
    programs = home / "bin"
    programs.mkdir()
    for name in ("ssh", "rsync"):
        # What rsync is to bring is kept: the launcher removes it afterwards.
        (programs / name).write_text(
            f'#!/bin/bash\necho {name} "$@" >> {home}/told\n'
            f'for one; do [[ $one == *ray-bootstrap-* ]] && cp "$one" {home}/brought.yaml; done\n'
            "true\n"
        )
        (programs / name).chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
    return Place(
        home,
        {
            **kept,
            "HOME": str(home),
            "TMPDIR": str(home),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{ROOT}/tests",
            "RAY_USAGE_STATS_ENABLED": "0",
            "AWS_ENDPOINT_URL": url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
            **(
                {"AWS_SESSION_TOKEN": credentials["SessionToken"]}
                if "SessionToken" in credentials
                else {}
            ),
        },
    )


@dataclass(frozen=True)
class Cloud:
    """The account after the commands of docs/cluster.md, and the two machines that use it."""

    account: Account
    config: Path
    group: str
    foreign: str
    """An instance of the account that is not of this cluster."""
    desk: Place
    head: Place


def documented_commands() -> list[str]:
    """What docs/cluster.md has the reader do once, in order."""
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    return re.findall(r"^aws (?:.*'\[\n(?:.*\n)*?.*\]'|.*)$", text, re.M)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("aws")
    with aws_account.account() as account:
        made, *others = documented_commands()
        group: str = account.run(made, ROOT)["GroupId"]
        for command in others:
            account.run(command.replace(PLACEHOLDER, group), ROOT)
        ec2, iam = account.client("ec2"), account.client("iam")
        (subnet, *_) = ec2.describe_subnets()["Subnets"]
        (foreign,) = ec2.run_instances(
            ImageId="ami-0", InstanceType="m7i.xlarge", MinCount=1, MaxCount=1,
            KeyName=ec2.create_key_pair(KeyName="theirs")["KeyName"], SubnetId=subnet["SubnetId"],
        )["Instances"]  # fmt: skip
        iam.create_user(UserName="launch")
        allow(account, "launch", POLICIES["launch"])
        key = iam.create_access_key(UserName="launch")["AccessKey"]
        # As the metadata service of the head gives them to whoever runs there.
        role = account.client("sts").assume_role(
            RoleArn=f"arn:aws:iam::{aws_account.ACCOUNT}:role/tensorgap-head",
            RoleSessionName="head",
        )["Credentials"]
        config = folder / "aws.yaml"
        config.write_text((CONFIGS / "aws.yaml").read_text().replace(PLACEHOLDER, group))
        yield Cloud(
            account,
            config,
            group,
            foreign["InstanceId"],
            place(folder / "desk", account.url, key),
            place(folder / "head", account.url, role),
        )


def allow(account: Account, who: str, policy: Any) -> None:
    """Give the head's role or the launching user this policy, in place of the one before."""
    names = {"PolicyName": "tensorgap-head", "PolicyDocument": json.dumps(policy)}
    if who == "head":
        account.client("iam").put_role_policy(RoleName="tensorgap-head", **names)
    else:
        account.client("iam").put_user_policy(UserName=who, **names)


@dataclass(frozen=True)
class Life:
    """What was asked of EC2 from `ray up` to `ray down`."""

    up: subprocess.CompletedProcess[str]
    workers: subprocess.CompletedProcess[str]
    down: subprocess.CompletedProcess[str]
    launches: dict[str, dict[str, list[str]]]
    """The last request of each node type, as sent."""


@pytest.fixture(scope="module")
def life(cloud: Cloud) -> Life:
    with cloud.account.enforced():
        up = cloud.desk.ray("up", "-y", str(cloud.config))
        brought = str(cloud.desk.home / "brought.yaml")
        key = cloud.desk.home / ".ssh" / "ray-autoscaler_us-east-1.pem"
        (cloud.head.home / "ray_bootstrap_key.pem").write_bytes(key.read_bytes())
        workers = cloud.head.run("-c", _HEAD, brought, *GPU_TYPES)
        down = cloud.desk.ray("down", "-y", str(cloud.config))
    launches = {
        aws_account.tags_sent(sent, "TagSpecification.1.")["ray-user-node-type"]: sent
        for _, action, sent in cloud.account.calls
        if action == "ec2:RunInstances"
    }
    return Life(up, workers, down, launches)


def states(cloud: Cloud) -> dict[str, str]:
    """The state of each instance of the account."""
    found = cloud.account.client("ec2").describe_instances()["Reservations"]
    return {i["InstanceId"]: i["State"]["Name"] for r in found for i in r["Instances"]}


def test_the_documented_rights_suffice_to_start_and_end_a_node_of_each_type(
    cloud: Cloud, life: Life
) -> None:
    assert (life.up.returncode, life.up.stderr.count("Traceback")) == (0, 0), life.up.stderr
    assert life.workers.returncode == 0, life.workers.stderr
    (started,) = [line for line in life.workers.stdout.splitlines() if line.startswith("{")]
    assert set(json.loads(started)) == set(WORKERS)
    assert life.down.returncode == 0, life.down.stderr
    assert set(life.launches) == set(NODES)
    ended = states(cloud)
    assert ended.pop(cloud.foreign) == "running"
    assert len(ended) == len(NODES)
    assert set(ended.values()) == {"terminated"}


@pytest.mark.parametrize("node_type", NODES)
def test_what_is_asked_of_ec2_is_what_the_configuration_says(
    node_type: str, cloud: Cloud, life: Life
) -> None:
    sent = {key: value[0] for key, value in life.launches[node_type].items()}
    asked = NODES[node_type]["node_config"]
    tags = aws_account.tags_sent(life.launches[node_type], "TagSpecification.1.")
    for key in [key for key in sent if key.startswith("TagSpecification.")]:
        del sent[key]
    subnet = sent.pop("SubnetId")
    sent.pop("ClientToken")  # by which a repeated request is known
    assert sent == {
        "Action": "RunInstances",
        "Version": "2016-11-15",
        "MinCount": "1",
        "MaxCount": "1",
        "InstanceType": asked["InstanceType"],
        "ImageId": asked["ImageId"],
        "KeyName": "ray-autoscaler_us-east-1",
        "SecurityGroupId.1": cloud.group,
        "MetadataOptions.HttpTokens": "required",
        "BlockDeviceMapping.1.DeviceName": "/dev/sda1",
        "BlockDeviceMapping.1.Ebs.VolumeSize": "50",
        "BlockDeviceMapping.1.Ebs.VolumeType": "gp3",
        "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true",
        # A worker has no role.
        **({"IamInstanceProfile.Name": "tensorgap-head"} if node_type == "head" else {}),
    }
    assert tags["ray-cluster-name"] == CONFIG["cluster_name"]
    assert tags["ray-node-type"] == ("head" if node_type == "head" else "worker")
    (found,) = cloud.account.client("ec2").describe_subnets(SubnetIds=[subnet])["Subnets"]
    offered = aws_account.zones_of(asked["InstanceType"])
    assert found["AvailabilityZone"] == next(zone for zone in ZONES if zone in offered)
    assert found["MapPublicIpOnLaunch"]


@pytest.mark.parametrize("node_type", WORKERS)
def test_an_instance_type_has_the_gpus_that_ray_is_told_of(node_type: str, cloud: Cloud) -> None:
    node = NODES[node_type]
    (found,) = cloud.account.client("ec2").describe_instance_types(
        InstanceTypes=[node["node_config"]["InstanceType"]]
    )["InstanceTypes"]
    (gpu,) = found["GpuInfo"]["Gpus"]
    assert gpu["Name"] == node["labels"]["ray.io/accelerator-type"]
    assert node["resources"] == {"CPU": found["VCpuInfo"]["DefaultVCpus"], "GPU": gpu["Count"]}
    assert "x86_64" in found["ProcessorInfo"]["SupportedArchitectures"]  # as the image


def test_ray_knows_each_instance_type(life: Life) -> None:
    """It warns only, and then starts none of that type."""
    assert "Failed to autodetect" not in life.up.stdout + life.up.stderr


def test_only_ssh_from_one_address_and_the_group_itself_get_in(cloud: Cloud) -> None:
    (group,) = cloud.account.client("ec2").describe_security_groups(GroupIds=[cloud.group])[
        "SecurityGroups"
    ]
    opened = {
        (
            rule["IpProtocol"],
            rule.get("FromPort"),
            rule.get("ToPort"),
            *(block["CidrIp"] for block in rule["IpRanges"]),
            *(pair["GroupId"] for pair in rule["UserIdGroupPairs"]),
        )
        for rule in group["IpPermissions"]
    }
    (address,) = re.findall(r'"CidrIp": "(.*?)"', "".join(documented_commands()))
    assert address.endswith("/32")
    assert {rule for rule in opened if rule[0] == "tcp"} == {("tcp", 22, 22, address)}
    assert {(rule[0], rule[-1]) for rule in opened if rule[0] != "tcp"} == {("-1", cloud.group)}


def test_ray_makes_no_role_and_no_group_of_its_own(cloud: Cloud, life: Life) -> None:
    called = {action for _, action, _ in cloud.account.calls}
    assert not {action for action in called if action.startswith("iam:")}
    assert not {action for action in called if "SecurityGroup" in action} - {
        "ec2:DescribeSecurityGroups"
    }


@pytest.mark.parametrize("who", POLICIES)
def test_no_right_is_superfluous(who: str, cloud: Cloud, life: Life) -> None:
    needed = [
        right for caller, right in cloud.account.needed if caller in (who, f"tensorgap-{who}")
    ]
    granted = list(grants(POLICIES[who]))
    assert all(allows(granted, right) for right in needed)
    for one in granted:
        others = [grant for grant in granted if grant != one]
        assert not all(allows(others, right) for right in needed), one


def test_a_launch_without_the_right_to_give_the_head_its_role_is_refused(
    cloud: Cloud, life: Life
) -> None:
    lacking = {
        **POLICIES["launch"],
        "Statement": [s for s in POLICIES["launch"]["Statement"] if s["Action"] != "iam:PassRole"],
    }
    before = states(cloud)
    allow(cloud.account, "launch", lacking)
    try:
        with cloud.account.enforced():
            up = cloud.desk.ray("up", "-y", str(cloud.config))
    finally:
        allow(cloud.account, "launch", POLICIES["launch"])
    assert up.returncode != 0
    assert "not authorized to perform: ec2:RunInstances" in up.stdout + up.stderr
    assert states(cloud) == before


def test_a_head_without_the_right_to_mark_what_it_starts_gets_nothing(
    cloud: Cloud, life: Life
) -> None:
    lacking = {
        **POLICIES["head"],
        "Statement": [s for s in POLICIES["head"]["Statement"] if s["Sid"] != "NameAtTheStart"],
    }
    before = states(cloud)
    allow(cloud.account, "head", lacking)
    try:
        with cloud.account.enforced():
            done = cloud.head.run("-c", _HEAD, str(cloud.desk.home / "brought.yaml"), "T4")
    finally:
        allow(cloud.account, "head", POLICIES["head"])
    assert done.returncode == 1
    assert "not authorized to perform: ec2:RunInstances" in done.stderr
    assert states(cloud) == before


LAUNCH: dict[str, Any] = {
    "ImageId": "ami-0", "InstanceType": "m7i.xlarge", "MinCount": 1, "MaxCount": 1,
    "KeyName": "ray-autoscaler_us-east-1",
}  # fmt: skip
MINE = [{"ResourceType": "instance", "Tags": [{"Key": "ray-cluster-name", "Value": "tensorgap"}]}]
FORBIDDEN: dict[str, tuple[str, dict[str, Any]]] = {
    "end an instance of somebody else": ("terminate_instances", {"InstanceIds": ["foreign"]}),
    "make it its own": (
        "create_tags",
        {"Resources": ["foreign"], "Tags": [{"Key": "ray-cluster-name", "Value": "tensorgap"}]},
    ),
    "start one that is not of this cluster": ("run_instances", LAUNCH),
    "start one with a role": (
        "run_instances",
        {
            **LAUNCH,
            "TagSpecifications": MINE,
            "IamInstanceProfile": {"Name": "tensorgap-head"},
        },
    ),
    "start one with a key of somebody else": (
        "run_instances",
        {**LAUNCH, "TagSpecifications": MINE, "KeyName": "theirs"},
    ),
    "make a key": ("create_key_pair", {"KeyName": "ray-autoscaler_1_us-east-1"}),
    "see the groups": ("describe_security_groups", {}),
}


def where(cloud: Cloud) -> dict[str, Any]:
    """A subnet and the group of the cluster, for a launch."""
    (subnet, *_) = cloud.account.client("ec2").describe_subnets()["Subnets"]
    return {"SubnetId": subnet["SubnetId"], "SecurityGroupIds": [cloud.group]}


def credentials(place: Place) -> dict[str, str]:
    """The temporary credentials of a machine."""
    kept = place.environment
    return {
        "AccessKeyId": kept["AWS_ACCESS_KEY_ID"],
        "SecretAccessKey": kept["AWS_SECRET_ACCESS_KEY"],
        "SessionToken": kept["AWS_SESSION_TOKEN"],
    }


@pytest.mark.parametrize("deed", FORBIDDEN)
def test_whoever_takes_over_the_head_cannot(deed: str, cloud: Cloud, life: Life) -> None:
    operation, parameters = FORBIDDEN[deed]
    parameters = json.loads(json.dumps(parameters).replace("foreign", cloud.foreign))
    if operation == "run_instances":
        parameters |= where(cloud)
    before = states(cloud)
    with (
        cloud.account.enforced(),
        pytest.raises(botocore.exceptions.ClientError, match="not authorized to perform"),
    ):
        getattr(cloud.account.client("ec2", credentials(cloud.head)), operation)(**parameters)
    assert states(cloud) == before


def test_what_the_head_may_not_do_fails_for_that_reason_alone(cloud: Cloud, life: Life) -> None:
    parameters = {**LAUNCH, **where(cloud), "TagSpecifications": MINE, "DryRun": True}
    with (
        cloud.account.enforced(),
        pytest.raises(botocore.exceptions.ClientError, match="would have succeeded"),
    ):
        cloud.account.client("ec2", credentials(cloud.head)).run_instances(**parameters)


@pytest.mark.parametrize(
    ("action", "resource", "context", "allowed"),
    [
        ("ec2:RunInstances", "arn:aws:ec2:r:1:instance/i-1", (("tag", "mine"),), True),
        ("ec2:RunInstances", "arn:aws:ec2:r:1:instance/i-1", (("tag", "m"), ("b", "c")), False),
        ("ec2:RunInstances", "arn:aws:ec2:r:1:instance/i-1", (), False),
        ("ec2:RunInstances", "arn:aws:ec2:r:1:volume/v-1", (("tag", "mine"),), False),
        ("ec2:RunInstance", "arn:aws:ec2:r:1:instance/i-1", (("tag", "mine"),), False),
        ("ec2:DescribeHosts", "*", (), True),
        ("ec2:DescribeHosts", "arn:aws:ec2:r:1:instance/i-1", (("b", "c"),), True),
    ],
)
def test_rights_are_compared_as_iam_does(
    action: str, resource: str, context: tuple[tuple[str, str], ...], allowed: bool
) -> None:
    own = {
        "Effect": "Allow",
        "Action": ["ec2:RunInstances"],
        "Resource": "arn:aws:ec2:*:*:instance/*",
        "Condition": {"StringEquals": {"tag": "mine"}},
    }
    look = {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}
    granted = list(grants({"Statement": [own, look]}))
    assert allows(granted, Right(action, resource, context)) == allowed


def test_the_policies_are_short_enough_for_iam() -> None:
    """2,048 characters in one of a user, without white space."""
    for policy in POLICIES.values():
        assert len(json.dumps(policy, separators=(",", ":"))) <= 2048
