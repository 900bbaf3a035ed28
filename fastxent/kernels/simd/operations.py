"""Every vector operation under one name, for `rows.pair`."""

from fastxent.kernels.simd.arithmetic import *  # noqa: F403
from fastxent.kernels.simd.exponentials import *  # noqa: F403
from fastxent.kernels.simd.fields import *  # noqa: F403
from fastxent.kernels.simd.memory import *  # noqa: F403
