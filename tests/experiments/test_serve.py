"""The router service: invalid input; on NVIDIA Dynamo, a killed worker costs no request, and nothing is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest

from experiments import serve
from experiments.options.parser import parse
from experiments.serve import ServeOptions
from tests.refusal import refused

needs_dynamo = pytest.mark.skipif(
    find_spec("dynamo") is None or find_spec("prometheus_client") is None,
    reason="ai-dynamo-runtime or prometheus-client is not installed: pip install -e '.[live]'",
)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--port 70000", "--port 70000: must be at most 65535"),
        ("--port 9400", "both are 9400"),
        pytest.param("--policy kairo", "kairo", marks=needs_dynamo),
        ("--slo-class 0.5:1:0.1 0.5:2:0.1", "--slo-class"),
        pytest.param("--workers 0P1D", "0P1D", marks=needs_dynamo),
    ],
)
def test_invalid_input_is_named(given: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda _: True)
    with refused(says):
        serve.run(parse(ServeOptions, "serve", "", given.split()))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda _: None)
    with refused("needs the package ai-dynamo-runtime; pip install -e '.[live]'"):
        serve.run(parse(ServeOptions, "serve", "", []))


@needs_dynamo
def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with refused(f"port {port} of 127.0.0.1 is taken"):
            serve.run(parse(ServeOptions, "serve", "", ["--port", str(port)]))


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], other.getsockname()[1]]


def _post(port: int, prompt: list[int], max_tokens: int) -> tuple[int, int]:
    """Ask for a completion: the status, and the number of tokens."""
    asked = json.dumps({"model": "mock", "prompt": prompt, "max_tokens": max_tokens}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", asked, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())["usage"]["completion_tokens"]
    except urllib.error.HTTPError as error:
        return error.code, 0


@needs_dynamo
@pytest.mark.slow
def test_requests_survive_a_killed_worker_and_nothing_is_left(tmp_path: Path) -> None:
    port, metrics_port = _free_ports()
    ports = ["--port", str(port), "--metrics-port", str(metrics_port), "--longest-prompt", "4000"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.serve", *ports], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        workers = [int(pid) for pid in lines[0].split()[2:]]
        assert len(workers) == 4
        assert f"ready: http://127.0.0.1:{port}/v1" in lines[2]
        rng = Random(0)
        lengths = [(rng.randint(1, 3000), rng.randint(1, 20)) for _ in range(60)]
        with ThreadPoolExecutor(60) as pool:
            answers = []
            for number, (prompt, output) in enumerate(lengths):
                answers.append(pool.submit(_post, port, [rng.randint(3, 999) for _ in range(prompt)], output))
                time.sleep(0.05)
                if number == 30:
                    subprocess.run(["kill", "-9", str(workers[3])], check=True)
            assert [answer.result() for answer in answers] == [(200, output) for _, output in lengths]
        assert _post(port, [3] * 4001, 1) == (400, 0)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=5) as answer:
            metrics = answer.read().decode()
        assert "placement_ttft_seconds_count 60.0" in metrics
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "ended\n")
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert not list(tmp_path.iterdir())
