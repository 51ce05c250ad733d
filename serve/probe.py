"""Ask a server for one real, tiny inference: `python -m serve.probe --url http://127.0.0.1:8000`.

Triton's own health addresses stay true when a model's process has died, so startup, readiness and liveness probes ask
for an answer instead. The code of exit is 0 when the server answers, or refuses only because its queue is full: it is
then busy, not broken. Else it is 1, with one sentence on standard error. The standard library is all that is needed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import struct
import sys
import zlib
from urllib.parse import urlsplit

MODEL = "mbdcnn"
OUTPUTS = ("PROBABILITIES", "MASK_PNG")  # between them they need every network
_QUEUE_FULL = "maximum queue size"  # Triton's words; the status alone is also that of a server that is ending


class ProbeError(Exception):
    """The server is absent, or answered wrongly; the message is one sentence."""


class ProbeTimeoutError(ProbeError):
    """No answer in time: the server is slow, or hung."""


def ask(url: str, model: str = MODEL, deadline: float = 10.0) -> bool:
    """Ask for the answers to a tiny image.

    Args:
        url: `http://HOST:PORT` of the server.
        model: a model of the tensors that the README lists.
        deadline: seconds that connecting, and then each wait for data, may take.

    Returns:
        True when the model answered, False when its queue is full.

    Raises:
        ProbeError: no server, a refusal, or an answer without content.
        ProbeTimeoutError: no answer in time.
    """
    image = struct.pack("<I", len(TINY_IMAGE)) + TINY_IMAGE
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": "IMAGE",
                    "shape": [1, 1],
                    "datatype": "BYTES",
                    "parameters": {"binary_data_size": len(image)},
                }
            ],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in OUTPUTS],
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"}
    status, fields, body = request(url, f"/v2/models/{model}/infer", deadline, header + image, headers)
    if status == 200:
        _check_content(url, model, fields, body)
        return True
    reason = body[:300].decode(errors="replace")
    if status == 503 and _QUEUE_FULL in reason:
        return False
    raise ProbeError(f"The server at {url} fails on a tiny image with the model {model} (HTTP {status}: {reason}).")


def request(
    url: str, path: str, deadline: float, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """One request on a connection of its own, past any proxy: status, header fields and body.

    Raises:
        ProbeError: nobody answers there.
        ProbeTimeoutError: no answer in time.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=deadline)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.msg, answer.read()
    except TimeoutError:
        raise ProbeTimeoutError(f"No answer from {url} within {deadline:g} s.") from None
    except (OSError, http.client.HTTPException) as error:
        raise ProbeError(f"No server answers at {url} ({type(error).__name__}).") from None
    finally:
        connection.close()


def _check_content(url: str, model: str, fields: http.client.HTTPMessage, body: bytes) -> None:
    """Refuse an answer whose tensors are empty: a model's process with a wrong NumPy answers so."""
    try:
        length = int(fields.get("Inference-Header-Content-Length", ""))
        outputs = json.loads(body[:length])["outputs"]
        sizes = {output["name"]: output["parameters"]["binary_data_size"] for output in outputs}
    except (ValueError, KeyError, TypeError):
        sizes = {}
    if not all(sizes.get(name) for name in OUTPUTS):
        raise ProbeError(f"The server at {url} answers for the model {model} without content.")


def _tiny_png(side: int = 16) -> bytes:
    """A skin-coloured PNG, drawn without Pillow."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((200, 150, 130)) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


TINY_IMAGE = _tiny_png()


def _url(text: str) -> str:
    """Check the address that a user gives."""
    try:
        parts = urlsplit(text)
        good = parts.scheme == "http" and bool(parts.hostname) and parts.port is not None
    except ValueError:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"{text} is not an address such as http://127.0.0.1:8000")
    return text


def main(arguments: list[str] | None = None) -> int:
    """Entry of the program; returns the code of exit."""
    parser = argparse.ArgumentParser(prog="python -m serve.probe", description="Ask a server for one tiny inference.")
    parser.add_argument("--url", type=_url, default="http://127.0.0.1:8000", help="the server's HTTP address")
    parser.add_argument("--model", default=MODEL, help="the model to ask (default: %(default)s)")
    parser.add_argument("--deadline", type=float, default=10.0, metavar="SECONDS", help="default: %(default)g")
    given = parser.parse_args(arguments)
    try:
        answered = ask(given.url, given.model, given.deadline)
    except ProbeError as error:
        print(f"probe: {error}", file=sys.stderr)
        return 1
    if not answered:
        print(f"probe: the queue of {given.model} at {given.url} is full; the server lives.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
