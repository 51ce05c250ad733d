"""The verbs that export, serve and ask."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from mbdcnn.cli._shared import FOLDER, answer, json_option
from mbdcnn.errors import UserError

_SECONDS = click.FloatRange(min=0, min_open=True)
_RELEASED = "[default: the released networks]"


@click.command()
@click.option("--run", type=FOLDER, required=True, help="Run folder with all three stages.")
@click.option("--out", type=FOLDER, required=True, help="The model repository to write, or to add a version to.")
@click.option("--data", type=FOLDER, help="Data folder for the check of the scores.  [default: the run's own]")
@click.option(
    "--weights",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="How weights are stored; float16 halves the files, the networks compute in float32 all the same.",
)
@click.option(
    "--fused/--no-fused",
    default=True,
    show_default=True,
    help="Also write all networks as one graph, the fastest on a GPU; without it the repository is half as large.",
)
@json_option
def export(run: Path, out: Path, data: Path | None, weights: str, fused: bool, as_json: bool) -> None:
    """Write a version of a Triton model repository; fails when ONNX and PyTorch disagree."""
    from serve._form import Form
    from serve.export import export as write_repository

    document = write_repository(run, out, progress=sys.stderr.isatty(), data=data, form=Form(weights, fused))
    skipped = document["parity"]["validation"].get("skipped")
    if skipped:
        click.echo(f"JA and AUC were not compared: {skipped}; name the data with --data.", err=True)
    if document["calibration"] is None:
        click.echo("The run is not calibrated: its probabilities are as trained; see `mbdcnn calibrate`.", err=True)
    version = document["version"]
    size = f"{document['bytes'] / 1e6:.1f} MB"
    answer(document, as_json, f"version {version} in {out}, {size}; serve it: mbdcnn serve --repository {out}")


@click.command()
@click.option("--repository", type=FOLDER, required=True, help="Model repository that `mbdcnn export` wrote.")
@click.option("--scores", type=FOLDER, required=True, metavar="FILE", help="metrics.json of its evaluation.")
@click.option("--out", type=FOLDER, default=Path(), help="Folder for MODEL_CARD.md and CLAIM.md.  [default: here]")
@click.option(
    "--compare", multiple=True, metavar="NAME=FILE", help="Another evaluation to put beside it, such as a baseline's."
)
@click.option("--paper", is_flag=True, help="Put the paper's figures on the ISIC-2017 validation set beside it.")
@click.option("--about", type=FOLDER, metavar="FILE", help="YAML of what no file tells, as serve/about/isic2017.yaml.")
@json_option
def card(
    repository: Path,
    scores: Path,
    out: Path,
    compare: tuple[str, ...],
    paper: bool,
    about: Path | None,
    as_json: bool,
) -> None:
    """Write a repository's model card and CLAIM checklist, every figure from the documents that measured it."""
    from serve.card import write_card

    others = {}
    for pair in compare:
        name, equals, file = pair.rpartition("=")
        if not (name and equals and file):
            raise UserError(f"--compare {pair} names no file; write --compare NAME=metrics.json.")
        others[name] = Path(file)
    files = [str(file) for file in write_card(repository, scores, out, compare=others, paper=paper, about=about)]
    answer(files, as_json, " and ".join(files))


