"""Named connectors: their links, and that they replace only the link between hosts."""

import dataclasses

import pytest

from hardware_profiles import InputError, connector_names, load_connector, load_profile, profile_names

SLOW_GB_PER_S = {"nixl-default-ucx": 0.4, "nixl-pull-no-rdma": 0.5, "small-descriptors": 0.7, "cross-socket": 12.0}


def test_connector_names_are_the_measured_links_and_the_slow_ones() -> None:
    assert set(connector_names()) == {"rdma", "nvlink", *SLOW_GB_PER_S}
    bandwidths = [load_connector(name).bandwidth_bytes_per_s for name in connector_names()]
    assert bandwidths == sorted(bandwidths, reverse=True)


@pytest.mark.parametrize(("name", "gb_per_s"), SLOW_GB_PER_S.items())
def test_a_slow_connector_has_the_observed_bandwidth_and_its_source(name: str, gb_per_s: float) -> None:
    link = load_connector(name)
    assert link.bandwidth_bytes_per_s == pytest.approx(gb_per_s * 1e9, rel=0.05)
    assert "https://" in link.source


def test_the_error_for_an_unknown_connector_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'carrier-pigeon'; there are nvlink, rdma, cross-socket"):
        load_connector("carrier-pigeon")


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("connector", ["rdma", "nvlink", *SLOW_GB_PER_S])
def test_a_connector_replaces_only_the_link_between_hosts(name: str, connector: str) -> None:
    before = load_profile(name)
    after = before.with_connector(connector)
    gpus = before.provenance["tp"]
    assert after.inter_node.bandwidth_bytes_per_s == load_connector(connector).bandwidth_bytes_per_s * gpus
    assert connector in after.provenance["connector"]
    kept = {"inter_node": before.inter_node, "provenance": before.provenance}
    assert dataclasses.replace(after, **kept) == before


def test_an_a100_has_rdma_between_hosts_and_nvlink_inside_by_default() -> None:
    profile = load_profile("a100x4-llama31-70b")
    assert profile.with_connector("rdma").inter_node == profile.inter_node
    assert profile.with_connector("nvlink").inter_node == profile.intra_node
