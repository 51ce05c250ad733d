"""Versions of a repository: each export adds one, a failed one changes nothing, the one before can be gone back to."""

from __future__ import annotations

import copy
import errno
import fcntl
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mbdcnn.errors import UserError
from serve import _versions
from serve import export as room
from serve._profiles import MODELS
from serve.export import export_networks
from serve.rollback import roll_back
from serve.verify import files_in, verify

NO_DATA = "no data were named"


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p.relative_to(folder)): (p.stat().st_mode, p.read_bytes()) for p in files_in(folder)}


def numbers(repository: Path) -> dict[str, set[str]]:
    return {m: {p.name for p in (repository / m).iterdir() if p.name.isdigit()} for m in MODELS}


@pytest.fixture
def repository(exported, tmp_path) -> Path:
    """A copy of the first version, alone in its folder."""
    (tmp_path / "place").mkdir()
    return Path(shutil.copytree(exported.repository, tmp_path / "place" / "repository"))


def again(exported, repository: Path, networks=None) -> dict:
    return export_networks(networks or exported.networks, exported.spec, repository, {"run": "again"}, instances=1)


def test_an_export_adds_a_version_of_every_model_and_keeps_the_one_before(exported, repository):
    first = snapshot(repository)
    other = copy.deepcopy(exported.networks)
    with torch.no_grad():
        other.mask_cn.classifier.bias += torch.tensor([0.5, 0.0, 0.0])
    second = again(exported, repository, other)
    assert (second["version"], second["versions"]) == (2, [1, 2])
    assert numbers(repository) == {model: {"1", "2"} for model in MODELS}
    after = snapshot(repository)
    own = {name: state for name, state in first.items() if "/1/" in name}
    assert own.items() <= after.items()
    assert verify(repository) == second

    third = again(exported, repository)
    assert third["versions"] == [2, 3]
    assert numbers(repository) == {model: {"2", "3"} for model in MODELS}
    assert list(repository.parent.iterdir()) == [repository]

    # and back: as version 2 was served, with the cache of its own engines
    config = Path("mask_cn", "configs", "production.pbtxt")
    third_config = (repository / config).read_text()
    assert roll_back(repository) == verify(repository)
    assert numbers(repository) == {model: {"2"} for model in MODELS}
    back = snapshot(repository)
    assert {n: s for n, s in back.items() if n != "manifest.json"} == {
        n: s for n, s in after.items() if n != "manifest.json" and "/1/" not in n
    }
    assert (repository / config).read_text() != third_config
    with pytest.raises(UserError, match="no earlier version"):
        roll_back(repository)
    assert snapshot(repository) == back


def test_every_version_says_what_it_is_and_what_made_it(exported):
    folder = exported.repository / "mbdcnn" / "1"
    card = json.loads((folder / "model_card.json").read_text())
    assert card["version"] == 1
    assert card["classes"] == exported.manifest["classes"]
    assert card["parity_with_the_run"] == exported.manifest["parity"]
    assert "Not a medical device" in card["use"]
    assert json.loads((folder / "fingerprint.json").read_text()) == {"name": "none"}
    own = json.loads((folder / "manifest.json").read_text())
    assert own["provenance"] == {"run": "untrained"}
    there = {str(p.relative_to(exported.repository)) for p in files_in(exported.repository)}
    assert set(own["files"]) == {n for n in there if "/1/" in n and n != "mbdcnn/1/manifest.json"}
    assert own["files"].items() <= exported.manifest["files"].items()


def test_an_export_that_fails_parity_changes_nothing(exported, repository):
    before = snapshot(repository)
    broken = copy.deepcopy(exported.networks)
    with torch.no_grad():
        broken.enhanced_sn.head[0].bias.fill_(float("nan"))
    with pytest.raises(UserError, match="do not say what the trained ones say"):
        again(exported, repository, broken)
    assert snapshot(repository) == before
    assert list(repository.parent.iterdir()) == [repository]


