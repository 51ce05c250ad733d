"""The repository that a server reads: the supervisor's own, changed in safe steps only.

An export replaces files of many models, and a server that followed it would for a moment answer with the networks of
two versions. So the server reads a copy. Where it is to follow new versions, each version of an ensemble's steps is a
model of its own (`coarse_sn_v2`): versions lie beside each other, may differ in shapes and classes, and the ensemble
moves from one to the other in one step. Two versions in one model's folder would not do: Triton loads both anew
whenever either changes.
"""

from __future__ import annotations

import compileall
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbdcnn.errors import UserError
from serve._profiles import EMBEDDED, place
from serve.verify import files_in

Signature = tuple[tuple[str, int, int, int], ...]
_CONFIG = place(EMBEDDED)


@dataclass(frozen=True)
class Staged:
    """One version of a repository, complete, in a folder of its own.

    Attributes:
        folder: holds `repository`, as it was written, and `models`, which are it under names of their own.
        version: of all its models.
        public: models that clients ask.
        steps: models that an ensemble asks.
        signature: of the repository that it was copied from.
    """

    folder: Path
    version: int
    public: tuple[str, ...]
    steps: tuple[str, ...]
    signature: Signature

    @property
    def repository(self) -> Path:
        """A model repository that a server can serve as it is."""
        return self.folder / "repository"

    @property
    def models(self) -> Path:
        """The models as they go into a live repository."""
        return self.folder / "models"


class ChangingError(Exception):
    """The repository changed while it was copied; another look will do."""


