"""The rooms keep apart: the method imports no engine, and heavy packages load only where they are used."""

import subprocess
import sys

import pytest

HEAVY = "nvidia.dali deepspeed ray tritonclient onnxruntime onnx"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("mbdcnn.cli", "torch timm sklearn matplotlib train serve " + HEAVY),
        ("mbdcnn.networks", "train serve tune " + HEAVY),
        ("mbdcnn.metrics", "train serve tune " + HEAVY),
        ("mbdcnn.losses", "train serve tune timm " + HEAVY),
        ("mbdcnn.data.fingerprint", "torch matplotlib train serve tune " + HEAVY),
        ("mbdcnn.data.index", "torch train serve tune " + HEAVY),
        ("mbdcnn.preprocessing", "torch train serve tune " + HEAVY),
        ("train.stages", "serve tune deepspeed ray tritonclient onnxruntime"),
        ("train.evaluate", "serve tune " + HEAVY),
        ("serve.client", "torch timm train tune ray deepspeed nvidia.dali"),
    ],
)
def test_import_does_not_pull_in(module: str, absent: str) -> None:
    code = f"import sys, {module}; print(*[m for m in {absent.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
