"""A toy method that misbehaves as it is told."""

import os
import signal
import subprocess
import sys
import time
from typing import Literal

import numpy as np
from harness.tracks.toy import ToyProblem

from harness import BadInput, TrialFailed, method

Kind = Literal["sleep", "eat", "kill", "exit", "error", "refuse", "fail", "nan", "print", "child"]


@method(track="toy")
def trouble(problem: ToyProblem, *, kind: Kind = "sleep", seconds: float = 60.0):
    """Sleep, eat memory, die, raise, refuse its input, give back what is not a number, print, leave a child behind."""
    if kind == "sleep":
        time.sleep(seconds)
    elif kind == "eat":
        eaten = [np.ones(1 << 22) for _ in range(12)]
        time.sleep(seconds)
        del eaten
    elif kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "exit":
        print("last words", file=sys.stderr, flush=True)
        os._exit(7)
    elif kind == "error":
        raise ZeroDivisionError("nothing\nto divide by")
    elif kind == "refuse":
        raise BadInput("layer a: 5 columns are not a multiple of group_size=2")
    elif kind == "fail":
        raise TrialFailed("it did not converge")
    elif kind == "nan":
        return problem.values * float("nan")
    elif kind == "print":
        print("noise on the standard output", flush=True)
        assert sys.stdin.read() == ""
    elif kind == "child":
        subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})  # left-behind"])
    return problem.values
