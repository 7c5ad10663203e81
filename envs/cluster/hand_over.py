"""The interface between an engine and the transfers of KV."""

from typing import Protocol

from envs.cluster.request import Request


class KvSource(Protocol):
    """Where KV comes from that a node need not compute: other nodes, and its prefix cache."""

    def send(self, request: Request) -> None:
        """The KV of a request may be sent now: its decode node has made room."""

    def wait(self, node: int) -> None:
        """Requests wait for room on a node; called whenever its scheduler has left some waiting."""

    def cached_tokens(self, request: Request, node: int) -> int:
        """Tokens that the node's prefix cache spares a prompt with block hashes."""


class HandOver(KvSource, Protocol):
    """A source of KV that also takes over computed prompts."""

    def prefilled(self, request: Request) -> None:
        """A prompt that decodes elsewhere is computed; its KV stays here until `Engine.release`."""

    def prefilled_here(self, request: Request) -> None:
        """A prompt is computed on the node that decodes it."""

    def chunk_computed(self, request: Request) -> None:
        """A chunk of a prompt that decodes elsewhere is computed; only with KV streaming."""
