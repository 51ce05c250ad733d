"""What a model card says of the data that no file of a repository tells."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from mbdcnn.errors import UserError, unknown

NOT_STATED = "Not stated."


@dataclass(frozen=True)
class About:
    """Sentences about data and weights; `licence` is an identifier of Hugging Face's list."""

    data: str = NOT_STATED
    data_licence: str = NOT_STATED
    weights_licence: str = "It follows from the images and the pretrained weights that were used."
    licence: str = "other"
    acquisition: str = NOT_STATED
    reference: str = NOT_STATED
    annotators: str = NOT_STATED
    agreement: str = NOT_STATED
    deidentification: str = NOT_STATED
    people: str = NOT_STATED
    disjoint: str = NOT_STATED


def read_about(path: Path | None) -> About:
    """Read a YAML file of `About`'s fields.

    Raises:
        UserError: it cannot be read, is no mapping of texts, or has a field that there is not.
    """
    if path is None:
        return About()
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or "it is no YAML"
        raise UserError(f"{path} cannot be read ({reason}); name a YAML file like serve/about/isic2017.yaml.") from None
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise UserError(f"{path} is no list of fields and texts; write it like serve/about/isic2017.yaml.")
    names = [field.name for field in fields(About)]
    for name in given:
        if name not in names:
            raise unknown("field", str(name), names)
    return About(**{name: " ".join(value.split()) for name, value in given.items()})