def signature(repository: Path) -> Signature:
    """What tells whether a repository changed: name, size, time and inode of each file.

    Raises:
        OSError: it is being replaced right now.
    """
    found = []
    for file in files_in(repository):
        stat = file.stat()
        found.append((str(file.relative_to(repository)), stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(found)


def stage(repository: Path, folder: Path, versioned: bool, profile: str = EMBEDDED) -> Staged:
    """Copy the newest version of every model of `repository` to the new `folder`, where the profile is all there is.

    Args:
        repository: what an export wrote.
        folder: for the copy.
        versioned: name an ensemble's steps after the version too, so that two versions can lie side by side.
        profile: which of each model's configurations to take.

    Raises:
        ChangingError: it was changed meanwhile.
        UserError: it is no repository of one version, lacks the profile, or cannot be read or copied.
    """
    try:
        before = signature(repository)
        models = sorted(path.parent for path in repository.glob(f"*/{_CONFIG}"))
        lacking = [model for model in models if not (model / place(profile)).is_file()]
        if lacking and signature(repository) == before:
            raise UserError(f"{lacking[0]} lacks the profile {profile}; export the repository anew.")
        configs = {model.name: _parse(model / place(profile)) for model in models}
        if not configs:
            raise ChangingError
        versions = {name: _newest(repository / name) for name in configs}
        if len(set(versions.values())) != 1:
            raise UserError(f"The models of {repository} are not of one version; export it anew.")
        version = versions.popitem()[1]
        steps = {step.model_name for config in configs.values() for step in config.ensemble_scheduling.step}
        names = {name: f"{name}_v{version}" if versioned and name in steps else name for name in configs}
        for name, config in configs.items():
            copy = folder / "repository" / name
            _copy(repository / name, copy, version)
            _write(copy / _CONFIG, config)
            config.name = names[name]
            for step in config.ensemble_scheduling.step:
                step.model_name, step.model_version = names.get(step.model_name, step.model_name), version
            _rename(copy, config, folder / "models" / names[name], version)
        # else the models' processes would write here, and a polling server take that for a new version
        compileall.compile_dir(folder / "repository", quiet=2)
        if signature(repository) != before:
            raise ChangingError
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        # copytree collects what went wrong with each file: its place, that of its copy, and why
        failed = error.args[0] if isinstance(error, shutil.Error) else []
        if isinstance(error, FileNotFoundError) or not all(Path(source).exists() for source, _, _ in failed):
            raise ChangingError from None
        reason = failed[0][2] if failed else error.strerror
        raise UserError(f"{repository} cannot be copied to {folder} ({reason}); mend it or TMPDIR.") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    public = tuple(name for name in configs if name not in steps)
    return Staged(folder, version, public, tuple(names[name] for name in configs if name in steps), before)


class LiveRepository:
    """What the server reads.

    Args:
        first: the version to begin with; taken over.
        folder: where it goes; new.

    Attributes:
        folder: as above.
        present: the version that clients get.
    """

    def __init__(self, first: Staged, folder: Path) -> None:
        self.folder = folder
        self.present = first
        folder.mkdir()
        self.add(first)
        self.move(first)

    def check_fits(self, staged: Staged) -> None:
        """Refuse a version that cannot lie beside the present one.

        Raises:
            UserError: the same number, or other models.
        """
        if staged.version == self.present.version:
            raise UserError(f"Version {staged.version} changed in place; a new version needs a new number.")
        if staged.public != self.present.public:
            raise UserError("The new version has other models; restart the server to take it.")

    def add(self, staged: Staged) -> None:
        """Lay a version's steps beside the present one's."""
        for name in staged.steps:
            (staged.models / name).rename(self.folder / name)

    def move(self, staged: Staged) -> None:
        """Let what clients ask be this version."""
        for name in staged.public:
            self._point(name, staged.models / name)

    def retreat(self, staged: Staged) -> None:
        """Take back what `add` and `move` did."""
        self.move(self.present)
        self._drop(staged)

    def withdraw(self) -> None:
        """Take from clients what they ask; the server refuses new requests, and goes on with those it has."""
        for name in self.present.public:
            (self.folder / name).unlink(missing_ok=True)

    def settle(self, staged: Staged) -> None:
        """Drop the version that `move` has left."""
        old, self.present = self.present, staged
        self._drop(old)

    def _drop(self, staged: Staged) -> None:
        for name in staged.steps:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.rmtree(staged.folder, ignore_errors=True)

    def _point(self, name: str, target: Path) -> None:
        """Make a model another one in one step."""
        link = self.folder.with_name(f"{self.folder.name}.{name}.link")
        link.symlink_to(target)
        link.replace(self.folder / name)


class Watch:
    """Tells when a repository has changed and has come to rest.

    Args:
        repository: to look at.
        interval: seconds between two looks; a change must be the same in two of them.
        taken: what is served now.
    """

    def __init__(self, repository: Path, interval: float, taken: Signature) -> None:
        self._repository = repository
        self._interval = interval
        self._taken = taken
        self._seen: Signature | None = None
        self._looked = time.monotonic()

    def changed(self) -> bool:
        """Whether there is something new to take."""
        if time.monotonic() - self._looked < self._interval:
            return False
        self._looked = time.monotonic()
        last, self._seen = self._seen, None
        try:
            self._seen = signature(self._repository)
        except OSError:
            return False
        return bool(self._seen) and self._seen != self._taken and self._seen == last

    def done(self) -> None:
        """What was seen last is taken, or refused, once and for all."""
        if self._seen is not None:
            self._taken = self._seen


def _newest(model: Path) -> int:
    """The highest version of a model; 0 when it has none, which no version is."""
    return max((int(p.name) for p in model.iterdir() if p.name.isdigit() and p.is_dir()), default=0)


def _parse(config: Path) -> Any:
    """A model's configuration."""
    from google.protobuf import text_format  # type: ignore[import-untyped]
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError):
        raise UserError(f"{config} is not a model configuration; export the repository anew.") from None


def _copy(model: Path, out: Path, version: int) -> None:
    """Copy one version of a model."""
    others = {path.name for path in model.iterdir() if path.name.isdigit() and int(path.name) != version}
    # not as hard links: a polling server takes the removal of the other name for a change
    shutil.copytree(model, out, ignore=lambda folder, names: others & {*names} | {"__pycache__"})


def _rename(model: Path, config: Any, out: Path, version: int) -> None:
    """Make a model that has this configuration and the files of another; links lead to what lies beside those."""
    shutil.copytree(model, out, ignore=shutil.ignore_patterns(str(version)))
    (out / str(version)).symlink_to(model / str(version))
    _write(out / _CONFIG, config)


def _write(path: Path, config: Any) -> None:
    from google.protobuf import text_format

    path.write_text(text_format.MessageToString(config))
