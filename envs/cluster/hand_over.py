"""The interface between an engine and the transfers of KV."""

from typing import Protocol

from envs.cluster.request import Request


class KvSource(Protocol):
    """A source of KV that a node need not compute: other nodes, and its prefix cache."""

    def send(self, request: Request) -> None:
        """Send the KV of a request: its decode node has reserved room."""

    def wait(self, node: int) -> None:
        """Called whenever a node's scheduler leaves requests waiting for room."""

    def cached_tokens(self, request: Request, node: int) -> int:
        """Tokens of a prompt with block hashes that the node's prefix cache holds."""


class HandOver(KvSource, Protocol):
    """A source of KV that also takes over computed prompts."""

    def prefilled(self, request: Request) -> None:
        """Called when a prompt that decodes on another node is computed; its KV stays until `Engine.release`."""

    def prefilled_here(self, request: Request) -> None:
        """Called when a prompt is computed on its decode node."""

    def chunk_computed(self, request: Request) -> None:
        """Called, with KV streaming, when a chunk of a prompt that decodes on another node is computed."""
