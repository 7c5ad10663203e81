"""The accounting of one node's KV memory."""

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class KvPool:
    """Counts the tokens of KV that a node holds or has reserved.

    Attributes:
        capacity_tokens: KV that fits.
        used_tokens: KV held or reserved, 0 to `capacity_tokens`. The engine adds the tokens of its decodes.

    Args:
        capacity_tokens: KV that fits.
        watermark_share: share of it that new prompts and transfers leave free for decoding requests.
    """

    __slots__ = ("_admitting_tokens", "capacity_tokens", "used_tokens")

    def __init__(self, capacity_tokens: int, watermark_share: float) -> None:
        self.capacity_tokens = capacity_tokens
        self._admitting_tokens = capacity_tokens - int(watermark_share * capacity_tokens)
        self.used_tokens = 0

    @property
    def free_tokens(self) -> int:
        """Tokens of free KV."""
        return self.capacity_tokens - self.used_tokens

    def take(self, tokens: int, spare_tokens: int) -> bool:
        """Reserve `tokens` tokens for a new request if they and `spare_tokens` more fit; returns whether they do.

        The watermark stays free unless the pool is empty.
        """
        used = self.used_tokens
        if used + tokens + spare_tokens > (self._admitting_tokens if used else self.capacity_tokens):
            return False
        self.used_tokens = used + tokens
        return True

    def take_surely(self, tokens: int, spare_tokens: int) -> bool:
        """`take` for a later time: the watermark always stays free, because the pool may not be empty then."""
        used = self.used_tokens + tokens
        if used + spare_tokens > self._admitting_tokens:
            return False
        self.used_tokens = used
        return True

    def release(self, tokens: int) -> None:
        """Free `tokens` tokens."""
        self.used_tokens -= tokens
