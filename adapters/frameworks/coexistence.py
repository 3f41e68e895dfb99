"""TensorFlow and a CUDA build of torch in one process: the one place that keeps them from aborting it.

Both bring their own LLVM, and both register its command line options in one global table. When triton (which that torch
wheel brings, and which any torch optimizer and ``import torchvision`` load) comes *after* TensorFlow, LLVM finds
``bitcode-mdindex-threshold`` registered twice and calls ``abort()``: no exception, no message that names the cause. The
other order is harmless, and so is a torch that sees no triton; it only loses ``torch.compile`` on a GPU. JAX, in
whatever order, changes nothing.
"""

from __future__ import annotations

import sys
from contextlib import suppress

_LIBRARY = "triton._C.libtriton"


def guard() -> None:
    """Make any later import of TensorFlow, torch, torchvision and triton in this process harmless.

    Call it before importing TensorFlow, and before using torch where TensorFlow may be loaded. It can be called any
    number of times, and does nothing where there is no triton.
    """
    if _LIBRARY in sys.modules:
        return
    if "tensorflow" in sys.modules:
        # None makes `import triton` an ImportError, and torch takes that for 'not installed'
        sys.modules["triton"] = None  # type: ignore[assignment]
    else:
        with suppress(ImportError):
            __import__(_LIBRARY)
