"""What the distribution declares: every package is there, in its range, and pinned in constraints.txt."""

import re
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

FIXED = {
    "torch",
    "deepspeed",
    "timm",
    "segmentation-models-pytorch",
    "nvidia-dali-cuda130",
    "tritonclient",
    "ray",
    "numpy",
    "scikit-learn",
}
ROOT = Path(__file__).parent.parent


def declared() -> dict[str, Requirement]:
    rows = [Requirement(row) for row in requires("mbdcnn") or ()]
    return {row.name: row for row in rows if row.name != "mbdcnn"}


def test_the_packages_that_the_product_stands_on_are_dependencies() -> None:
    assert set(declared()) >= FIXED


@pytest.mark.parametrize("name", sorted(declared()))
def test_installed_version_is_in_the_declared_range_and_pinned(name: str) -> None:
    requirement = declared()[name]
    assert {s.operator for s in requirement.specifier} >= {">="}
    assert requirement.specifier.contains(version(name))
    pins = {
        re.sub("[-_.]+", "-", line.split("==")[0]).lower(): line.split("==")[1].strip()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert pins[re.sub("[-_.]+", "-", name).lower()] == version(name)