FULL = """
import pickle, resource, signal, sys
from pathlib import Path
from mbdcnn.errors import UserError
from serve.export import export_networks
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
networks, spec = pickle.loads(Path(sys.argv[1]).read_bytes())
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    export_networks(networks, spec, Path(sys.argv[2]), {}, instances=1)
except UserError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
def test_a_full_disk_is_a_sentence_and_changes_nothing(exported, repository, tmp_path):
    before = snapshot(repository)
    (tmp_path / "networks").write_bytes(pickle.dumps((exported.networks, exported.spec)))
    room_for_one = str((repository / "mask_cn" / "1" / "model.onnx").stat().st_size - 1)
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "networks", repository, room_for_one],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"{repository} could not be written (File too large); nothing there was changed.\n"
    assert snapshot(repository) == before
    assert list(repository.parent.iterdir()) == [repository]


def test_a_version_of_another_layout_is_neither_kept_nor_gone_back_to(exported, repository, tmp_path):
    again(exported, repository)
    own = repository / "mbdcnn" / "1" / "manifest.json"
    own.write_text(json.dumps({**json.loads(own.read_text()), "format_version": _versions.FORMAT_VERSION - 1}))
    before = snapshot(repository)
    with pytest.raises(UserError, match=r"Version 1 in .* is damaged, or of another layout"):
        roll_back(repository)
    assert snapshot(repository) == before
    assert not _versions.carry_over(repository, 1, tmp_path / "building")


def test_a_damaged_version_is_not_kept(repository, tmp_path):
    assert _versions.carry_over(repository, 1, tmp_path / "whole")
    assert numbers(tmp_path / "whole") == {model: {"1"} for model in MODELS}
    (repository / "cam" / "1" / "model.onnx").unlink()
    (repository / "cam" / "1" / "model.onnx").write_bytes(b"half")
    assert not _versions.carry_over(repository, 1, tmp_path / "damaged")
    assert not (tmp_path / "damaged").exists()


def test_two_exports_to_one_place_do_not_add_the_same_version(exported, repository):
    held = os.open(repository, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another process is exporting"):
            again(exported, repository)
    finally:
        os.close(held)
    assert list(repository.parent.iterdir()) == [repository]


class TestReplacing:
    def replace(self, out: Path) -> None:
        with _versions.replacement(out) as building:
            (building / "new").touch()

    def test_a_new_one(self, tmp_path):
        self.replace(tmp_path / "deep" / "out")
        assert [p.name for p in (tmp_path / "deep" / "out").iterdir()] == ["new"]
        assert (tmp_path / "deep" / "out").stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize("exchanges", [True, False])
    def test_an_old_one_is_gone_at_once(self, tmp_path, monkeypatch, exchanges):
        """Some file systems cannot exchange two names."""
        if not exchanges:

            def refuse(a: Path, b: Path) -> None:
                raise OSError(errno.EINVAL, "no exchange here")

            monkeypatch.setattr(_versions, "_exchange", refuse)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").touch()
        self.replace(tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["out"]
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["new"]

    def test_a_failure_leaves_the_old_one(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").touch()
        with pytest.raises(UserError, match=r"out could not be written \(No space left on device\)"):  # noqa: SIM117
            with _versions.replacement(tmp_path / "out"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        assert [p.name for p in tmp_path.iterdir()] == ["out"]
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["old"]


class TestWhatMayBeReplaced:
    def test_an_earlier_export(self, exported):
        assert _versions.current(exported.repository) == exported.manifest

    def test_nothing_and_an_empty_folder(self, tmp_path):
        assert _versions.current(tmp_path) is None
        assert _versions.current(tmp_path / "absent") is None

    def test_not_a_folder_of_other_files(self, tmp_path):
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(UserError, match=r"holds files that no export wrote"):
            _versions.current(tmp_path)

    def test_not_an_export_with_someone_elses_model(self, tmp_path):
        (tmp_path / "manifest.json").write_text(json.dumps({"format": room.FORMAT, "files": {}}))
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "config.pbtxt").touch()
        with pytest.raises(UserError, match=r"also holds other/config.pbtxt"):
            _versions.current(tmp_path)

    def test_not_a_file(self, tmp_path):
        (tmp_path / "out").touch()
        with pytest.raises(UserError, match=r"not a folder"):
            room.export(tmp_path, tmp_path / "out")

    def test_a_repository_of_the_first_layout_is_followed_by_version_two_alone(self, tmp_path):
        out = tmp_path / "out"
        (out / "cam" / "1").mkdir(parents=True)
        (out / "cam" / "1" / "model.py").touch()
        old = {"format": room.FORMAT, "format_version": 1, "files": {"cam/1/model.py": ""}}
        (out / "manifest.json").write_text(json.dumps(old))
        assert _versions.next_version(_versions.current(out)) == 2
        assert not _versions.carry_over(out, 1, tmp_path / "building")
