"""Found first on a worker's path: makes its process one that knows the toy track alone, and so starts at once."""

from pathlib import Path

from harness import registry, tracks

tracks.__path__.append(str(Path(__file__).parent / "tracks"))
registry.TRACKS = ("toy",)
registry.HOME_PACKAGES = ("toy_methods",)
registry.ENTRY_POINT_GROUP = "none"
