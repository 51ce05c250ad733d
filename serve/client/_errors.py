"""What can go wrong with a request, as one sentence each, and which of it may be asked again at once."""

from __future__ import annotations

from mbdcnn.errors import UserError

# These say that the request was not begun. A connection that breaks later says nothing of the kind: the request may
# be what brought the server down, and sending it again would do so again.
_UNREACHED = (
    "failed to connect",
    "all backends failing",
    "connection refused",
    "no address",
    "dns resolution",
    "resolver",
)
_UNQUEUED = ("maximum queue size", "queue is full")
_WITHDRAWN = ("has no available versions", "not at ready state", "stopped accepting new")  # it knows the model, though
_EXPIRED = "timeout expired"  # the server's own deadline, which the client's request set
_TLS = ("ssl", "certificate", "handshake", "verification check")
_UNKNOWN_OUTPUT = "unexpected inference output"
_HUNG_UP = ("socket closed", "connection reset")


class ServerError(UserError):
    """The server is absent, not ready, or does not serve this model: no image would be answered."""


class NotAnsweredError(UserError):
    """One image has no answer; others may well be answered."""


class ImageRefusedError(NotAnsweredError):
    """The server, or the check before sending, refuses the image."""


class DeadlineExceededError(NotAnsweredError):
    """The answer did not come in time; the server may be busy or hung."""


class ServerBusyError(NotAnsweredError):
    """The server's queue was full each time that it was asked."""


class AnswerLostError(NotAnsweredError):
    """The server had the request and failed or went away; whether it was worked on is unknown."""


def is_unprocessed(status: str, message: str) -> bool:
    """Whether a failure says that the request was never worked on, so that asking again can do no harm."""
    words = message.lower()
    if _says(words, _TLS):  # trust does not come by waiting
        return False
    if status == "NOT_FOUND":
        return _says(words, _WITHDRAWN)
    return status == "UNAVAILABLE" and _says(words, (*_UNREACHED, *_UNQUEUED, *_WITHDRAWN))


def explain(status: str, message: str, *, url: str, model: str, name: str, deadline: float) -> UserError:
    """One sentence for a gRPC failure.

    Args:
        status: of gRPC, such as `UNAVAILABLE`; empty when there is none.
        message: the server's, or gRPC's.
        url: the server's address.
        model: that was asked.
        name: what the sentence calls the image.
        deadline: of the request, in seconds.
    """
    words = message.lower()
    if status == "INVALID_ARGUMENT" and _UNKNOWN_OUTPUT in words:
        return ServerError(
            f"The server at {url} has a repository from before all of these outputs ({sentence(message)}); export the "
            "run again, or ask for other outputs."
        )
    if status == "INVALID_ARGUMENT":
        return ImageRefusedError(f"{name}: {sentence(message)}.")
    if status == "DEADLINE_EXCEEDED" or (status == "UNAVAILABLE" and _EXPIRED in words):
        return DeadlineExceededError(f"{name}: no answer from {url} within {deadline:g} s; ask again later.")
    if status in ("NOT_FOUND", "UNAVAILABLE") and _says(words, _WITHDRAWN):
        return ServerError(f"The server at {url} is starting or ending and answers nothing new; ask again in a moment.")
    if status == "NOT_FOUND" or "unknown model" in words:
        return ServerError(
            f"The server at {url} does not serve the model {model}; give it a repository that `mbdcnn export` wrote."
        )
    if status == "UNAVAILABLE" and _says(words, _TLS):
        return ServerError(
            f"The server at {url} is not the one that --tls-ca vouches for, or does not speak TLS; "
            "give the authority of its certificate and an address that the certificate names."
        )
    if status == "UNAVAILABLE" and _says(words, _UNREACHED) and _says(words, _HUNG_UP):
        return ServerError(
            f"The server at {url} hangs up on this client; it may want TLS (--tls-ca), with a certificate of the "
            "client (--tls-cert, --tls-key), or the address may be of another service."
        )
    if status == "UNAVAILABLE" and _says(words, _UNREACHED):
        return ServerError(
            f"No server answers at {url}; start one with `mbdcnn serve --repository REPO` or correct --url."
        )
    if status == "UNAVAILABLE" and _says(words, _UNQUEUED):
        return ServerBusyError(f"{name}: the queue of the server at {url} is full; ask again later, or less at once.")
    if status in ("UNAVAILABLE", "INTERNAL", "CANCELLED", "UNKNOWN"):
        return AnswerLostError(
            f"{name}: the server at {url} failed on it or went away ({status}); it may be restarting, ask again."
        )
    return ServerError(f"The server at {url} could not answer for {name} ({status or 'no status'}).")


def sentence(message: str) -> str:
    """The model's own words without the path through the ensemble that Triton puts before them."""
    if message.startswith("in ensemble"):
        message = message.partition(", ")[2]
    if message.startswith("Failed to process the request(s) for model"):
        message = message.partition("message: ")[2]
    return message.strip().rstrip(".") or "the server refuses it without a reason"


def _says(words: str, any_of: tuple[str, ...]) -> bool:
    return any(word in words for word in any_of)
