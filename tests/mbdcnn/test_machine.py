"""The words in which results name the machine."""

import os
import platform

from mbdcnn.machine import machine


def test_the_processor_and_its_cores_are_named_and_the_host_is_not() -> None:
    words = machine()
    cores = len(os.sched_getaffinity(0))
    assert f"{cores} core" in words
    assert not words.startswith(",")
    assert platform.node() not in words
