"""Become another program that ends when the parent does, even when the parent is killed.

Run as a script: `python -I -S _launch.py PARENT_PID PROGRAM ARGUMENT...`. A `preexec_fn` would do the
same, but Python runs it between fork and exec, where a process with threads may deadlock.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):  # the parent died before we asked
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])
