"""What Ray's autoscaler v2 starts for a sweep, by its own scheduler and without a cluster."""

from __future__ import annotations

from collections.abc import Sequence

from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest
from ray.core.generated.common_pb2 import LabelSelectorOperator


def nodes_started(config: AutoscalingConfig, gpu_types: Sequence[str]) -> dict[str, int]:
    """How many nodes of each type it starts when seats on these GPUs are asked for.

    A seat is what cluster/lease.py asks for: a placement group of one CPU and one GPU, on a node
    with the label of the type.
    """
    operator = LabelSelectorOperator.LABEL_OPERATOR_IN
    asked = [
        ResourceRequestUtil.make(
            {"CPU": 1, "GPU": 1},
            label_selectors=[[("ray.io/accelerator-type", operator, [gpu_type])]],
        )
        for gpu_type in gpu_types
    ]
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            gang_resource_requests=[GangResourceRequest(requests=[seat]) for seat in asked],
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}
