"""Hardware profiles: measured step times, links and KV sizes, one JSON file per machine and model."""

from hardware_profiles.compiled import activate

activate(__name__, __path__)

from hardware_profiles.connectors import Link, connector_names, load_connector
from hardware_profiles.errors import InputError
from hardware_profiles.profile import Profile, load_profile, profile_names
from hardware_profiles.step_law import StepLaw

__all__ = [
    "InputError",
    "Link",
    "Profile",
    "StepLaw",
    "connector_names",
    "load_connector",
    "load_profile",
    "profile_names",
]
