"""Settings for every test."""

import os
import signal
import tempfile

# As the command does: waiting OpenMP threads sleep, so that tests with several processes do not starve each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A shell starts its background jobs deaf to Ctrl-C, and so would be the commands that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What tests remember of their data folders is nothing to the user's own cache.
_CACHE = tempfile.TemporaryDirectory(prefix="mbdcnn-cache-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name
# Servers of the tests are on this machine, whatever proxy leads out of it.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
