"""The search for the rank loss's K, margin and lambda with Ray Tune, by the trainers' own stage code."""

import os

# As the command does, for trials on machines where it is not the command that began: read once, with torch's import.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
