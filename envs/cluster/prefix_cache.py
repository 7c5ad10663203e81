"""Prefix caching: nodes keep the KV of earlier prompts in blocks for prompts with the same prefix.

A block is identified by a hash of itself and all blocks before it, so a prompt's longest cached prefix is a run of its
first blocks. vLLM keeps such blocks in the KV memory that running requests leave free; here a node reserves a fixed
share of its KV capacity for them, and may hold more in host memory. Cache and requests never share a block: a hit is
copied at no cost, and a request holds KV for its whole length.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence

from envs.workload import HASH_BLOCK_TOKENS


class PrefixCache:
    """The prefix cache of a node, with least-recently-used eviction of blocks.

    Args:
        capacity_tokens: KV that it may hold, rounded down to whole blocks; a prompt's last block counts as a whole one.
        report_age_s: seconds after which the router knows of a change.
    """

    __slots__ = ("_news", "_report_age_s", "_reported", "blocks", "capacity_blocks")

    def __init__(self, capacity_tokens: int, report_age_s: float) -> None:
        self.capacity_blocks = capacity_tokens // HASH_BLOCK_TOKENS
        self.blocks: OrderedDict[int, None] = OrderedDict()
        self._report_age_s = report_age_s
        # The router knows the same cache without the uses of the last `report_age_s` seconds.
        self._reported: OrderedDict[int, None] = OrderedDict()
        self._news: deque[tuple[float, Sequence[int]]] = deque()

    def copy(self) -> "PrefixCache":
        """An independent copy."""
        twin = PrefixCache(self.capacity_blocks * HASH_BLOCK_TOKENS, self._report_age_s)
        twin.blocks = self.blocks.copy()
        twin._reported = self._reported.copy()
        twin._news = self._news.copy()
        return twin

    def use(self, hashes: Sequence[int], now_s: float) -> None:
        """Insert the blocks of a prompt, or mark them as just used."""
        if hashes:
            self._catch_up(now_s)
            self._news.append((now_s, hashes))
            self._use(self.blocks, hashes)

    def prefix_tokens(self, hashes: Sequence[int]) -> int:
        """Tokens of a prompt's longest cached prefix, in whole blocks."""
        return _prefix_blocks(self.blocks, hashes) * HASH_BLOCK_TOKENS

    def reported_prefix_tokens(self, hashes: Sequence[int], now_s: float) -> int:
        """The same `report_age_s` ago, which is what a router knows at `now_s`."""
        self._catch_up(now_s)
        return _prefix_blocks(self._reported, hashes) * HASH_BLOCK_TOKENS

    def clear(self) -> None:
        """Drop all blocks; the router knows of it at once."""
        self.blocks.clear()
        self._reported.clear()
        self._news.clear()

    def _catch_up(self, now_s: float) -> None:
        news = self._news
        while news and news[0][0] <= now_s - self._report_age_s:
            self._use(self._reported, news.popleft()[1])

    def _use(self, blocks: OrderedDict[int, None], hashes: Sequence[int]) -> None:
        # From the last block to the first: a block is useless without the earlier ones, so it must be evicted before
        # them.
        for block in reversed(hashes):
            blocks[block] = None
            blocks.move_to_end(block)
        while len(blocks) > self.capacity_blocks:
            blocks.popitem(last=False)


def _prefix_blocks(blocks: OrderedDict[int, None], hashes: Sequence[int]) -> int:
    count = 0
    for block in hashes:
        if block not in blocks:
            break
        count += 1
    return count
