"""An AWS account on loopback: moto's, with the rights that IAM would ask for.

Moto knows instance types and where each is offered from AWS's own API (moto's scripts take it from
there), but checks only the name of a call against a policy. What is added here, from AWS's Service
Authorization Reference for EC2: the resources and the tags of a call, and the rights that one call
needs of others (`iam:PassRole`, `ec2:CreateTags`, `ssm:GetParameters`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
from moto import settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.models.instances import InstanceBackend
from moto.iam.access_control import IAMRequest
from moto.server import ThreadedMotoServer

ACCOUNT, REGION = "123456789012", "us-east-1"
Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Right:
    """One thing that must be allowed for a call: an action, on a resource, under conditions."""

    action: str
    resource: str = "*"
    context: tuple[tuple[str, str], ...] = ()


def listed(value: Any) -> list[Any]:
    """A policy has one as itself and several as a list."""
    return value if isinstance(value, list) else [value]


def grants(policy: Policy) -> Iterator[tuple[str, str, tuple[tuple[str, str], ...]]]:
    """Each action on each resource that a policy allows, with its conditions."""
    for statement in policy["Statement"]:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        conditions = statement.get("Condition", {"StringEquals": {}})
        (operator,) = conditions
        assert operator == "StringEquals"
        for action in listed(statement["Action"]):
            for resource in listed(statement["Resource"]):
                yield action, resource, tuple(conditions[operator].items())


def allows(granted: Any, right: Right) -> bool:
    """Whether one of these grants covers a right, as IAM compares them."""
    return any(
        fnmatchcase(right.action, action)
        and fnmatchcase(right.resource, resource)
        and set(conditions) <= set(right.context)
        for action, resource, conditions in granted
    )


def values(sent: Mapping[str, list[str]], name: str) -> list[str]:
    """The members of a list in a request of EC2's protocol: NAME.1, NAME.2, ..."""
    numbered = [key for key in sent if key.rpartition(".")[0] == name]
    return [sent[key][0] for key in numbered if key.rpartition(".")[2].isdigit()]


def tags_sent(sent: Mapping[str, list[str]], prefix: str) -> dict[str, str]:
    """The tags in a request, below `prefix`."""
    keys = [key for key in sent if key.startswith(prefix) and key.endswith(".Key")]
    return {sent[key][0]: sent[f"{key[:-3]}Value"][0] for key in keys}


def arn(kind: str, name: str, account: str = ACCOUNT) -> str:
    return f"arn:aws:ec2:{REGION}:{account}:{kind}/{name}"


def rights_of_a_launch(sent: Mapping[str, list[str]]) -> Iterator[Right]:
    """What RunInstances needs, of EC2 and of others."""
    image = sent["ImageId"][0]
    tags = tags_sent(sent, "TagSpecification.1.")
    context = tuple((f"aws:RequestTag/{key}", value) for key, value in tags.items())
    yield Right("ec2:RunInstances", arn("instance", "*"), context)
    # Canonical's images belong to Canonical: no account of ours in their names.
    for resource in (
        arn("image", "ami-0", account=""),
        arn("network-interface", "*"),
        arn("volume", "*"),
        arn("subnet", sent["SubnetId"][0]),
        *(arn("security-group", group) for group in values(sent, "SecurityGroupId")),
        *(arn("key-pair", key) for key in sent.get("KeyName", ())),
    ):
        yield Right("ec2:RunInstances", resource)
    if tags:
        yield Right(
            "ec2:CreateTags", arn("instance", "*"), (*context, ("ec2:CreateAction", "RunInstances"))
        )
    if image.startswith("resolve:ssm:"):
        parameter = image.removeprefix("resolve:ssm:")
        yield Right("ssm:GetParameters", f"arn:aws:ssm:{REGION}::parameter{parameter}")
    for profile in sent.get("IamInstanceProfile.Name", ()):  # its role has the same name here
        yield Right(
            "iam:PassRole",
            f"arn:aws:iam::{ACCOUNT}:role/{profile}",
            (("iam:PassedToService", "ec2.amazonaws.com"),),
        )


