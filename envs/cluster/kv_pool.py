"""The KV memory of one node: the one place that counts it."""


class KvPool:
    """Tokens of KV that a node holds or has reserved.

    Attributes:
        capacity_tokens: KV that fits.
        used_tokens: KV held or reserved; 0 to `capacity_tokens`.

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

    def admits(self, tokens: int) -> bool:
        """Whether a newcomer with `tokens` tokens may come in; the watermark stays free unless nothing else is here."""
        used = self.used_tokens
        return used + tokens <= (self._admitting_tokens if used else self.capacity_tokens)

    def change(self, tokens: int) -> None:
        """Count what a span has added (its decodes' tokens) and freed (its finished requests) together."""
        self.used_tokens += tokens

    def surely_admits(self, tokens: int) -> bool:
        """Whether `tokens` tokens may come in whether or not something else is here by then."""
        return self.used_tokens + tokens <= self._admitting_tokens

    def reserve(self, tokens: int) -> None:
        """Take `tokens` tokens; ask `admits` first."""
        self.used_tokens += tokens

    def release(self, tokens: int) -> None:
        """Give `tokens` tokens back."""
        self.used_tokens -= tokens
