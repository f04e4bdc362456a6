"""bench.measure: whole measurements on this CPU, and what becomes of whatever goes wrong."""

from __future__ import annotations

import functools
import gc
import itertools
import pickle
import pickletools
import shutil
import socket
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bench import errors
from bench import measure as measuring
from bench.asked import CPU, ENERGY_NOT_MEASURED, Cell, QualityPlan, Sampling, Workload
from bench.device import acquire as device
from bench.device import cpu, nvml
from bench.device.kinds import Card
from bench.energy import meter
from bench.energy import protocol as energy
from bench.errors import TensorgapError, Unsupported
from bench.lookup import TINY_FOLDER
from bench.measure import measure
from bench.measured import Event, Measurement, Outcome, Profile, Quality, Stage
from bench.model import engines, tokens, weights
from bench.model import load as models
from bench.model import requests as queues
from bench.model.engines import Forward
from bench.outcomes import Request, classify, failed
from bench.perplexity import evaluate as quality
from bench.profile import gather
from bench.text.embedded import corpus
from bench.text.load import Text

QUICK = Sampling(
    warmup_min_s=0,
    warmup_max_s=0.02,
    latency_min_s=0,
    latency_max_s=5,
    min_samples=5,
    median_within=0.5,
    throughput_s=0.02,
    energy_s=0.02,
    idle_s=0,
    profile=False,
)
ONE, TWO = Workload("tiny", batch_size=1, prompt_tokens=16), Workload("tiny", batch_size=2)
written_once = functools.cache(corpus.split)
WITH_PROFILE = replace(QUICK, profile=True)
NO_QUALITY = QualityPlan(enabled=False)
STEPS = ["warm-up", "latency", "throughput", "energy"]


@pytest.fixture(autouse=True, scope="module")
def little_garbage() -> Iterator[None]:
    """Each stage collects garbage first: quick where all that is imported lies aside."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread is quicker for matrices this small; a real energy meter need not settle here."""
    monkeypatch.setattr(corpus, "split", written_once)
    monkeypatch.setattr(energy, "SETTLE_S", 0.01)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """A short text in the words of the embedded model."""
    path = tmp_path / "story.txt"
    path.write_text(corpus.generate(seed=7, paragraphs=2).text, encoding="utf-8")
    return path


@pytest.fixture
def request_(story: Path) -> Callable[..., Request]:
    """A function that makes a request of two workloads, with the given fields changed."""

    def make(*workloads: Workload, precision: str = "fp32", **changes: Any) -> Request:
        fields: dict[str, Any] = {
            "run": "local/20261124T120000Z",
            "cell": Cell("CPU", precision),
            "replicate": 0,
            "workloads": workloads or (ONE, TWO),
            "sampling": QUICK,
            "quality": QualityPlan(str(story), context=64, stride=32),
        }
        return Request(**{**fields, **changes})

    return make


def rows_of(request: Request) -> list[Measurement]:
    return [event for event in measure(request) if isinstance(event, Measurement)]


def codes(row: Measurement) -> list[str]:
    return [warning.code for warning in row.warnings]


def outline(request: Request) -> list[str]:
    """Names of stages, outcomes of rows and levels of profiles, in the order in which they come."""
    events = measure(request)
    return [named(event) for event in events]


def named(event: Event) -> str:
    if isinstance(event, Stage):
        return event.name
    return event.trace.level if isinstance(event, Profile) else str(event.outcome)


def break_forward(
    monkeypatch: pytest.MonkeyPatch, error: Exception, only_batch: int | None = None
) -> None:
    """Let forwards raise an error; those of one batch size only, where one is given."""
    real = engines.forward

    def broken(engine: str, module: GPT2LMHeadModel) -> Forward:
        run = real(engine, module)

        def forward(ids: torch.Tensor) -> torch.Tensor:
            if only_batch in (None, len(ids)):
                raise error
            return run(ids)

        return forward

    monkeypatch.setattr(engines, "forward", broken)


# ------------------------------------------------------------------------------- what comes


def test_stages_and_rows_come_as_they_happen(request_: Callable[..., Request]) -> None:
    assert outline(request_()) == [
        "device",
        "loading",
        "perplexity",
        *[*STEPS, "OK"],
        *[*STEPS, "OK"],
    ]