def rights_needed(action: str, sent: Mapping[str, list[str]]) -> list[Right]:
    """All that must be allowed for a call. A call of EC2 that is not known here is an error."""
    if action == "ec2:RunInstances":
        return list(rights_of_a_launch(sent))
    if action in ("ec2:TerminateInstances", "ec2:CreateTags"):
        named = [*values(sent, "InstanceId"), *values(sent, "ResourceId")]
        return [
            Right(
                action,
                arn("instance", instance),
                tuple(
                    (f"aws:ResourceTag/{key}", value) for key, value in tags_of(instance).items()
                ),
            )
            for instance in named
        ]
    if action == "ec2:CreateKeyPair":
        return [Right(action, arn("key-pair", sent["KeyName"][0]))]
    assert action.startswith(("ec2:Describe", "iam:")), action
    return [Right(action)]


def tags_of(instance: str) -> dict[str, str]:
    found = ec2_backends[ACCOUNT][REGION].describe_tags({"resource-id": [instance]})
    return {tag["key"]: tag["value"] for tag in found}


@dataclass
class Account:
    """The account: who may do what in it is checked from `enforced` on."""

    url: str
    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """Who called what, with which parameters."""
    needed: list[tuple[str, Right]] = field(default_factory=list)
    """Who needed which right."""

    def client(self, service: str, credentials: Mapping[str, str] | None = None) -> Any:
        """A client of boto3; without credentials, before rights are enforced."""
        given = credentials or {"AccessKeyId": "root", "SecretAccessKey": "root"}
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given.get("SessionToken"),
        )

    def run(self, command: str, folder: Path) -> dict[str, Any]:
        """Do what a command line of AWS's CLI does that only names parameters of the API."""
        program, service, operation, *options = shlex.split(command)
        assert program == "aws"
        parameters = {}
        for option, value in zip(options[::2], options[1::2], strict=True):
            name = "".join(word.title() for word in option.removeprefix("--").split("-"))
            if value.startswith("file://"):
                value = (folder / value.removeprefix("file://")).read_text(encoding="utf-8")
            parameters[name] = json.loads(value) if value.startswith("[") else value
        done: dict[str, Any] = getattr(self.client(service), operation.replace("-", "_"))(
            **parameters
        )
        return done

    def granted(self, request: IAMRequest) -> list[Any]:
        """The grants of whoever signed a request."""
        found = request._access_key.collect_policies()
        documents = [p["policy_document"] if isinstance(p, dict) else p for p in found]
        return [grant for document in documents for grant in grants(json.loads(document))]

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Every call from now on is signed, and allowed by a policy of the caller, or refused."""

        def check(request: IAMRequest, resource: str) -> None:
            who = request._access_key.arn.rpartition(":")[2].split("/")[1]
            needed = rights_needed(request._action, request._data)
            self.calls.append((who, request._action, dict(request._data)))
            self.needed += [(who, right) for right in needed]
            granted = self.granted(request)
            if not all(allows(granted, right) for right in needed):
                request._raise_access_denied()

        with (
            patch.object(IAMRequest, "check_action_permitted", check),
            patch.object(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0),
            patch.object(ActionAuthenticatorMixin, "request_count", 0),
        ):
            yield


def zones_of(instance_type: str) -> set[str]:
    """The zones of this region where AWS offers a type, from what moto took from AWS."""
    offered = INSTANCE_TYPE_OFFERINGS["availability-zone"][REGION]
    return {offer["Location"] for offer in offered if offer["InstanceType"] == instance_type}


@contextmanager
def account() -> Iterator[Account]:
    """Serve one on a free port of loopback."""
    launch = InstanceBackend.run_instances

    def offered(backend: Any, image: str, count: int, *rest: Any, **options: Any) -> Any:
        zone = backend.get_subnet(options["subnet_id"]).availability_zone
        if zone not in zones_of(options["instance_type"]):
            raise EC2ClientError(
                "Unsupported", f"{options['instance_type']} is not offered in {zone}"
            )
        return launch(backend, image, count, *rest, **options)

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        with (
            patch.object(InstanceBackend, "run_instances", offered),
            patch.object(settings, "EC2_ENABLE_INSTANCE_TYPE_VALIDATION", True),
            patch.object(settings, "ENABLE_KEYPAIR_VALIDATION", True),
        ):
            yield Account("http://{}:{}".format(*server.get_host_and_port()))
    finally:
        server.stop()