@click.command()
@click.option("--repository", type=FOLDER, help=f"Model repository that `mbdcnn export` wrote.  {_RELEASED}")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind; loopback unless told otherwise.")
@click.option("--http-port", default=8000, show_default=True)
@click.option("--grpc-port", default=8001, show_default=True)
@click.option("--metrics-port", default=8002, show_default=True)
@click.option(
    "--tls-cert", type=FOLDER, metavar="FILE", help="PEM certificate for gRPC; HTTP and metrics become local."
)
@click.option("--tls-key", type=FOLDER, metavar="FILE", help="PEM key of the certificate.")
@click.option("--tls-client-ca", type=FOLDER, metavar="FILE", help="Only clients with a certificate of these may ask.")
@click.option("--metrics-host", metavar="HOST", help="Address to bind for metrics.  [default: that of HTTP]")
@click.option(
    "--profile",
    type=click.Choice(["embedded", "production", "production-dali"]),
    default="embedded",
    show_default=True,
    help="What the networks run on: the CPU, or a GPU in NVIDIA's Triton image.",
)
@click.option("--log", type=FOLDER, metavar="FILE", help="For tritonserver's log.  [default: a temporary file]")
@click.option("--json-logs", is_flag=True, help="Say everything, tritonserver's log too, as JSON lines on stderr.")
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Look this often for a new version in the repository, and serve it once it has answered.",
)
@click.option(
    "--drain",
    type=click.IntRange(min=1),
    default=25,
    show_default=True,
    metavar="SECONDS",
    help="How long accepted requests may take at the end.",
)
@click.option("--start-timeout", type=_SECONDS, default=180.0, show_default=True, help="Seconds to the first answer.")
def serve(
    repository: Path | None,
    host: str,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    metrics_host: str | None,
    profile: str,
    log: Path | None,
    json_logs: bool,
    watch: float | None,
    drain: int,
    start_timeout: float,
) -> None:
    """Serve a model repository with Triton until Ctrl-C."""
    from serve._tls import ServerTls
    from serve.released import RELEASED
    from serve.server import serve as run_server

    tls = ServerTls.of(tls_cert, tls_key, tls_client_ca)
    run_server(
        repository or RELEASED,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        tls=tls,
        metrics_host=metrics_host,
        profile=profile,
        log=log,
        json_logs=json_logs,
        watch=watch,
        drain=drain,
        start_timeout=start_timeout,
    )


@click.command()
@click.argument("images", nargs=-1, type=FOLDER, required=True)
@click.option("--url", help="A server's gRPC address, HOST:PORT.  [default: 127.0.0.1:8001, or a server for this call]")
@click.option("--repository", type=FOLDER, help=f"To serve for this call, where no server is asked.  {_RELEASED}")
@click.option("--out", type=FOLDER, help="Folder for masks, maps, overlays and predictions.csv.")
@click.option("--model", type=click.Choice(["mbdcnn", "mbdcnn_fused"]), default="mbdcnn", show_default=True)
@click.option("--concurrency", type=click.IntRange(1, 256), default=4, show_default=True, help="Images on the way.")
@click.option("--deadline", type=_SECONDS, default=60.0, show_default=True, help="Seconds that one image may take.")
@click.option("--wait", default=0.0, metavar="SECONDS", help="How long to wait for a server that is still starting.")
@click.option("--tls-ca", type=FOLDER, help="PEM of the server's authority; encrypts the connection.")
@click.option("--tls-cert", type=FOLDER, help="PEM of this client's certificate, for a server that asks for one.")
@click.option("--tls-key", type=FOLDER, help="PEM of the certificate's key.")
@click.option("--tls-server-name", metavar="NAME", help="On the server's certificate, where --url has another.")
@json_option
def predict(
    images: tuple[Path, ...],
    url: str | None,
    repository: Path | None,
    out: Path | None,
    model: str,
    concurrency: int,
    deadline: float,
    wait: float,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_server_name: str | None,
    as_json: bool,
) -> None:
    """Ask for the diagnosis and the lesion mask of images or folders of images.

    Asks the server that --url names or that runs on this machine; where none does, one is started for this call.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what gRPC's own log says of a failure, our sentence says too
    from serve._own_server import HERE, server_for
    from serve.client import Client, Retry, TlsFiles, wait_until_ready
    from serve.predict import list_images, predict_files

    list_images(images)  # what is wrong with the names is said before a server is started
    encrypted = tls_ca or tls_cert or tls_key or tls_server_name
    tls = TlsFiles(tls_ca, tls_cert, tls_key, tls_server_name) if encrypted else None
    url = url or (HERE if encrypted else None)
    with server_for(url, repository, wait, lambda line: click.echo(line, err=True)) as address:
        wait_until_ready(address, wait, model=model, tls=tls)
        # more patient than a program that answers somebody: a server that restarts is back within ten seconds or so
        with Client(address, deadline, model=model, tls=tls, retry=Retry(attempts=10)) as client:
            answers = predict_files(client, list(images), out, in_flight=concurrency, progress=sys.stderr.isatty())
    if as_json:
        click.echo(json.dumps(answers, indent=2))
    if any("error" in answer for answer in answers):
        raise SystemExit(2)
