"""Checksums of a repository: the program that a container runs before it serves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mbdcnn.errors import UserError
from serve.verify import main, verify


@pytest.fixture
def repository(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported.repository, tmp_path / "repository"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


HARM = {
    "one bit of a network": ("mask_cn/1/model.onnx", flip, "is not as it was exported"),
    "one bit of a model's code": ("preprocess/1/model.py", flip, "is not as it was exported"),
    "one bit of a configuration": ("mbdcnn/configs/production.pbtxt", flip, "is not as it was exported"),
    "a file that is gone": ("postprocess/1/images.py", Path.unlink, "cannot be read"),
    "a file that is new": ("cam/1/extra.py", Path.touch, "was not written by the export"),
    "no manifest": ("manifest.json", Path.unlink, "is missing or damaged"),
    "half a manifest": ("manifest.json", lambda p: p.write_bytes(p.read_bytes()[:100]), "is missing or damaged"),
}


@pytest.mark.parametrize(("name", "harm", "sentence"), HARM.values(), ids=HARM)
def test_what_does_not_fit_is_named(repository, capsys, name, harm, sentence):
    harm(repository / name)
    with pytest.raises(UserError, match=sentence):
        verify(repository)
    assert main([str(repository)]) == 2
    said = capsys.readouterr()
    assert str(repository / name) in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""


def test_a_whole_repository_fits_and_python_may_have_cached_beside_it(repository, exported):
    cache = repository / "cam" / "1" / "__pycache__"
    cache.mkdir(exist_ok=True)  # a server of the original may have left one
    (cache / "model.cpython-311.pyc").touch()
    assert verify(repository) == exported.manifest
    done = subprocess.run(
        [sys.executable, "-m", "serve.verify", repository], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{repository}: version 1, {len(exported.manifest['files'])} files as exported.\n"


def test_it_needs_no_library(repository):
    """An init container may have nothing but Python."""
    code = (
        "import sys; from serve.verify import main; assert main(sys.argv[1:]) == 0; assert 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code, repository], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_how_to_use_it(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
