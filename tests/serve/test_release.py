"""From a finished run to a released repository: calibrated, exported small, measured, with a card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mbdcnn.cli import cli
from mbdcnn.data.sample import write_sample

pytestmark = pytest.mark.slow


def mbdcnn(*words: object) -> Any:
    done = CliRunner().invoke(cli, [*map(str, words), "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_run) -> Path:
    folder = tmp_path_factory.mktemp("release")
    write_sample(folder / "data", {"training": 12, "validation": 18}, size=100)
    write_run(folder / "run", folder / "data")
    return folder


def test_a_release_says_what_its_run_says(folder: Path) -> None:
    run, data, repository = folder / "run", folder / "data", folder / "repository"
    before = mbdcnn("evaluate", "--run", run, "--data", data)
    assert before["trust"]["unfamiliar"] is None
    found = mbdcnn("calibrate", "--run", run, "--data", data)
    manifest = mbdcnn("export", "--run", run, "--out", repository, "--weights", "float16", "--no-fused")
    assert manifest["calibration"] == json.loads((run / "calibration.json").read_text()) == found
    assert manifest["weights"] == "float16"
    assert manifest["provenance"]["stages"]["mask"]["settings"]["network.classification_encoder"] == "resnet10t"

    trained = mbdcnn("evaluate", "--run", run, "--data", data)
    served = mbdcnn("evaluate", "--repository", repository, "--data", data)
    for name in ("coarse", "enhanced"):
        assert trained[name] == before[name]
        assert served[name] == pytest.approx(trained[name], abs=2e-3)
    nll = [result["trust"]["calibration"]["NLL"] for result in (before, trained, served)]
    assert nll[1] < nll[0]
    assert nll[2] == pytest.approx(nll[1], abs=5e-3)
    assert served["trust"]["mask_doubt"] == pytest.approx(trained["trust"]["mask_doubt"], abs=0.05)
    assert served["trust"]["unfamiliar"] == pytest.approx(trained["trust"]["unfamiliar"], abs=1 / 18 + 1e-6)
    assert trained["trust"]["unfamiliar"] <= 0.06  # by the limit's definition

    scores = folder / "repository-evaluation" / "validation" / "metrics.json"
    card, _ = mbdcnn("card", "--repository", repository, "--scores", scores, "--out", folder / "card")
    text = Path(card).read_text()
    assert f"(temperature {found['temperature']:.2f})" in text
    assert f"{100 * served['enhanced']['JA']:.1f} (" in text
    assert "## Subgroups" in text
    assert "| encoder | resnet10t | resnet10t | resnet10t |" in text
    assert f"All files together: {manifest['bytes'] / 1e6:.1f} MB; weights stored as float16." in text
    assert str(folder) not in text
