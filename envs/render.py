"""Renderings of the cluster: a text table, or an image of the queues."""

import numpy as np
from numpy.typing import NDArray

from envs.cluster import RouterView

_ROLES = ("prefill", "decode")


def _role(view: RouterView, node: int) -> str:
    return _ROLES[view.topology.decodes[node]]


def node_table(view: RouterView) -> str:
    """A table with one line per node: queue and batch, as known to the router."""
    counters = view.counters
    lines = [
        f"t = {view.now_s:.3f} s",
        f"{'node':>4} {'role':8} {'prompts':>8} {'tokens':>8} {'deflected':>9} {'decodes':>8} {'batch':>6} {'KV':>7}",
    ]
    for node in range(view.topology.nodes):
        report = view.report(node)
        kv_share = report.kv_used_tokens / view.topology.kv_capacity_tokens[node]
        lines.append(
            f"{node:4} {_role(view, node):8} {counters.queued_prompts[node]:8}"
            f" {counters.queued_prompt_tokens[node]:8} {counters.deflected_requests[node]:9}"
            f" {counters.decode_requests[node]:8} {report.decode_batch:6} {kv_share:7.1%}"
        )
    return "\n".join(lines) + "\n"


def draw_nodes(view: RouterView) -> NDArray[np.uint8]:
    """Bar charts of queued prompt tokens and unfinished decodes per node; uint8, shape (320, 640, 3)."""
    # Importing matplotlib takes half a second, and training never draws.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    queue, decodes = figure.subplots(1, 2)
    nodes = range(view.topology.nodes)
    labels = [f"{_role(view, node)[0].upper()}{node}" for node in nodes]
    colours = ["#0072B2" if _role(view, node) == "prefill" else "#E69F00" for node in nodes]
    queue.bar(labels, view.counters.queued_prompt_tokens, color=colours)
    queue.set_title("queued prompt tokens", fontsize=10)
    queue.set_ylim(0, max(4096, *view.counters.queued_prompt_tokens))
    decodes.bar(labels, view.counters.decode_requests, color=colours)
    decodes.set_title("unfinished requests that decode there", fontsize=10)
    decodes.set_ylim(0, max(64, *view.counters.decode_requests))
    figure.suptitle(f"t = {view.now_s:.2f} s", fontsize=10)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return pixels[:, :, :3].copy()
