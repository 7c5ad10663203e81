"""A small made-up machine, for tests that compute times by hand."""

from hardware_profiles import Link, Profile, StepLaw

TOY_LAW = StepLaw(
    token_time_s=tuple(0.008 + 0.00005 * n for n in range(8193 + 512)),
    chunk_const_s=0.001,
    chunk_context_s=5e-9,
    chunk_self_s=5e-9,
    decode_const_s=0.0005,
    decode_seq_s=0.00005,
    decode_kv_s=tuple(8e-8 if batch < 24 else 1e-7 for batch in range(8193 + 512)),
)


def toy_profile(kv_capacity_tokens: int = 400_000, law: StepLaw = TOY_LAW) -> Profile:
    """A profile with `law` and round numbers."""
    return Profile(
        name="toy",
        model="toy",
        law=law,
        kernel_law=law,
        kv_bytes_per_token=100_000,
        kv_capacity_tokens=kv_capacity_tokens,
        inter_node=Link(1e-4, 20e9, "made up"),
        intra_node=Link(3e-5, 250e9, "made up"),
        provenance={},
    )