def test_stages_say_what_they_belong_to(request_: Callable[..., Request]) -> None:
    request = request_(replicate=4)
    stages = [event for event in measure(request) if isinstance(event, Stage)]
    assert {(stage.cell, stage.replicate) for stage in stages} == {(request.cell, 4)}
    assert {stage.host for stage in stages} == {socket.gethostname()}
    assert [stage.workload for stage in stages] == [ONE] * (3 + len(STEPS)) + [TWO] * len(STEPS)


def test_a_row_holds_what_was_asked_and_all_that_was_found(
    request_: Callable[..., Request],
) -> None:
    one, two = rows_of(request_(replicate=4))
    for row, workload in ((one, ONE), (two, TWO)):
        assert row.key == (Cell("CPU", "fp32"), workload, 4)
        assert row.run == "local/20261124T120000Z"
        assert (row.outcome, row.reason) == (Outcome.OK, None)
        assert row.started_at and row.finished_at and row.started_at < row.finished_at
        assert row.device and row.device.gpu_type == "CPU"
        assert row.software and row.software.torch == torch.__version__
        assert row.weights == models.load_model("tiny", "fp32", "cpu").weights
        assert row.conditions and row.conditions.load_after is not None
        assert row.energy and row.energy.method
    assert one.finished_at and two.started_at and one.finished_at <= two.started_at


def test_a_row_can_be_unpickled_without_torch(request_: Callable[..., Request]) -> None:
    (row,) = rows_of(request_(ONE))  # as it travels to the driver
    operations = [*pickletools.genops(pickle.dumps(row, protocol=2))]
    names = {str(value).split()[0] for code, value, _ in operations if code.name == "GLOBAL"}
    assert "bench.measured" in names
    assert not {name.split(".")[0] for name in names} & {"torch", "transformers", "numpy"}


def test_a_row_has_times_that_agree_with_each_other(request_: Callable[..., Request]) -> None:
    (row,) = rows_of(request_(TWO))
    found = row.timing
    assert found and len(found.latency_ms_samples) == found.latency_count >= 5
    assert found.latency_ms_min <= found.latency_ms_p50_low <= found.latency_ms_p50
    assert found.throughput_iterations and found.throughput_s and found.throughput_s >= 0.02
    per_s = found.throughput_iterations * TWO.batch_size / found.throughput_s
    assert found.throughput_samples_per_s == pytest.approx(per_s)
    assert found.throughput_tokens_per_s == pytest.approx(per_s * TWO.prompt_tokens)
    assert found.device_ms_samples is None
    assert found.peak_memory_bytes is None


def test_a_cell_computes_with_the_cpus_that_it_was_given(
    request_: Callable[..., Request],
) -> None:
    torch.set_num_threads(2)
    (row,) = rows_of(request_(ONE, threads=1))
    assert row.device and row.device.threads == torch.get_num_threads() == 1


def test_short_sampling_is_a_warning(request_: Callable[..., Request]) -> None:
    (row,) = rows_of(request_(ONE))
    assert "warm-up-not-steady" in codes(row)


def test_a_row_may_leave_its_energy_out(request_: Callable[..., Request]) -> None:
    without = replace(QUICK, energy=ENERGY_NOT_MEASURED)
    (row,) = rows_of(request_(ONE, sampling=without, quality=NO_QUALITY))
    assert row.outcome == Outcome.OK and row.energy is not None
    assert (row.energy.method, row.energy.reason) == ("none", "no energy was asked for")


# ------------------------------------------------------------------------------- quality


def test_quality_is_measured_once_per_model(request_: Callable[..., Request]) -> None:
    one, two = rows_of(request_())
    assert one.quality is two.quality
    assert one.quality and one.quality.perplexity and one.quality.perplexity > 1


def test_quality_that_is_known_is_not_measured_again(request_: Callable[..., Request]) -> None:
    known = Quality("measured before", perplexity=5.0)
    request = request_(known_quality={"tiny": known, "gpt2": Quality("another model's")})
    assert "perplexity" not in outline(request)
    assert [row.quality for row in rows_of(request)] == [known, known]


def test_quality_that_is_not_asked_for_is_not_measured(request_: Callable[..., Request]) -> None:
    request = request_(ONE, quality=NO_QUALITY)
    assert "perplexity" not in outline(request)
    (row,) = rows_of(request)
    assert (row.outcome, row.quality) == (Outcome.OK, None)


