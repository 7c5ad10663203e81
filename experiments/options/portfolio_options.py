"""Options of the portfolio of a training run: its members, and the episodes that its selection learns from."""

from dataclasses import dataclass
from pathlib import Path

from experiments.options.parser import flag, option
from hardware_profiles import InputError, load_profile


@dataclass(frozen=True)
class PortfolioOptions:
    """Members of a portfolio, and training episodes of the model that selects among them."""

    portfolio_episodes: int = option(
        0,
        metavar="N",
        help="episodes that the network and rules play, to learn which of them is to place requests under which "
        "traffic; 0: the network places all",
    )
    other_clusters: float = option(
        0.25,
        metavar="SHARE",
        help="share of these episodes on other shapes, with slower nodes, at higher rates and with --other-profiles",
    )
    other_profiles: tuple[str, ...] = option(
        (), metavar="P", help="hardware profiles of a part of these episodes, each at multiples of the knees on it"
    )
    earlier_episodes: tuple[Path, ...] = option(
        (),
        metavar="FILE",
        help="episodes.npz of other training runs, from which the selection learns, too; members that a file does not "
        "have are left out",
    )
    cost_generations: int = option(
        0, metavar="N", help="generations of the search for each cost of the portfolio; 0: none is searched"
    )
    members: tuple[Path, ...] = option(
        (),
        metavar="FILE",
        help="policy files with costs for the portfolio; the network is that of the first one, so none is trained, the "
        "members that it selects among are kept, and searches for costs start from these",
    )

    def __post_init__(self) -> None:
        for name in ("portfolio_episodes", "cost_generations"):
            if getattr(self, name) < 0:
                raise InputError(f"{flag(name)} {getattr(self, name)}: must be 0 or more")
        if self.portfolio_episodes == 1:
            raise InputError("--portfolio-episodes 1: must be 0, or at least 2 because some are held out")
        for name in ("cost_generations", "members", "other_profiles", "earlier_episodes"):
            if getattr(self, name) and not self.portfolio_episodes:
                raise InputError(f"{flag(name)} goes with --portfolio-episodes")
        for profile in self.other_profiles:
            load_profile(profile)
        if not 0.0 <= self.other_clusters <= 1.0:
            raise InputError(f"--other-clusters {self.other_clusters:g}: must be from 0 to 1")
