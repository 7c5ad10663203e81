"""Running policies: one run, the cache of finished ones, where they run, and which requests they may see."""
