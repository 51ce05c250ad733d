"""Every benchmark runs alone and prints the document that results are filed as."""

import json
import math
import operator
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "benchmarks").glob("[!_]*.py"))
LONG = ("input", "memory", "serving", "train_step")  # about two minutes each, even when quick: `make bench` runs them
MEETS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


def check(document: dict[str, object], name: str) -> None:
    """Fail unless it is the document of that benchmark, consistent in itself."""
    assert list(document) == ["name", "machine", "date", "commit", "ratios", "goals", "met"]
    assert document["name"] == name
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", str(document["date"]))
    assert "core" in str(document["machine"])
    assert "/" not in str(document["machine"])
    assert document["commit"]
    ratios, goals = document["ratios"], document["goals"]
    assert isinstance(ratios, dict)
    assert isinstance(goals, dict)
    assert ratios
    assert all(math.isfinite(value) and value >= 0 for value in ratios.values())
    assert set(goals) <= set(ratios)
    reached = [MEETS[goal.split()[0]](ratios[ratio], float(goal.split()[1])) for ratio, goal in goals.items()]
    assert document["met"] is all(reached)


@pytest.mark.slow
@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.stem not in LONG], ids=lambda script: script.stem)
def test_a_quick_run_prints_the_document_and_nothing_else(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(script), "--quick", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout), script.stem)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda file: file.stem)
def test_a_filed_result_belongs_to_a_script(file: Path) -> None:
    assert file.stem in {script.stem for script in SCRIPTS}
    check(json.loads(file.read_text()), file.stem)
