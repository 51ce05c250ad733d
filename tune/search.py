"""`python tune/search.py ...` is `mbdcnn tune ...` without an install.

So it runs from a checkout, as a Ray job (`ray job submit --working-dir . -- python tune/search.py ...`), and as the
entry point of a RayJob on Kubernetes.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # in place of this folder: the rooms are found, and no file beside this one can hide a package
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.argv[1:1] = ["tune"]

    from mbdcnn.cli import main

    main()
