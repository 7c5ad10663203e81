"""The KV memory of one node: the one place that counts it."""

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class KvPool:
    """Tokens of KV that a node holds or has reserved.

    Attributes:
        capacity_tokens: KV that fits.
        used_tokens: KV held or reserved; 0 to `capacity_tokens`. An engine adds its decodes' tokens here.

    Args:
        capacity_tokens: KV that fits.
        watermark_share: share of it that new prompts and transfers leave free for the sequences that decode.
    """

    __slots__ = ("_admitting_tokens", "capacity_tokens", "used_tokens")

    def __init__(self, capacity_tokens: int, watermark_share: float) -> None:
        self.capacity_tokens = capacity_tokens
        self._admitting_tokens = capacity_tokens - int(watermark_share * capacity_tokens)
        self.used_tokens = 0

    @property
    def free_tokens(self) -> int:
        """KV that nothing holds."""
        return self.capacity_tokens - self.used_tokens

    def take(self, tokens: int, spare_tokens: int) -> bool:
        """Reserve `tokens` tokens for a newcomer if they and `spare_tokens` more fit; False if they do not.

        The watermark stays free unless nothing else is here.
        """
        used = self.used_tokens
        if used + tokens + spare_tokens > (self._admitting_tokens if used else self.capacity_tokens):
            return False
        self.used_tokens = used + tokens
        return True

    def take_surely(self, tokens: int, spare_tokens: int) -> bool:
        """The same, but the watermark always stays free: something else may be here by the time that it counts."""
        used = self.used_tokens + tokens
        if used + spare_tokens > self._admitting_tokens:
            return False
        self.used_tokens = used
        return True

    def release(self, tokens: int) -> None:
        """Give `tokens` tokens back."""
        self.used_tokens -= tokens
