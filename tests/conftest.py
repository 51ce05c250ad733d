"""Settings for every test."""

import os

# As the command does: waiting OpenMP threads sleep, so that tests with several processes do not starve each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
