from __future__ import annotations

from typing import Any

from bench.records import CPU
from cluster import placement


def node(
    name: str, cpus: float = 8, gpus: int = 0, label: str | None = None, **resources: float
) -> dict[str, Any]:
    """A node as `ray.nodes()` tells of it."""
    counts: dict[str, float] = {"CPU": cpus, **resources}
    if gpus:
        counts["GPU"] = gpus
    labels = {placement.TYPE_LABEL: label} if label else {}
    return {"NodeID": name, "Alive": True, "Resources": counts, "Labels": labels}


def test_a_gpu_cell_asks_for_one_gpu_of_its_type() -> None:
    offer = placement.offers([node("a", gpus=1, label="T4")])["T4"]
    assert (offer.num_gpus, offer.num_cpus) == (1, 1)
    assert offer.label_selector == {"ray.io/accelerator-type": "T4"}
    assert offer.resources == {}


def test_gpus_of_one_type_add_up_over_nodes() -> None:
    nodes = [node("a", gpus=4, label="A100"), node("b", gpus=8, label="A100")]
    assert placement.offers(nodes)["A100"].devices == 12


def test_a_node_without_labels_is_found_by_its_resource() -> None:
    offer = placement.offers([node("a", gpus=1, **{"accelerator_type:P100": 1})])["P100"]
    assert offer.label_selector == {}
    assert offer.resources == {"accelerator_type:P100": 0.001}


def test_a_finer_type_than_ray_can_tell_is_a_resource() -> None:
    nodes = [
        node("a", gpus=1, label="A100", **{"accelerator_type:A100": 1}),
        node(
            "b",
            gpus=1,
            label="A100",
            **{"accelerator_type:A100": 1, "accelerator_type:A100-80G": 1},
        ),
    ]
    offers = placement.offers(nodes)
    assert offers["A100"].nodes == {"a"}
    assert offers["A100-80G"].nodes == {"b"}
    assert offers["A100"].finer == {"b"}  # which has its label, and is kept out
    assert offers["A100-80G"].finer == frozenset()
    assert offers["A100-80G"].resources == {"accelerator_type:A100-80G": 0.001}


def test_gpus_without_a_type_are_not_offered() -> None:
    assert set(placement.offers([node("a", gpus=2)])) == {CPU}


def test_a_dead_node_offers_nothing() -> None:
    dead = node("a", gpus=1, label="T4") | {"Alive": False}
    assert placement.offers([dead]) == {}


def test_a_cpu_cell_takes_all_cpus_of_the_largest_node_without_gpus() -> None:
    nodes = [node("gpu", cpus=64, gpus=1, label="T4"), node("s", cpus=8), node("l", cpus=16)]
    offer = placement.offers(nodes)[CPU]
    assert (offer.num_cpus, offer.num_gpus) == (16, 0)
    assert offer.label_selector == {"ray.io/node-id": "l"}


def test_a_cpu_cell_uses_a_gpu_node_where_there_is_no_other() -> None:
    offer = placement.offers([node("gpu", cpus=64, gpus=1, label="T4")])[CPU]
    assert offer.num_cpus == 64


def test_a_head_without_cpus_is_not_measured() -> None:
    assert placement.offers([node("head", cpus=0)]) == {}


def test_the_reason_names_what_is_missing_and_what_there_is() -> None:
    reason = placement.why_unplaced("A100", ["T4", "CPU"])
    assert reason.startswith("no A100 here (only CPU, T4): ")
    assert all(remedy in reason for remedy in ("--address", "add a node", "--gpu-type"))
