"""Who is who among the nodes of a policy's network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Roles(NamedTuple):
    """Of every node."""

    computes: np.ndarray  # [N] bool, the workers
    evaluated: np.ndarray  # [N] bool, whose mean is the model
