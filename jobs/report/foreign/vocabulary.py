"""The words by which people name what a column of a table holds.

Phrases are separated by commas, words by blanks; a header is compared word by word in lower case.
"""

from collections.abc import Mapping


def words(text: str) -> frozenset[str]:
    """Single words."""
    return frozenset(text.split())


def phrases(text: str) -> list[tuple[str, ...]]:
    """Phrases of words."""
    return [tuple(phrase.split()) for phrase in text.split(", ")]


# Field -> the phrases that name it, of which the longest that is there counts.
LABELS: Mapping[str, str] = {
    "precision": "precision, dtype, format, data type, datatype, torch dtype, quant, quantization,"
    " quantisation, compute type, weights dtype, weight dtype, model dtype, numeric format, fp,"
    " precision type, prec, param dtype, floating point",
    "gpu_count": "num gpus, n gpus, number of gpus, gpu count, num gpu, ngpus, ngpu, tp, tp size,"
    " tensor parallel, tensor parallel size, tensor parallelism, world size",
    "gpu": "gpu, gpu type, gpu name, gpu model, device, device name, hardware, accelerator, card,"
    " machine, gpus, gpu card, graphics card, device type, hw, gpu device",
    "model": "model, model name, network, arch, architecture, model id, checkpoint, models",
    "engine": "engine, backend, framework, implementation, runtime, provider, execution provider,"
    " inference engine, library, executor, compiler, toolkit",
    "attention": "attention, attn, attn implementation, attention implementation, sdpa",
    "batch_size": "batch, batch size, batchgröße,"
    " batchsize, bs, bsz, bsize, concurrent seqs, concurrency,"
    " num seqs, concur, conc,"
    " concurrent sequences, concurrent requests, num sequences, number of sequences, n seqs,"
    " per device batch size, eval batch size, max batch size",
    "prompt_tokens": "tokens, input, input seqlen, prompt seqlen, prefill length, prefill len,"
    " context tokens, prompt tokens, prompt"
    " length, prompt"
    " len, prompt size, input tokens, input length, input len, seq len, seqlen, seq length,"
    " sequence length, sequence len, seq, sequence, max seq len, max seq length, max sequence"
    " length, input size, token length, n tokens, num tokens, length, seq lengths, input seq len,"
    " input sequence length, prompt, n prompt, isl, sl",
    "new_tokens": "new tokens, new tok, new toks, response length, completion length, output,"
    " output seqlen, tokens generated, generated tokens, output tokens, output length, output len,"
    " gen len, gen length, max new tokens, num new tokens, generation length, gen tokens, tokens"
    " out, completion tokens, decode tokens, output seq len, output sequence length, n new"
    " tokens, generated, n gen, osl, generate length, decode length",
    "context": "context, ctx, context length, context window, quality context, ctx len, n ctx,"
    " window,"
    " context size, context len",
    "stride": "stride",
    "text": "text, tasks, dataset, corpus, task, quality text, eval dataset, evaluation set, data",
    "split": "split",
    "run": "run, sweep",
    "trial": "trial, rep, repetition, replicate, seed, run id, run number, try, round",
    "outcome": "outcome, status, state",
    "reason": "reason, error message",
    "energy_methods": "energy methods, energy method, meter, energy meter, power meter,"
    " measurement method, energy source, energy tool",
    "configuration": "configuration, config, setup, setting, settings, variant, method, approach,"
    " name, label,"
    " experiment, case, test, system, option, mode, optimization, optimisation",
    "metric": "metric, measure, measurement, quantity, metric name, indicator, statistic, property",
    "value": "value, result, val, score, reading, results, values",
    "unit": "unit, units, metric unit",
    "speedup_low": "speedup low",
    "speedup_high": "speedup high",
    "energy_ratio_low": "energy ratio low",
    "energy_ratio_high": "energy ratio high",
}
# The same of a quantity, and the dimension of its unit.
QUANTITIES: Mapping[str, tuple[str, str]] = {
    "latency_ms": (
        "time",
        "latency, lat, time, duration, elapsed, elapsed time, inference time, forward"
        " time, inference, forward, latencies, timing, batch time, batch latency, step time, e2e,"
        " e2e latency, end to end latency, wall time, walltime, wall clock, generation time, run"
        " time, total time, total latency, response time, execution time, exec time, gpu time,"
        " forward pass, forward latency, generate, model latency, inference latency, generation"
        " latency, request latency, avg inference, time taken, processing time, iteration time,"
        " predict time",
    ),
    "first_token_ms": (
        "time",
        "ttft, first token, time to first token, first token latency, prefill, prefill latency,"
        " prefill time, prompt processing, prompt latency, first token time, prefill forward",
    ),
    "per_output_token_ms": (
        "time",
        "tpot, time per output token, per output token, itl, inter token latency, decode"
        " latency, decode time, per token latency, time per token, latency per token, token"
        " latency, decode, tbt, time between tokens, time per tok, itl latency",
    ),
    "throughput_per_s": (
        "rate",
        "inference throughput,"
        " throughput, tput, thpt, speed, thruput, inference speed, generation speed, decode"
        " speed, decoding speed, throughputs, decode throughput, generation throughput",
    ),
    "energy_mj": (
        "energy",
        "inference energy,"
        " energy, energy consumption, consumption, energy consumed, energy used, total energy,"
        " gpu energy, energy usage, energy cost, joules, gpu energy consumption, net energy",
    ),
    "mean_w": (
        "power",
        "inference power,"
        " power, power draw, mean power, average power, gpu power, power consumption, power"
        " usage, load power, power avg, draw, watts, active power",
    ),
    "idle_w": (
        "power",
        "idle, idle power, energy idle, idle draw, power idle, idle power draw",
    ),
    "power_limit_w": (
        "power",
        "power limit, tdp, power cap, gpu power limit, gpu power cap, gpu tdp, cap",
    ),
    "perplexity": (
        "",
        "perplexity, ppl, perplexität,"
        " quality perplexity, perplexities, wikitext ppl, wikitext perplexity,"
        " wiki ppl, test ppl, test perplexity, ppl score, wikitext2 ppl, wikitext2 perplexity,"
        " wiki2 ppl, wiki text2 ppl, wiki text2 perplexity, wiki text ppl, wiki text perplexity",
    ),
    "bits_per_byte": (
        "",
        "bits per byte, bits byte, bpb, bit b, bits b",
    ),
    "memory_mb": (
        "memory",
        "mem, memory, vram, peak memory, gpu memory, memory usage, gpu mem, peak mem, max"
        " memory, memory footprint, peak vram, vram usage, max memory used, gpu memory usage,"
        " memory used, mem usage, max memory allocated, peak gpu memory, ram",
    ),
    "size_mb": (
        "memory",
        "size, model size, weights, weights size, weight size, file size, params size, model"
        " weight, size on disk, checkpoint size, footprint",
    ),
    "energy_window_s": (
        "time",
        "energy window, measurement window, window of the energy",
    ),
    "duration_s": (
        "time",
        "period, log duration, benchmark duration, test duration",
    ),
}
BY_DIMENSION = {
    "time": "latency_ms",
    "rate": "throughput_per_s",
    "energy": "energy_mj",
    "power": "mean_w",
    "memory": "memory_mb",
}
# The unit of a quantity whose name alone does not say it, and so must be told as an assumption.
USUAL_UNIT = {"time": "ms", "energy": "mJ", "power": "W", "memory": "MB"}
STATISTICS = {
    "median": "median med",
    "mean": "mean avg average",
    "best": "min minimum best fastest",
    "tail": "p999 p100 max maximum worst slowest tail",
    "spread": "std stdev stddev sd var variance cv iqr se sem err error ci ci95 deviation spread"
    " jitter"
    " uncertainty",
}
STATISTIC = {word: name for name, text in STATISTICS.items() for word in text.split()}
PREFERRED = ("median", "", "mean", "best")  # of several columns of one quantity; no other is read
# What is derived from other columns.
RATIO = words(
    "speedup speedups gain gains improvement improvements compression ratio relative reduction"
    " advantage overhead vs versus factor increase decrease saving savings diff difference delta"
    " change percent utilization utilisation util utilized normalized efficiency degradation"
    " drop scaling bound"
)
# Whose time is not that of a request.
NOT_A_LATENCY = words(
    "load loading build compile compilation warmup warm train training epoch tokenization tokenizer"
    " tokenize tokenizing preprocess preprocessing postprocess postprocessing queue queueing wait"
    " waiting quantization export conversion convert network attention mlp embedding layer layers"
    " kernel kernels softmax copy transfer h2d d2h startup init initialization import download"
    " price cost"
)
# Parts and properties of a machine or a model, of which nothing is compared.
NOT_COMPARED = words(
    "temp temperature clock clocks mhz cache params parameters param vocab vocabulary dollar usd"
    " price cost dram tflops gflops flops tflop gflop flop bandwidth tokenization"
    " preprocessing postprocessing compilation"
)
# Of a perplexity that is not of WikiText-2.
OTHER_TEXTS = words(
    "c4 lambada ptb penn treebank pile bookcorpus owt openwebtext enwik8 enwik9 text8 lm1b 1bw"
    " wikitext103 wt103 cc news alpaca dolly"
)
# Above what a program writes: config.batch_size, eval_loss, summary/latency.
PREFIXES = words("config summary eval report metrics results perf benchmark stats")
# What says nothing that tells a column apart.
FILLER = words(
    "of the in for a an to at with on and by used measured using total gpu model inference"
    " number num no per size torch all host cpu timing request requests"
)

LABEL = {phrase: name for name, text in LABELS.items() for phrase in phrases(text)}
QUANTITY = {phrase: name for name, (_, text) in QUANTITIES.items() for phrase in phrases(text)}
KNOWN = sorted({" ".join(phrase) for phrase in (*LABEL, *QUANTITY)})
