"""Tables that were judged wrongly once: a number that cannot be right, and the reason for it."""

from __future__ import annotations

import pytest
from foreign_tables import found_in, verdicts_on

from jobs.report.finding import folded

# A table, the code and verdict that must come of it, and words that its cause must have.
RIGHT: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "units of perplexities are never mixed": (
        "precision,latency_ms,perplexity,context\nfp32,12,40.64,1024\n",
        "perplexity-out-of-range", "inconclusive", ("+0.31 nats per token against 29.94",),
    ),
    "a hundred new tokens read the weights a hundred times": (
        "gpu,precision,prompt_tokens,new_tokens,latency_ms\nT4,fp32,128,100,20\n",
        "latency-below-lower-bound", "reject", ("20.0 ms", "lower bound of the forward pass, 105"),
    ),
    "decode at batch 1 gains by the bytes": (
        "gpu,precision,prompt_tokens,new_tokens,latency_ms\nT4,fp32,1,100,600\nT4,fp16,1,100,590\n",
        "gain-below-hardware", "inconclusive",
        ("the bytes of the weights allow 2.0x", "each of 100 steps", "Tensor Cores do not help"),
    ),
    "ten times slower has no cause": (
        "gpu,precision,latency_ms\nT4,fp32,10\nT4,fp16,100\n",
        "effect-without-cause", "fix", ("at 0.10x the speed of fp32 has no cause",),
    ),
    "6.1 computes fp16 at 1/64": (
        "gpu,precision,latency_ms\nP40,fp32,20\nP40,fp16,45\n",
        "effect-without-cause", "inconclusive", ("1/64 of the float32 rate",),
    ),
    "time that grows with the batch is not launch-bound": (
        "gpu,batch,precision,latency_ms\n"
        "T4,8,fp32,53.91\nT4,8,fp16,26\nT4,32,fp32,203\nT4,32,fp16,104\n",
        "gain-below-hardware", "inconclusive", ("it is not the host's launches",),
    ),
    "a unit slip is named": (
        "gpu,precision,latency_ms\nT4,fp32,12000\nT4,fp16,11000\n",
        "latency-implausibly-high", "fix",
        ("us under the name of ms, or the sum of 1000 runs (a factor of 1000) it is 12.0 ms",),
    ),
    "fp32 was TF32": (
        "gpu,batch,tokens,precision,latency_ms\n"
        "A100,1,128,fp32,4.89\nA100,1,128,fp16,4.47\nA100,8,128,fp32,4.96\n",
        "fp32-on-tensor-cores", "reject", ("fp32 was TF32: 4.96 ms is below", "1.13 ms"),
    ),
    "a P100 has no energy counter": (
        "gpu,precision,latency_ms,energy_mj,energy_method\nP100,fp32,11.7,580,nvml_total_energy\n",
        "energy-counter-absent", "reject", ("NVML has no energy counter on a P100",),
    ),
    "an energy of 0 on a P100 is no counter's": (
        "gpu,precision,latency_ms,energy_mj\nP100,fp32,11.7,0\nP100,fp16,10.4,0\n",
        "energy-counter-absent", "reject", ("An energy of 0 was not measured", "on a P100"),
    ),
    "J under the name of mJ": (
        "gpu,precision,latency_ms,energy_mj\nT4,fp32,11.7,0.58\n",
        "power-below-idle", "reject", ("J under the name of mJ (a factor of 1000) it is 49.6 W",),
    ),
    "s under the name of ms": (
        "gpu,precision,latency_ms,energy_mj\nT4,fp32,0.0117,580\n",
        "latency-below-lower-bound", "reject",
        ("seconds under the name of ms (a factor of 1000) it is 11.7 ms",),
    ),
    "the energy of a token": (
        "gpu,precision,latency_ms,energy_mj\nT4,fp32,11.7,4.53\n",
        "power-below-idle", "reject", ("one of its tokens (a factor of 128) it is 49.6 W",),
    ),
    "tokens for prompts": (
        "gpu,precision,latency_ms,throughput\nT4,fp32,11.7,10496\n",
        "throughput-contradicts-latency", "fix", ("tokens were counted for prompts", "128"),
    ),
    "no GPU draws that": (
        "gpu,precision,latency_ms,energy_mj\nRTX,fp32,60000,952\nRTX,fp16,60000,900\n",
        "power-below-idle", "reject", ("0.0159 W", "the least of any board"),
    ),
    "no known board is that fast": (
        "precision,latency_ms\nfp32,0.011\nfp16,0.013\n",
        "latency-below-lower-bound", "reject", ("on any known board", "a factor of 1000"),
    ),
    "engine and precision change together": (
        "gpu,engine,precision,latency_ms\nA100,eager,fp32,52\nA100,onnxruntime,fp16,75\n",
        "engine-and-precision-differ", "fix", ("eager with fp32 and onnxruntime with fp16",),
    ),
    "twice the batch takes 16 times": (
        "gpu,batch,precision,latency_ms\nT4,1,fp16,10\nT4,2,fp16,160\n",
        "batch-does-not-scale", "fix", ("2x the batch takes 16x the time", "another kernel ran"),
    ),
    "more work in less time": (
        "gpu,batch,precision,latency_ms\nT4,1,fp16,20\nT4,8,fp16,12\n",
        "batch-does-not-scale", "fix", ("The larger batch takes less time",),
    ),
    "the time of a hundred prompts, whatever the batch": (
        "model,batch,time (s)\nx,1,78.04\nx,32,4.86\n",
        "batch-does-not-scale", "inconclusive", ("each time is of the same number of prompts",),
    ),
    "a time that is proportional to the tokens is of generated ones": (
        "batch,tokens,latency_ms\n1,32,419.53\n1,64,806.38\n",
        "latency-implausibly-high", "fix", ("13.1 ms for each, as where they are generated",),
    ),
    "a V100 slower than a T4": (
        "gpu,precision,latency_ms\nV100,fp32,20\nT4,fp32,12\n",
        "gpu-slower-than-lesser", "inconclusive", ("a V100 takes 1.67x the time of a T4",),
    ),
    "another engine proves launches": (
        "gpu,engine,precision,latency_ms\nT4,eager,fp16,11\nT4,tensorrt,fp16,5\n",
        "launch-bound", "fix", ("the host sets the latency",),
    ),
    "the first pays the warm-up": (
        "precision,new_tokens,latency_ms\nfp32,50,423\nfp16,50,261\nbf16,50,256\n",
        "warm-up-suspected", "inconclusive", ("fp32 stands first", "8.46 ms for each new token"),
    ),
    "fp16 overflows": (
        "precision,perplexity\nfp32,29.94\nfp16,nan\n",
        "perplexity-not-finite", "fix", ("float16 overflows above 65504",),
    ),
    "gpt2-medium is judged": (
        "model,precision,perplexity\ngpt2-medium,fp32,217\n",
        "perplexity-out-of-range", "reject", ("the range of gpt2-medium on WikiText-2",),
    ),
    "wikitext2 is WikiText-2": (
        "precision,perplexity,text\nfp32,217,wikitext2\n",
        "perplexity-out-of-range", "reject", ("a context of 128 tokens does not explain it",),
    ),
    "no unit of a CPU or of another maker's GPU gives that": (
        "gpu,precision,latency_ms\nMI250,fp32,100\nMI250,fp16,1\n",
        "effect-without-cause", "fix", ("100.00x the speed of fp32", "less than 16.0x"),
    ),
    "most boards do not gain sixteen times": (
        "model,precision,latency_ms\nx,fp32,472.31\nx,fp16,29.54\n",
        "effect-without-cause", "inconclusive", ("15.99x", "of the 52 known boards do, such as"),
    ),
    "a decode gains no more than its bytes": (
        "gpu,model,precision,tok/s\nRTX 3090,gpt2,fp32,20\nRTX 3090,gpt2,fp16,60\n",
        "effect-without-cause", "inconclusive", ("the hardware allows less than 2.6x",),
    ),
    "mixed gains no more than its half precision": (
        "gpu,precision,latency_ms\nT4,fp32,100\nT4,mixed,3\n",
        "effect-without-cause", "inconclusive", ("33.33x",),
    ),
    "energy and power contradict each other": (
        "gpu,precision,tokens,latency_ms,power_w,mJ per token\nL4,fp32,128,11.2,68,761.6\n",
        "energy-contradicts-power", "fix", ("128 times apart", "the energy is of all tokens"),
    ),
    "an energy of twenty runs": (
        "gpu,model,tokens,latency_ms,energy (J),power (W)\n"
        "T4,x,64,49.59,67.9,69.2\nT4,x,128,59.21,82.3,69.8\nT4,x,256,106.98,115.5,54.4\n",
        "energy-contradicts-power", "fix", ("the energy is of 20 runs, as in each row",),
    ),
    "an energy of a whole run": (
        "model,tok/s,power (W),energy (Wh)\nx,121.3,132,32.25\n",
        "energy-of-a-run", "inconclusive", ("880 s, or of 106689 tokens",),
    ),
    "an energy of several requests": (
        "model,new_tokens,tok/s,power (W),energy (J)\nx,100,50,100,2000\n",
        "energy-of-a-run", "inconclusive", ("or of 10 requests",),
    ),
    "a batch that is not said fits the power": (
        "gpu,precision,latency_ms,power_w,energy_mj\nA100,fp32,15.9,330,656\n",
        "energy-contradicts-power", "inconclusive", ("a batch of 8 would fit",),
    ),
    "a time for each token may be of one prompt": (
        "gpu,precision,batch,new tokens,ms/token\nA100,fp32,32,128,0.28\n",
        "latency-below-lower-bound", "inconclusive", ("8.96 ms for a step",),
    ),
    "tokens of a stated batch are made no faster than the weights are read": (
        "gpu,model,precision,batch,new tokens,tok/s\nT4,gpt2,fp16,1,128,100000\n",
        "throughput-above-upper-bound", "reject", ("100000 tokens/s",),
    ),
    "another model may be meant": (
        "precision,perplexity\nfp32,8.5\n",
        "perplexity-out-of-range", "inconclusive", ("does not name its model",),
    ),
    "a batch that is assumed may be another": (
        "gpu,precision,latency_ms,throughput\nT4,fp32,20,400\n",
        "throughput-contradicts-latency", "inconclusive", ("A batch of 8 would fit",),
    ),
    "a power in mW": (
        "gpu,precision,latency_ms,power_w\nA100,fp32,12,186000\n",
        "power-above-limit", "reject", ("mW under the name of W",),
    ),
    "a first run far slower than all others": (
        "gpu,precision,latency_ms\nA100,fp32,92\nA100,tf32,11.2\nA100,fp16,11\nA100,bf16,11.1\n",
        "warm-up-suspected", "inconclusive", ("fp32 stands first and is 8.21x slower",),
    ),
    "a row that failed is a finding": (
        "gpu,batch,precision,latency_ms\nT4,1,fp32,12\nT4,64,fp32,OOM\n",
        "not-measured", "inconclusive", ("the memory did not suffice",),
    ),
    "tok/s at batch 1 are the time of a step": (
        "gpu,model,precision,tok/s\nA100,gpt2,fp32,96.2\nA100,gpt2,fp16,99.6\n",
        "launch-bound", "inconclusive", ("launch-bound",),
    ),
    "which model has such a step decides whether it waits": (
        "gpu,tok/s\nRTX 4070,70\n", "launch-bound", "inconclusive", ("Of gpt2, which is assumed",),
    ),
    "a decode that gains nothing is told by its tok/s": (
        "gpu,model,precision,tok/s\nA100,gpt2,fp32,96.2\nA100,gpt2,fp16,99.6\n",
        "gain-below-hardware", "inconclusive", ("each step computes one token",),
    ),
    "requests/s with new tokens are the time of a request": (
        "gpu,model,precision,prompt_tokens,new_tokens,tok/s\nA100,gpt2,fp16,10,100,99.6\n",
        "launch-bound", "inconclusive", ("launch-bound",),
    ),
    "what was done to a model explains more than what is right": (
        "model,method,context,perplexity\ngpt2,float,1024,29.96\ngpt2,8w8f,1024,2645.2\n",
        "perplexity-out-of-range", "inconclusive", ("quantised or tuned",),
    ),
    "max-autotune is no tuning": (
        "model,engine,perplexity\ngpt2,max-autotune,2.6\n",
        "perplexity-out-of-range", "reject", ("2.6",),
    ),
    "a unit on which a throughput agrees is no slip": (
        "gpu,new tokens,latency (s),tok/s\nT4,20,250.97,0.0797\n",
        "latency-implausibly-high", "inconclusive", ("so the unit is right: a slow program",),
    ),
    "a model that is assumed rejects nothing in a table of unknown columns": (
        "gpu,use mask,precision,batch,tokens,latency_ms\nT4,True,fp16,4,128,0.9\n",
        "latency-below-lower-bound", "inconclusive", ("the table does not name its model",),
    ),
    "a model that is assumed is told": (
        "gpu,precision,batch,tokens,latency_ms\nRTX 3080,fp16,32,1000,16.4\n",
        "latency-below-lower-bound", "reject", ("for gpt2, which is assumed",),
    ),
    "a smaller model gives that many prompts": (
        "gpu,precision,tokens,samples/s\nT4,fp32,384,140\n",
        "throughput-above-upper-bound", "inconclusive", ("140 prompts/s",),
    ),
    "a model that is named gives no more": (
        "gpu,model,precision,tokens,samples/s\nT4,gpt2,fp32,384,140\n",
        "throughput-above-upper-bound", "reject", ("140 prompts/s",),
    ),
    "a token takes no 20 s": (
        "gpu,model,precision,tok/s\nT4,gpt2,fp32,0.05\n",
        "latency-implausibly-high", "fix", ("20000 ms for each token, by the throughput,",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", RIGHT)
def test_a_table_is_judged_rightly(what: str) -> None:
    text, code, verdict, words = RIGHT[what]
    found = [f for f in found_in(text) if f.code == code]
    assert found, sorted({f.code for f in found_in(text)})
    assert str(found[0].verdict) == verdict
    for word in words:
        assert word in found[0].text


@pytest.mark.parametrize(
    ("text", "silent"),
    [
        # 37.37 is lm-eval's number per word.
        ("precision,perplexity,context\nfp32,37.37,1024\n", "perplexity-out-of-range"),
        # What is rejected is no evidence: 580 mJ in 0.0117 ms are no power.
        ("gpu,precision,latency_ms,energy_mj\nT4,fp32,0.0117,580\n", "power-above-limit"),
        ("gpu,precision,latency_ms\nT4,fp32,12000\nT4,fp16,11000\n", "launch-bound"),
        # Tables as people write them, of lengths that are told.
        ("gpu,precision,sequence_length,latency_ms\nT4,fp32,8,3.0\n", "latency-below-lower-bound"),
        # PyTorch's way with float16 is no argument about another program, nor for a loss.
        ("gpu,engine,precision,latency_ms\nP100,tensorrt,fp32,9\nP100,tensorrt,fp16,5\n",
         "precision-storage-only"),
        ("gpu,precision,latency_ms\nP40,fp32,20\nP40,fp16,45\n", "precision-storage-only"),
        # A time of a token of all prompts falls as the batch grows.
        ("precision,batch,time per token (ms)\nfp16,1,239\nfp16,8,32\nfp16,32,9.9\n",
         "batch-does-not-scale"),
        # Energy above idle says nothing of the mean power; a peak is no mean.
        ("gpu,precision,latency_ms,net energy (mJ)\nT4,fp32,20,100\n", "power-below-idle"),
        ("gpu,precision,latency_ms,peak power (W)\nT4,fp32,20,85\n", "power-above-limit"),
        ("gpu,precision,batch,latency_ms,energy (J)\nA100,fp32,64,100,10\n", "power-above-limit"),
        # Nothing of a text other than WikiText-2 is published here.
        ("model,precision,latency_ms,C4 PPL\ngpt2,fp32,12,80\n", "perplexity-out-of-range"),
        # Whatever takes 300 ms is not the launches of 124 M weights.
        ("gpu,precision,latency_ms\nT4,fp32,300\nT4,fp16,200\nT4,bf16,200\n",
         "warm-up-suspected"),
        # fp16 gains what half the bytes give, and a time that falls is no flat one.
        ("gpu,model,precision,tok/s\nA100,gpt2,fp32,96\nA100,gpt2,fp16,180\n", "launch-bound"),
        ("gpu,batch,precision,latency_ms\nT4,1,fp16,400\nT4,8,fp16,50\n", "launch-bound"),
        # Each step reads all weights, for however many prompts.
        ("gpu,batch,new_tokens,tok/s\nL4,1,300,29\nL4,2,300,58\nL4,8,300,225\n", "launch-bound"),
        # Requests beside each other, and prompts of a batch that is not said: no time of one.
        ("gpu,model,precision,tok/s\nA100,gpt2,fp16,20000\n", "launch-bound"),
        ("gpu,model,precision,batch,tok/s\nA100,gpt2,fp16,64,900\n", "launch-bound"),
        ("gpu,model,precision,samples/s\nA100,gpt2,fp16,96\n", "launch-bound"),
        # The energy of a request is of more than the one token whose time is known.
        ("gpu,precision,TTFT (ms),TPOT (ms),power (W),energy per inference (J)\n"
         "RTX 3060,bf16,12136,111.5,38.91,1078.3\n", "energy-contradicts-power"),
        ("gpu,precision,TPOT (ms),energy per inference (J)\nT4,fp16,11,80\n",
         "power-above-limit"),
        # Launches take no longer for more tokens, nor less time in another precision.
        ("gpu,precision,tokens,latency_ms\nV100,fp16,256,3.1\nV100,fp16,512,12.4\n",
         "launch-bound"),
        ("gpu,precision,tokens,latency_ms\nT4,fp32,128,24\nT4,fp16,128,5.69\n",
         "launch-bound"),
        # 40 J at 100 W and 50 tok/s are 20 tokens.
        ("model,tok/s,power (W),energy (J)\nx,50,100,40\n", "energy-of-a-run"),
        ("model,new_tokens,tok/s,power (W),energy (J)\nx,100,50,100,200\n", "energy-of-a-run"),
        # A tuned model has another perplexity.
        ("model,engine,perplexity\ngpt2,fine-tuned,17.1\n", "perplexity-out-of-range"),
    ],
)  # fmt: skip
def test_what_must_not_be_said_is_not(text: str, silent: str) -> None:
    assert silent not in verdicts_on(text)


@pytest.mark.parametrize(
    "text",
    [
        "gpu,precision,latency_ms\nT4,fp32,10\nT4,fp16,100\n",
        "gpu,precision,latency_ms\nP40,fp32,20\nP40,fp16,45\n",
        "gpu,precision,latency_ms\nT4,fp32,100\nT4,fp16,3\n",
        "model,precision,latency_ms\nx,fp32,472.31\nx,fp16,29.54\n",
        "precision,latency_ms\nfp32,0.011\nfp16,0.013\n",
        "gpu,precision,latency_ms,energy_mj\nRTX,fp32,60,0.952\nRTX,fp16,60,0.9\n",
        "precision,new_tokens,latency_ms\nfp32,50,423\nfp16,50,261\nbf16,50,256\n",
        "precision,throughput\nfp32,324.16\nfp16,307.11\n",
        "gpu,model,precision,tok/s\nA100,gpt2,fp32,96.2\nA100,gpt2,fp16,99.6\n",
        "gpu,precision,latency_ms\nT4,fp32,12.0\nT4,fp16,11.9\n",
        "gpu,precision,time (s)\nT4,fp32,0.011\nT4,fp16,0.013\n",
    ],
)
def test_no_effect_is_accepted_that_nothing_bears(text: str) -> None:
    assert verdicts_on(text)["effect"] == "inconclusive"


def test_without_fp32_the_best_baseline_is_named_and_used() -> None:
    text = (
        "gpu,precision,latency_ms\nA100,tf32,4.89\nA100,fp16,4.47\nT4,fp32,11.45\nT4,fp16,10.51\n"
    )
    effects = {f.subject.split()[0]: f.text for f in found_in(text) if f.code == "effect"}
    assert effects["A100"].startswith("fp16 is 1.09x as fast as tf32")
    assert effects["T4"].startswith("fp16 is 1.09x as fast as fp32")
    # Where bf16 is only emulated, it is no baseline.
    (emulated,) = (f for f in found_in("gpu,precision,time (s)\nT4,bf16,1.29\nT4,fp16,0.30\n")
                   if f.code == "precision-emulated")  # fmt: skip
    assert "at 0.23x the speed of fp16" in emulated.text


def test_advice_looks_at_what_is_there() -> None:
    three = "precision,latency_ms\nfp32,11.7\nfp16,14.4\nmixed,13.5\n"
    advice = [note.text for f in found_in(three, "T4") for note in f.do]
    assert advice and not any("fp16 beside it" in text for text in advice)
    batches = "gpu,batch,precision,latency_ms\n" + "".join(
        f"V100,{batch},{p},{ms}\n" for batch, ms in ((1, 10), (8, 11)) for p in ("fp32", "fp16")
    )
    (first, *_) = (f for f in found_in(batches) if f.code == "launch-bound")
    assert not any("larger batches" in note.text for note in first.missing)


def test_an_assumed_length_decides_nothing_alone() -> None:
    # 3 ms are too few for 128 tokens on a T4, and enough for 8.
    for column, verdict in ((",128", "reject"), ("", "inconclusive")):
        head = "gpu,precision,latency_ms" + (",tokens" if column else "")
        found = verdicts_on(f"{head}\nT4,fp32,2.0{column}\n")
        assert found["latency-below-lower-bound"] == verdict
    # Of one batch of a table, fp32 was TF32: of its others it is likely.
    rows = "A100,1,128,fp32,4.89\nA100,8,128,fp32,4.96\n"
    found_of = found_in(f"gpu,batch,tokens,precision,latency_ms\n{rows}")
    told = {f.subject: str(f.verdict) for f in found_of if f.code == "fp32-on-tensor-cores"}
    assert sorted(told.values()) == ["fix", "reject"]


# ------------------------------------------------------------------------- a token's weights


@pytest.mark.parametrize(
    ("line", "verdict", "words"),
    [
        ("llama 7B,fp16,13.5,RTX 4090,61", "accept", "read 824 GB/s, 82% of the bandwidth"),
        ("Llama-2-7B,fp16,,T4,61", "inconclusive", "854 GB/s, 2.67 times the bandwidth of T4"),
        ("Llama-2-7B,fp16,,RTX 4090,20", None, ""),  # far from the memory's rate
        ("Mixtral-8x7B,fp16,,A100,61", None, ""),  # of experts only some are read
    ],
)
def test_each_new_token_reads_the_weights_of_a_model(
    line: str, verdict: str | None, words: str
) -> None:
    text = f"model,dtype,size (GB),gpu,tok/s\n{line}\n"
    found = [f for f in found_in(text, new_tokens=128) if "weights" in f.code]
    assert [(f.verdict, words in f.cause.text) for f in found] == (
        [(verdict, True)] if verdict else []
    )


def test_a_throughput_of_tokens_is_told_as_the_time_of_a_token() -> None:
    text = "gpu,model,precision,tok/s\nT4,gpt2,fp32,20\nT4,gpt2,fp16,30\n"
    (effect,) = (f for f in found_in(text) if f.code == "effect")
    assert "50.0 ms -> 33.3 ms for each token" in effect.evidence[0].text
    (launch, *_) = (f for f in found_in(text.replace("T4", "A100").replace("20", "90")))
    assert "11.1 ms for each token, by the throughput, is" in launch.evidence[0].text


def test_runs_are_counted_only_where_rows_agree() -> None:
    head = "gpu,model,tokens,latency_ms,energy (J),power (W)\n"
    rows = "T4,x,64,50,67.9,69.2\nT4,x,128,59.21,20.3,69.8\nT4,x,256,107,515,54.4\n"
    told = [f.text for f in found_in(head + rows) if f.code == "energy-contradicts-power"]
    assert told and not any("runs" in text for text in told)


def test_a_row_without_a_precision_is_told_without_it() -> None:
    text = (
        "gpu,model,batch,latency_ms,energy (J/query)\nT4,x,1,100,6\nT4,x,2,110,3.2\nT4,x,4,OOM,\n"
    )
    found = {f.code: f.text for f in found_in(text)}
    assert found["energy-over-batch"].startswith("The energy of a prompt falls to 0.53x")
    assert found["not-measured"].startswith("Not measured: ")
    text = "gpu,model,batch,latency_ms\nT4,x,1,10\nT4,x,2,160\n"
    (found_one, *_) = (f for f in found_in(text) if f.code == "batch-does-not-scale")
    assert found_one.text.startswith("2x the batch takes 16x the time.")


def test_runs_keep_their_brackets() -> None:
    runs = ("(GPU temp (C)=35)", "(GPU temp (C)=37)")
    assert folded(f"T4   {run}" for run in runs) == ("T4   (GPU temp (C)=35 and GPU temp (C)=37)",)
    rows = [
        f"T4   gpt2 eager batch 1 x {n} tokens   (table {t})" for n in (128, 384) for t in (1, 2)
    ]
    assert folded(rows) == ("T4   gpt2 eager batch 1 x 128 and 384 tokens   (table 1 and table 2)",)
    models = [f"BERT (B={size}, L=512)" for size in (1, 8)]
    assert folded(models) == ("BERT (B=1, L=512) and (B=8, L=512)",)
