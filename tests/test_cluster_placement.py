from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from bench.asked import CPU
from bench.device.kinds import Card
from cluster import placement
from cluster.placement import Offer, Told


def node(
    name: str, cpus: float = 8, gpus: int = 0, label: str | None = None, **resources: float
) -> dict[str, Any]:
    """A node as `ray.nodes()` tells of it."""
    counts: dict[str, float] = {"CPU": cpus, **resources}
    if gpus:
        counts["GPU"] = gpus
    labels = {placement.TYPE_LABEL: label} if label else {}
    return {"NodeID": name, "Alive": True, "Resources": counts, "Labels": labels}


def card(name: str, uuid: str, memory_gib: int = 16, capability: str = "7.0") -> Card:
    return Card(name, uuid, memory_gib * 2**30, capability)


def offers(*nodes: dict[str, Any], told: Told | None = None, asked: Any = ()) -> dict[str, Offer]:
    return placement.offers(nodes, told or {}, asked)


T4 = card("Tesla T4", "GPU-T4", capability="7.5")
V100 = card("Tesla V100-SXM2-16GB", "GPU-V100")
A100_40, A100_80 = (card("NVIDIA A100-SXM4", f"GPU-{g}", g, "8.0") for g in (40, 80))


def test_a_gpu_cell_asks_for_one_gpu_of_its_type() -> None:
    offer = offers(node("a", gpus=1, label="T4"), told={"a": (T4,)})["T4"]
    assert (offer.num_gpus, offer.num_cpus) == (1, 1)
    # So that a node which an autoscaler starts will do, too.
    assert offer.selector() == {"ray.io/accelerator-type": "T4"}
    away = {"ray.io/accelerator-type": "T4", "ray.io/node-id": "!in(b,c)"}
    assert offer.selector({"c", "b"}) == away


def test_gpus_of_one_type_add_up_over_nodes() -> None:
    nodes = [node("a", gpus=4, label="A100"), node("b", gpus=8, label="A100")]
    assert offers(*nodes)["A100"].devices == 12


def test_a_node_without_labels_is_found_by_its_resource() -> None:
    offer = offers(node("a", gpus=1, **{"accelerator_type:P100": 1}))["P100"]
    assert offer.selector() == {"ray.io/node-id": "in(a)"}


def test_a_finer_type_than_ray_can_tell_is_a_resource_where_no_driver_tells_it() -> None:
    finer = {"accelerator_type:A100": 1, "accelerator_type:A100-80G": 1}
    found = offers(
        node("a", gpus=1, label="A100", **{"accelerator_type:A100": 1}),
        node("b", gpus=1, label="A100", **finer),
    )
    assert found["A100"].selector() == {"ray.io/node-id": "in(a)"}
    assert found["A100-80G"].selector() == {"ray.io/node-id": "in(b)"}


def test_the_driver_counts_and_not_the_label() -> None:
    told = {"good": (T4,), "wrong": (V100,), "mixed": (T4, V100)}
    found = offers(*(node(name, gpus=len(told[name]), label="T4") for name in told), told=told)
    assert (found["T4"].nodes, found["T4"].devices) == ({"good", "mixed"}, 2)
    assert (found["V100"].nodes, found["V100"].devices) == ({"wrong", "mixed"}, 2)
    assert found["T4"].selector() == {"ray.io/node-id": "in(good,mixed)"}
    assert found["T4"].selector({"good"}) == {"ray.io/node-id": "in(mixed)"}


def test_memory_is_read_from_the_driver() -> None:
    both = node("a", gpus=2, label="A100", **{"accelerator_type:A100-80G": 1})
    told = {"a": (A100_40, A100_80)}
    found = offers(both, told=told)
    assert {name: o.devices for name, o in found.items() if o.num_gpus} == {
        "A100-40G": 1,
        "A100-80G": 1,
    }
    assert placement.mislabelled([both], told) == {}
    found = offers(both, told=told, asked=["A100"])
    assert found["A100"].devices == 2


def test_one_name_of_two_compute_capabilities_is_told_apart_and_refused_by_itself() -> None:
    name = "NVIDIA Graphics Device"
    told = {"a": (card(name, "GPU-1", capability="8.0"),), "b": (card(name, "GPU-2"),)}
    nodes = [node("a", gpus=1, label="Graphics-Device"), node("b", gpus=1)]
    found = offers(*nodes, told=told, asked=["Graphics-Device"])
    assert set(found) == {"Graphics-Device-sm80", "Graphics-Device-sm70", CPU}


def test_gpus_that_no_driver_told_of_are_what_their_label_says() -> None:
    # Of four, one answers to its driver's name and the others are lost to it.
    found = offers(node("a", gpus=4, label="T4"), told={"a": (V100,)})
    assert (found["T4"].devices, found["V100"].devices) == (3, 1)


