"""A .npy file inside JSON, read without trusting what its header claims."""

from __future__ import annotations

import base64
import binascii
import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tutelage_client.errors import BadScores


def read_npy(encoded: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Float32 numbers of this shape from base64. Nothing is allocated, and nothing unpickled, on the header's word.

    Raises:
        BadScores: not base64, not .npy, another shape, another dtype, or more or fewer bytes.
    """
    try:
        file = io.BytesIO(base64.b64decode(encoded, validate=True))
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(file)]
        found, fortran, dtype = read_header(file)
    except (TypeError, ValueError, KeyError, binascii.Error) as error:
        raise BadScores("the upstream's scores are no .npy file in base64") from error
    if found != shape:
        raise BadScores(f"the upstream scored {list(found)} rows and ids, asked were {list(shape)}", "length")
    content = file.read()
    if dtype != np.dtype("<f4") or len(content) != math.prod(shape) * 4:
        raise BadScores(f"the upstream's scores are {dtype} in {len(content)} bytes; float32 was agreed")
    return np.frombuffer(content, dtype="<f4").reshape(shape, order="F" if fortran else "C")
