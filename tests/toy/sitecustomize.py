"""Found first on a worker's path: makes its process one that knows the toy track alone, and so starts at once."""

from pathlib import Path

import harness
from harness import registry

harness.__path__.append(str(Path(__file__).parent / "tracks"))
registry.TRACKS = ("toy",)
registry.HOME_PACKAGES = ("toy_methods",)
registry.ENTRY_POINT_GROUP = "none"
