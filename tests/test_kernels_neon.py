"""The ARM kernels against plain C++, cross-compiled and emulated: kernels/neon.sh."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "kernels" / "neon.sh"
NEEDED = ("aarch64-linux-gnu-g++", "qemu-aarch64")
MISSING = [name for name in NEEDED if shutil.which(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)} (g++-aarch64-linux-gnu, qemu-user)")
def test_every_arm_kernel_gives_what_plain_cpp_gives():
    environment = {k: v for k, v in os.environ.items() if k not in ("CXX", "CXXFLAGS", "HARNESS_KERNELS_ISA")}
    done = subprocess.run(["sh", str(SCRIPT)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(" results compared, ")[1] for line in lines] == [
        "neon portable: 0 failures",
        "dotprod neon portable: 0 failures",
    ]