def test_a_missing_text_is_a_warning_and_does_not_stop_the_timing(
    request_: Callable[..., Request],
) -> None:
    (row,) = rows_of(request_(ONE, quality=QualityPlan("/missing.txt")))
    assert (row.outcome, bool(row.timing)) == (Outcome.OK, True)
    assert row.quality and "there is no such file" in (row.quality.reason or "")
    assert f"perplexity not measured: {row.quality.reason}" in [w.text for w in row.warnings]


@pytest.mark.parametrize("name", ["fp32", "bf16", "mixed"])
def test_random_weights_have_times_and_a_reason_but_no_warning_and_read_no_text(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def load(_: QualityPlan) -> Text:
        raise AssertionError("a text was loaded for randomly initialised weights")

    small = functools.partial(GPT2Config, n_layer=1, n_embd=8, n_head=1, n_positions=64)
    monkeypatch.setattr(weights, "GPT2Config", small)
    monkeypatch.setattr(quality, "load_text", load)
    (row,) = rows_of(request_(Workload("gpt2:random", prompt_tokens=16), precision=name))
    assert (row.outcome, bool(row.timing)) == (Outcome.OK, True)
    assert row.quality and "randomly initialised weights" in (row.quality.reason or "")
    assert (row.quality.perplexity, row.quality.elapsed_s) == (None, None)
    assert not any("perplexity" in code for code in codes(row))


def test_each_model_is_loaded_once_and_has_a_quality_of_its_own(
    request_: Callable[..., Request], tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    other = models.load_model("tiny", "fp32", "cpu").module
    torch.nn.init.zeros_(other.transformer.wte.weight)
    other.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY_FOLDER / name, folder / name)
    request = request_(ONE, TWO, Workload(str(folder), prompt_tokens=16))
    events = list(measure(request))
    names = [event.name for event in events if isinstance(event, Stage)]
    assert names.count("loading") == names.count("perplexity") == 2
    one, two, three = (event for event in events if isinstance(event, Measurement))
    assert one.quality == two.quality
    assert three.quality and three.quality.perplexity == pytest.approx(other.config.vocab_size)


# ------------------------------------------------------------------------------- forwards


class Forwards:
    """Sees each forward: its ids, its result's type, and under which modes it ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: list[torch.Tensor] = []
        self.types: set[torch.dtype] = set()
        self.inference: set[bool] = set()
        real = engines.forward

        def seen(engine: str, module: GPT2LMHeadModel) -> Forward:
            run = real(engine, module)

            def forward(ids: torch.Tensor) -> torch.Tensor:
                logits = run(ids)
                self.ids.append(ids.clone())
                self.types.add(logits.dtype)
                self.inference.add(torch.is_inference_mode_enabled())
                return logits

            return forward

        monkeypatch.setattr(engines, "forward", seen)


def test_prompts_are_consecutive_real_tokens_used_in_turn(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    forwards = Forwards(monkeypatch)
    rows_of(request_(TWO))
    tiny = models.load_model("tiny", "fp32", "cpu")
    real = tokens.token_ids(tiny, corpus.split("test").text)
    per_prompt = TWO.batch_size * TWO.prompt_tokens
    assert len(forwards.ids) > 8
    for turn, ids in enumerate(forwards.ids):
        start = turn % 8 * per_prompt
        assert ids.shape == (TWO.batch_size, TWO.prompt_tokens)
        assert ids.flatten().tolist() == real[start : start + per_prompt]


def test_more_prompt_tokens_than_the_text_has_begin_it_again(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "prompt_ids", lambda model, fewest: [1, 2, 3])
    forwards = Forwards(monkeypatch)
    rows_of(request_(Workload("tiny", prompt_tokens=4)))
    seen = list(itertools.chain.from_iterable(ids.flatten().tolist() for ids in forwards.ids[:8]))
    assert seen == list(itertools.islice(itertools.cycle([1, 2, 3]), 32))


@pytest.mark.parametrize(
    ("precision", "logits"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("mixed", torch.bfloat16)],
)
def test_forwards_run_at_the_precision_without_gradients(
    request_: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    logits: torch.dtype,
) -> None:
    forwards = Forwards(monkeypatch)
    (row,) = rows_of(request_(ONE, precision=precision))
    assert row.outcome == Outcome.OK
    assert (forwards.types, forwards.inference) == ({logits}, {True})


def modes() -> tuple[Any, ...]:
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.is_autocast_enabled("cpu"),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        gc.isenabled(),
    )


def test_every_mode_is_put_back_at_the_end(request_: Callable[..., Request]) -> None:
    before = modes()
    rows_of(request_(ONE, precision="mixed"))
    assert modes() == before


def test_no_mode_is_left_on_while_the_driver_looks_at_an_event(
    request_: Callable[..., Request],
) -> None:
    before = modes()
    for event in measure(request_(ONE, precision="mixed")):
        assert modes() == before, event


def test_every_mode_is_put_back_when_the_driver_ends_it_early(
    request_: Callable[..., Request],
) -> None:
    before = modes()
    for enough in range(1, 8):
        events = measure(request_(ONE, precision="mixed"))
        list(itertools.islice(events, enough))
        events.close()  # type: ignore[attr-defined]
        assert modes() == before


def test_a_precision_that_this_cpu_emulates_is_a_warning(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for flags in (frozenset(), frozenset({"avx512_bf16"})):
        monkeypatch.setattr(cpu, "flags", lambda flags=flags: flags)
        (row,) = rows_of(request_(ONE, precision="bf16"))
        found[bool(flags)] = "precision-emulated" in codes(row)
    assert found == {False: True, True: False}


# ------------------------------------------------------------------------------- what goes wrong


def test_tf32_on_a_cpu_is_a_row_of_each_workload_and_nothing_is_loaded(
    request_: Callable[..., Request],
) -> None:
    request = request_(precision="tf32")
    assert outline(request) == ["device", "UNSUPPORTED", "UNSUPPORTED"]
    rows = rows_of(request)
    assert [row.workload for row in rows] == [ONE, TWO]
    assert all("a CPU has none" in (row.reason or "") for row in rows)


def test_a_gpu_that_torch_cannot_use_is_unsupported_with_the_build_to_install(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows = rows_of(request_(cell=Cell("P100", "fp32")))
    assert [row.outcome for row in rows] == [Outcome.UNSUPPORTED] * 2
    assert all("whl/cu126" in (row.reason or "") for row in rows)


def test_the_energy_of_the_cpu_is_not_that_of_a_gpu_which_nvml_does_not_see() -> None:
    here = device.acquire(Cell(CPU, "fp32"), nvml.Driver(reason="none"))
    found = measuring.meter_of(replace(here, type="cuda"))
    assert isinstance(found, meter.NoMeter)
    assert "NVML does not see this GPU" in found.reason


@pytest.mark.parametrize(
    "error",
    [
        "CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmStridedBatchedEx(...)`",
        "no kernel image",
    ],
)
def test_a_gpu_that_cannot_multiply_is_unsupported(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    def ones(*_: object, **__: object) -> None:
        raise RuntimeError(f"CUDA error: {error}\nmore")

    monkeypatch.setattr(torch, "ones", ones)
    rows = rows_of(request_(precision="bf16"))
    assert [row.outcome for row in rows] == [Outcome.UNSUPPORTED] * 2
    assert all((row.reason or "").endswith(error) for row in rows)


def test_a_prompt_longer_than_the_model_is_a_row_and_the_next_workload_is_measured(
    request_: Callable[..., Request],
) -> None:
    long, short = rows_of(request_(Workload("tiny", prompt_tokens=257), ONE))
    assert long.outcome == Outcome.UNSUPPORTED
    assert long.reason == "tiny has 256 positions, prompt_tokens = 257"
    assert long.timing is None
    assert long.quality == short.quality is not None
    assert long.weights == short.weights is not None
    assert long.device == short.device is not None
    assert short.outcome == Outcome.OK


def test_a_lack_of_memory_is_a_row_and_the_next_workload_is_measured(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request_(ONE, TWO, Workload("tiny", batch_size=3, prompt_tokens=8), quality=NO_QUALITY)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        MemoryError(),
    ):
        with monkeypatch.context() as patched:
            break_forward(patched, error, only_batch=2)
            rows = rows_of(asked)
        assert [row.outcome for row in rows] == [Outcome.OK, Outcome.OUT_OF_MEMORY, Outcome.OK]
        assert "memory" in (rows[1].reason or "")
        assert rows[1].timing is None
        assert rows[1].weights and rows[1].device


def test_a_lack_of_memory_within_a_capture_is_a_row_and_the_last_one(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch.cuda.graph raises: its __exit__ fails in turn, and hides why."""
    error = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    error.__context__ = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
    break_forward(monkeypatch, error, only_batch=2)
    rows = rows_of(request_(ONE, TWO, Workload("tiny", batch_size=3)))
    assert [row.outcome for row in rows] == [Outcome.OK, Outcome.OUT_OF_MEMORY]
    assert (rows[1].reason or "").startswith("CUDA out of memory")


def test_a_forward_that_fails_is_a_row_and_the_last_one(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_forward(monkeypatch, RuntimeError("CUDA error: device-side assert\nmore"), only_batch=2)
    rows = rows_of(request_(ONE, TWO, Workload("tiny", batch_size=3)))
    assert [row.outcome for row in rows] == [Outcome.OK, Outcome.FAILED]
    assert rows[1].reason == "RuntimeError: CUDA error: device-side assert"
    assert rows[1].device and rows[1].software


def test_a_lost_gpu_is_a_row_and_the_last_one(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_forward(monkeypatch, errors.GpuLostError("GPU is lost"))
    rows = rows_of(request_())
    assert [(row.outcome, row.reason) for row in rows] == [(Outcome.LOST, "GPU is lost")]


def test_every_mode_is_put_back_after_a_failure(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = modes()
    break_forward(monkeypatch, RuntimeError("boom"))
    rows_of(request_(ONE, precision="mixed"))
    assert modes() == before


def test_a_model_that_cannot_be_loaded_is_rows_with_the_remedy_and_the_next_is_measured(
    request_: Callable[..., Request],
) -> None:
    missing = [Workload("/no/model", batch_size=size) for size in (1, 2)]
    rows = rows_of(request_(*missing, ONE))
    assert [row.outcome for row in rows] == [Outcome.FAILED, Outcome.FAILED, Outcome.OK]
    assert [row.workload for row in rows] == [*missing, ONE]
    assert {row.reason for row in rows[:2]} == {"model /no/model: there is no such folder"}


def test_a_perplexity_that_fails_is_a_warning_and_does_not_stop_the_timing(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> Quality:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(quality, "measure_quality", exhausted)
    (row,) = rows_of(request_(ONE))
    assert (row.outcome, bool(row.timing)) == (Outcome.OK, True)
    assert row.quality and row.quality.reason == "CUDA out of memory"
    assert "perplexity not measured: CUDA out of memory" in [w.text for w in row.warnings]


def test_a_gpu_lost_during_the_energy_leaves_the_times_and_ends_it(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise errors.GpuLostError("GPU is lost")

    monkeypatch.setattr(measuring, "measure_energy", lost)
    (one,) = rows_of(request_())
    assert (one.outcome, one.reason) == (Outcome.LOST, "GPU is lost")
    assert one.timing and one.timing.latency_count >= 5
    assert one.energy and (one.energy.method, one.energy.reason) == ("none", "GPU is lost")


def test_what_a_failed_forward_held_is_free_before_its_row_comes(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next workload would find the memory of this one taken."""
    held: list[weakref.ref[torch.Tensor]] = []

    def greedy(engine: str, module: GPT2LMHeadModel) -> Forward:
        def forward(ids: torch.Tensor) -> torch.Tensor:
            activations = torch.zeros(1000)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory")

        return forward

    monkeypatch.setattr(engines, "forward", greedy)
    for event in measure(request_(ONE)):
        if isinstance(event, Measurement):
            assert event.outcome == Outcome.OUT_OF_MEMORY
            assert [reference() for reference in held] == [None]


def test_a_device_of_another_type_measures_nothing_and_says_which_it_is(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Card("Tesla P4", "GPU-1")

    def wrong(*_: object, **__: object) -> None:
        raise errors.WrongDevice("T4", given, "host")

    monkeypatch.setattr(device, "acquire", wrong)
    with pytest.raises(errors.WrongDevice) as caught:
        rows_of(request_())
    copy = pickle.loads(pickle.dumps(caught.value))  # as Ray brings it home
    assert copy.given == given
    assert str(copy) == "asked for T4, found Tesla P4 (P4) on host: GPU-1"


# ------------------------------------------------------------------------------- classify


ERRORS = (
    (Unsupported("tf32 needs\n8.0"), Outcome.UNSUPPORTED, "tf32 needs\n8.0"),
    (TensorgapError("no such folder"), Outcome.FAILED, "no such folder"),
    (
        errors.WrongDevice("T4", Card("Tesla P4", "GPU-1"), "h"),
        Outcome.UNPLACED,
        "asked for T4",
    ),
    (errors.GpuLostError("GPU is lost"), Outcome.LOST, "GPU is lost"),
    (MemoryError(), Outcome.OUT_OF_MEMORY, "out of memory"),
    (torch.OutOfMemoryError("CUDA out of memory.\nx"), Outcome.OUT_OF_MEMORY, "CUDA out of"),
    (RuntimeError("CUDA error: out of memory"), Outcome.OUT_OF_MEMORY, "CUDA error"),
    (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), Outcome.OUT_OF_MEMORY, "CUBLAS_STATUS"),
    (RuntimeError("you: can't allocate memory"), Outcome.OUT_OF_MEMORY, "you: can't"),
    (RuntimeError("mat1 and mat2\nx"), Outcome.FAILED, "RuntimeError: mat1 and mat2"),
    (KeyError("x"), Outcome.FAILED, "KeyError: 'x'"),
    (ValueError(), Outcome.FAILED, "ValueError"),
    (ValueError(" \n "), Outcome.FAILED, "ValueError"),
)


def test_an_error_is_an_outcome_with_its_reason() -> None:
    for error, outcome, reason in ERRORS:
        found, words = classify(error)
        assert found == outcome, error
        assert words.startswith(reason)


def test_a_reason_of_a_fault_is_one_line() -> None:
    assert classify(RuntimeError("first\nsecond")) == (Outcome.FAILED, "RuntimeError: first")


def test_a_failed_row_holds_what_was_asked(request_: Callable[..., Request]) -> None:
    row = failed(request_(replicate=2), TWO, Outcome.TIMED_OUT, "took 900 s")
    assert row.key == (Cell("CPU", "fp32"), TWO, 2)
    assert (row.outcome, row.reason) == (Outcome.TIMED_OUT, "took 900 s")
    assert row.finished_at is not None
    assert (row.timing, row.energy, row.device) == (None, None, None)


# ------------------------------------------------------------------------------- profiles


def profiled(request: Request) -> tuple[list[Measurement], list[Profile]]:
    """The rows of a request, and its profiles, each in the order in which they come."""
    events = list(measure(request))
    return (
        [event for event in events if isinstance(event, Measurement)],
        [event for event in events if isinstance(event, Profile)],
    )


@pytest.mark.usefixtures("small_peaks")
def test_profiles_come_after_all_timing_and_no_row_comes_twice(
    request_: Callable[..., Request],
) -> None:
    request = request_(sampling=WITH_PROFILE, quality=NO_QUALITY, replicate=3)
    events = list(measure(request))
    last = ["profile", "op", "profile", "op"]
    assert [*map(named, events)] == ["device", "loading", *STEPS, "OK", *STEPS, "OK", *last]
    one, two = (e for e in events if isinstance(e, Measurement))
    of_two, of_one = (e for e in events if isinstance(e, Profile))
    for row, profile in ((one, of_one), (two, of_two)):
        assert (row.trace, row.roofline) == (None, None)
        assert (profile.key, profile.run) == (row.key, row.run)
        assert row.finished_at and profile.measured_at and profile.measured_at > row.finished_at
        assert profile.trace.count and not profile.trace.reason and not profile.warnings
        assert profile.roofline and profile.roofline.flops and profile.roofline.lower_bound_ms


@pytest.mark.usefixtures("small_peaks")
def test_another_attention_than_asked_for_is_a_warning_of_the_profile(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = gather.trace
    monkeypatch.setattr(gather, "trace", lambda *a, **k: replace(real(*a, **k), attention="flash"))
    asked = replace(ONE, attention="math")
    _, (profile,) = profiled(request_(asked, sampling=WITH_PROFILE, quality=NO_QUALITY))
    (warning,) = profile.warnings
    assert (warning.code, warning.values) == (
        "attention-differs",
        {"asked": "math", "ran": "flash"},
    )


@pytest.mark.usefixtures("small_peaks")
def test_a_profile_that_fails_has_its_reason_and_costs_no_row(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TensorgapError("nothing to see")

    monkeypatch.setattr(gather, "trace", broken)
    (row,), (profile,) = profiled(request_(ONE, sampling=WITH_PROFILE))
    assert (row.outcome, bool(row.timing)) == (Outcome.OK, True)
    assert (profile.trace.level, profile.trace.reason) == ("none", "nothing to see")
    assert profile.roofline is None


@pytest.mark.usefixtures("small_peaks")
def test_a_row_that_breaks_costs_no_other_its_profile(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_forward(monkeypatch, RuntimeError("the compiler is false"), only_batch=3)
    three, four = (Workload("tiny", batch_size=size) for size in (3, 4))
    rows, profiles = profiled(request_(ONE, TWO, three, four, sampling=WITH_PROFILE))
    assert [row.workload for row in rows] == [ONE, TWO, three]
    assert [row.outcome for row in rows] == [Outcome.OK, Outcome.OK, Outcome.FAILED]
    assert [profile.workload for profile in profiles] == [TWO, ONE]
    for profile in profiles:
        assert profile.roofline and (profile.trace.level, profile.trace.reason) == ("op", None)


def test_a_device_that_broke_gives_the_profiles_before_it_the_reason(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = RuntimeError("CUDA error: device assert")
    monkeypatch.setattr(measuring, "fault_of", lambda found: fault)
    break_forward(monkeypatch, fault, only_batch=2)
    rows, (profile,) = profiled(request_(ONE, TWO, sampling=WITH_PROFILE))
    assert [row.outcome for row in rows] == [Outcome.OK, Outcome.FAILED]
    assert (profile.workload, profile.roofline, profile.trace.level) == (ONE, None, "none")
    assert profile.trace.reason == (
        "the device failed before the profile: RuntimeError: CUDA error: device assert"
    )


@pytest.mark.usefixtures("small_peaks")
@pytest.mark.parametrize("usable", [True, False])
def test_a_fault_in_one_profile_costs_another_only_if_the_device_broke(
    request_: Callable[..., Request], monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    real, calls = gather.trace, itertools.count()

    def broken_once(*arguments: Any, **named: Any) -> Any:
        if not next(calls):
            raise RuntimeError("boom")
        return real(*arguments, **named)

    monkeypatch.setattr(gather, "trace", broken_once)
    monkeypatch.setattr(measuring, "fault_of", lambda _: None if usable else ValueError("broke"))
    _, (two, one) = profiled(request_(sampling=WITH_PROFILE))
    assert (two.workload, one.workload) == (TWO, ONE)
    assert two.trace.reason == "RuntimeError: boom"
    assert one.trace.level == ("op" if usable else "none")


def test_rows_that_failed_have_no_profile(request_: Callable[..., Request]) -> None:
    too_long = Workload("tiny", prompt_tokens=1024)
    rows, profiles = profiled(request_(too_long, sampling=WITH_PROFILE))
    assert [row.outcome for row in rows] == [Outcome.UNSUPPORTED] and not profiles


# ------------------------------------------------------------------------------- engines


def test_new_tokens_have_times_of_their_own(request_: Callable[..., Request]) -> None:
    workload = Workload("tiny", prompt_tokens=16, new_tokens=4)
    request = request_(workload, quality=NO_QUALITY)
    assert outline(request)[2:5] == ["warm-up", "latency", "first token"]
    (row,) = rows_of(request)
    found = row.timing
    assert row.outcome == Outcome.OK and found and found.first_token_ms_samples
    assert found.first_token_ms_p50 and found.per_output_token_ms
    assert found.latency_ms_p50 == pytest.approx(
        found.first_token_ms_p50 + 3 * found.per_output_token_ms
    )


def test_more_tokens_than_positions_are_unsupported(request_: Callable[..., Request]) -> None:
    (row,) = rows_of(request_(Workload("tiny", prompt_tokens=250, new_tokens=7)))
    assert row.outcome == Outcome.UNSUPPORTED
    assert "prompt_tokens = 250 and new_tokens = 7" in str(row.reason)


def test_an_engine_that_this_device_lacks_costs_only_its_rows(
    request_: Callable[..., Request],
) -> None:
    graph = replace(ONE, engine="graph")
    one, two = rows_of(request_(graph, ONE, quality=NO_QUALITY))
    assert (one.outcome, two.outcome) == (Outcome.UNSUPPORTED, Outcome.OK)
    assert "CUDA graphs" in str(one.reason)
