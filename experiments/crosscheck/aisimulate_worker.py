"""Replays by NVIDIA's AISimulate: a job as JSON on standard input, its result as JSON on standard output.

`experiments.against_aisimulate` runs this file with the interpreter of an environment that has AISimulate, so it
imports nothing but that and the standard library. It takes AISimulate's public path: a configuration, a Mooncake trace,
`run_prediction`. Exit code 3: something is not installed there.
"""

import json
import sys
import tempfile
from itertools import count, islice
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

_HASH_BLOCK_TOKENS = 512


def trace_lines(requests: list[list[float]]) -> list[str]:
    """Rows (arrival_ms, prompt tokens, output tokens) as a Mooncake trace in which no two prompts share a block."""
    lines, used = [], count()
    for arrival_ms, prompt_tokens, output_tokens in requests:
        row = {"timestamp": arrival_ms, "input_length": int(prompt_tokens), "output_length": int(output_tokens)}
        blocks = -(-int(prompt_tokens) // _HASH_BLOCK_TOKENS)
        lines.append(json.dumps(row | {"hash_ids": list(islice(used, blocks))}))
    return lines


def configuration(job: dict[str, Any], trace: Path) -> dict[str, Any]:
    """The job as AISimulate's configuration.

    A prefill worker takes one prompt at a time, AISimulate's default; nothing is cached, and nothing could be.
    """

    def workers(role: str, **scheduler: int) -> dict[str, Any]:
        parallelism = {"replicas": job[f"{role}_nodes"], "tensor": job["tp"]}
        return {"parallelism": parallelism, "scheduler": scheduler, "kv_cache": {"prefix_caching": False}}

    return {
        "traffic": {
            "source": {"type": "trace", "paths": [str(trace)], "format": "mooncake"},
            "load": {"type": "trace_timestamps"},
        },
        "engine": {
            "mode": "disaggregated",
            "model": job["model"],
            "hardware": job["system"],
            "backend": job["backend"],
            "kv_transfer": {"bandwidth_gb_per_second": job["link_gb_per_s"]},
            "workers": {
                "prefill": workers("prefill", max_batched_tokens=job["token_budget"], max_sequences=1),
                "decode": workers("decode", max_sequences=256),
            },
        },
    }


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Replay a job's first hundred requests to warm up, then all of them once for each of its `records`.

    Returns:
        "version"; "runs", for each of `records` (is a record of each request kept?) the seconds by AISimulate's own
        clock, those of the whole call, and the CPU seconds of the process in it, all threads; "records", those kept.
    """
    import aisimulate
    from aisimulate.config import CorePredictionConfig
    from aisimulate.predict import run_prediction
    from aisimulate.runner import EngineReplayRunnerFactory
    from aisimulate.sweeper.replay import ReplayOutputRequirements

    factory = EngineReplayRunnerFactory()
    records: list[dict[str, Any]] = []

    def replay(trace: Path, keep: bool) -> dict[str, float]:
        nonlocal records
        config = CorePredictionConfig.model_validate(configuration(job, trace))
        wanted = ReplayOutputRequirements(include_raw_report=True, capture_per_request=keep)
        wall_s, cpu_s = perf_counter(), process_time()
        report = run_prediction(config, stack="engine", runner_factory=factory, output_requirements=wanted).report
        wall_s, cpu_s = perf_counter() - wall_s, process_time() - cpu_s
        if keep:
            records = report.metadata["native_report"]["per_request"]
        return {"own_s": report.metrics["wall_time_ms"] / 1e3, "wall_s": wall_s, "cpu_s": cpu_s}

    with tempfile.TemporaryDirectory() as folder:
        short, whole = Path(folder, "short.jsonl"), Path(folder, "whole.jsonl")
        lines = trace_lines(job["requests"])
        short.write_text("\n".join(lines[:100]) + "\n")
        whole.write_text("\n".join(lines) + "\n")
        replay(short, False)
        runs = [replay(whole, keep) for keep in job["records"]]
    return {"version": aisimulate.__version__, "runs": runs, "records": records}


if __name__ == "__main__":
    try:
        result = run(json.load(sys.stdin))
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed", file=sys.stderr)
        sys.exit(3)
    print(json.dumps(result))
