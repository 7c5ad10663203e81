"""Serve a placement policy: an OpenAI-compatible endpoint whose requests it places on workers of NVIDIA Dynamo.

Starts mock workers, our router and Dynamo's HTTP server on this machine's loopback interface, and serves until Ctrl-C.
The model is called "mock" and answers with random words. The metrics are in the format of Prometheus;
docs/grafana.json shows them in Grafana. Needs `pip install -e '.[live]'`.

If a worker is lost, its requests are placed again; without workers of one role, all requests get the status 503.
"""

import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from experiments.options.parser import CommandOptions, check_counts, check_positive, command, option
from experiments.options.slo_options import SloOptions
from experiments.options.worker_options import WorkerOptions
from hardware_profiles import InputError
from policies import PolicySpec

NEEDED = "needs the package {}; pip install -e '.[live]'"


@dataclass(frozen=True, kw_only=True)
class ServeOptions(CommandOptions):
    """Options of `experiments.serve`."""

    policy: str = option("kairos", metavar="P", help="a rule, module:Class, or a trained policy's file")
    machines: WorkerOptions
    longest_prompt: int = option(32_768, metavar="N", help="tokens; longer prompts get the status 400")
    port: int = option(8000, metavar="N", help="of the endpoint")
    metrics_port: int = option(9400, metavar="N", help="of the metrics")
    alarm: float | None = option(
        None,
        metavar="S",
        help="the alarm is on while the prefill nodes need longer for the queued prompts, with the trend of the last "
        "seconds (default: the TTFT SLO; experiments.watch finds a better one)",
    )
    slos: SloOptions

    def __post_init__(self) -> None:
        check_counts(self, "longest_prompt", "port", "metrics_port")
        check_positive(self, "alarm")
        for name in ("port", "metrics_port"):
            if getattr(self, name) > 65_535:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at most 65535")
        if self.port == self.metrics_port:
            raise InputError(f"--port and --metrics-port: both are {self.port}; give two ports")
        if self.slos.slo_class:
            raise InputError("--slo-class: all requests of the endpoint have the same SLOs")


def run(options: ServeOptions) -> None:
    """Serve. Raises InputError (a package is missing, a port is taken, or a worker did not start)."""
    for package, module in (("ai-dynamo-runtime", "dynamo"), ("prometheus-client", "prometheus_client")):
        if find_spec(module) is None:
            raise InputError(NEEDED.format(package))
    from experiments.serving.service import Service

    config = options.machines.config()
    (slos,) = options.slos.slos().classes
    service = Service(
        config,
        PolicySpec.parse(options.policy).make(),
        slos,
        options.port,
        options.metrics_port,
        options.longest_prompt,
        slos.ttft_s if options.alarm is None else options.alarm,
    )

    def ready(workers: list[int]) -> None:
        print(f"workers: processes {' '.join(map(str, workers))}")
        print(f"metrics: http://127.0.0.1:{options.metrics_port}/metrics")
        print(f"ready: http://127.0.0.1:{options.port}/v1, model mock; Ctrl-C ends it", flush=True)

    with tempfile.TemporaryDirectory(prefix="placement-", ignore_cleanup_errors=True) as folder:
        service.run(Path(folder), ready)
    print("ended")


if __name__ == "__main__":
    command(ServeOptions, run, "serve", __doc__)
