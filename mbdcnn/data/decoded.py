"""An image or mask that an index names, decoded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError
from mbdcnn.preprocessing import ImageError

_MEND = "run `mbdcnn data index` again to leave it out"


def decoded(decode: Callable[[bytes], np.ndarray], manifest: Manifest, path: str, mend: str = _MEND) -> np.ndarray:
    """An image or mask of the data set.

    Args:
        decode: `decode_image` or `decode_mask`.
        manifest: the data set's index.
        path: relative to its root.
        mend: what the user can do where it fails.

    Raises:
        UserError: it is gone or cannot be decoded.
    """
    try:
        return decode(manifest.read(path))
    except OSError:
        reason = "the file cannot be read"
    except ImageError as error:
        reason = str(error)
    raise UserError(f"{manifest.root / path}: {reason}; {mend}.")
