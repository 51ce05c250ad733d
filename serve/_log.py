"""What a server and its supervisor say, as lines for people or as JSON for programs. No image content is ever in it."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime, timezone

LOG = logging.getLogger("mbdcnn.serve")

_LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
# E1123 13:48:22.265731 2734 main.cc:535] "failed to stop server"
_LINE = re.compile(r'^([IWEF])\d{4} [\d:.]+ \d+ ([\w.]+:\d+)\] ?"?(.*?)"?$')


def parse_line(line: str) -> tuple[int, str | None, str]:
    """A line of tritonserver's log: its level, the place in Triton's source if it names one, and what it says."""
    found = _LINE.match(line)
    if not found:
        return logging.INFO, None, line
    return _LEVELS[found[1]], found[2], found[3]


def relay(line: str) -> None:
    """Log a line of tritonserver's as one of ours."""
    level, place, message = parse_line(line)
    LOG.log(level, message, extra={"source": "tritonserver", "event": None, "place": place})


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `source`, `event` or `place` where there is one, `message`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "source": getattr(record, "source", "supervisor"),
            "event": getattr(record, "event", None),
            "place": getattr(record, "place", None),
            "message": record.getMessage(),
        }
        return json.dumps({name: value for name, value in fields.items() if value is not None})


def handler(as_json: bool) -> logging.Handler:
    """To standard error; tritonserver's lines go there only as JSON."""
    made = logging.StreamHandler(sys.stderr)
    if as_json:
        made.setFormatter(JsonFormatter())
    return made