@pytest.mark.parametrize(
    ("label", "cards", "words"),
    [
        ("T4", (T4,), None),
        ("T4", (), None),
        (None, (T4,), None),
        ("RTX-6000", (card("NVIDIA RTX 6000 Ada Generation", "GPU-1", 48, "8.9"),), None),
        ("T4", (V100,), "a is labelled T4, but its driver has Tesla V100-SXM2-16GB: measured as"),
        ("A100-80G", (A100_40,), "measured as A100; to mend it: ray start --labels"),
        ("T4", (T4, V100), "its driver has Tesla T4, Tesla V100-SXM2-16GB: measured as T4, V100"),
    ],
)
def test_a_label_that_is_wrong_is_told(
    label: str | None, cards: tuple[Card, ...], words: str | None
) -> None:
    found = placement.mislabelled([node("a", gpus=len(cards), label=label)], {"a": cards})
    assert len(found) == (words is not None)
    for complaint in found:
        assert str(words) in complaint
        assert complaint in placement.why_unplaced(str(label), [], found)
        assert complaint not in placement.why_unplaced("H100", [], found)


CARDS = st.builds(
    card,
    st.sampled_from(["Tesla T4", "NVIDIA A100", "Quadro RTX 6000", "NVIDIA RTX 6000 Ada"]),
    st.uuids().map(str),
    st.sampled_from([14, 15, 16, 24, 40, 48, 80]),
    st.sampled_from(["7.5", "8.0"]),
)


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(CARDS, max_size=4).map(tuple)))
def test_each_gpu_that_a_driver_told_of_is_offered_once(told: dict[str, tuple[Card, ...]]) -> None:
    nodes = [node(name, gpus=len(cards), label="T4") for name, cards in told.items()]
    found = {n: offer for n, offer in offers(*nodes, told=told).items() if offer.num_gpus}
    for place, cards in told.items():
        for one in cards:
            (name,) = [name for name in found if one.is_a(name)]
            assert place in found[name].nodes
    assert sum(offer.devices for offer in found.values()) == sum(map(len, told.values()))
    for name, offer in found.items():
        of_it = [c for cards in told.values() for c in cards if c.is_a(name)]
        assert len({c.compute_capability for c in of_it}) == 1
        assert offer.devices == len(of_it)


def test_gpus_without_a_type_are_not_offered() -> None:
    assert set(offers(node("a", gpus=2))) == {CPU}


def test_a_dead_node_offers_nothing() -> None:
    dead = node("a", gpus=1, label="T4") | {"Alive": False}
    assert offers(dead) == {}


def test_a_cpu_cell_takes_all_cpus_of_the_largest_node_without_gpus() -> None:
    nodes = [node("gpu", cpus=64, gpus=1, label="T4"), node("s", cpus=8), node("l", cpus=16)]
    offer = offers(*nodes)[CPU]
    assert (offer.num_cpus, offer.num_gpus) == (16, 0)
    assert offer.selector() == {"ray.io/node-id": "in(l)"}


def test_a_cpu_cell_uses_a_gpu_node_where_there_is_no_other() -> None:
    offer = offers(node("gpu", cpus=64, gpus=1, label="T4"))[CPU]
    assert offer.num_cpus == 64


def test_a_cpu_cell_has_every_cpu_of_a_machine_of_several_nodes_and_keeps_them_idle() -> None:
    machine = {"NodeManagerHostname": "gpu", "NodeManagerAddress": "10.0.0.1"}
    other = machine | {"NodeManagerAddress": "10.0.0.2"}  # that calls itself the same
    nodes = [
        node("a", cpus=16, gpus=2, label="T4") | machine,
        node("b", cpus=2, gpus=2, label="V100") | machine,
        node("c", cpus=0) | machine,
        node("d", cpus=8, gpus=1, label="T4") | other,
    ]
    found = offers(*nodes)
    assert found[CPU].bundles() == [
        ({"CPU": 16}, {"ray.io/node-id": "in(a)"}),
        ({"CPU": 2}, {"ray.io/node-id": "in(b)"}),
    ]
    assert found["V100"].bundles({"x"}) == [({"CPU": 1, "GPU": 1}, found["V100"].selector({"x"}))]
    assert found["T4"].hosts == {"gpu (10.0.0.1)", "gpu (10.0.0.2)"}
    assert found["V100"].hosts == found[CPU].hosts == {"gpu (10.0.0.1)"}


def test_a_head_without_cpus_is_not_measured() -> None:
    assert offers(node("head", cpus=0)) == {}


def test_the_reason_names_what_is_missing_and_what_there_is() -> None:
    reason = placement.why_unplaced("A100", ["T4", "CPU"])
    assert reason.startswith("no A100 here (only CPU, T4): ")
    assert all(remedy in reason for remedy in ("--address", "add a node", "--gpu-type"))
