"""TensorFlow and a CUDA build of torch abort a process that holds both: this file alone prevents it.

Each brings its own LLVM, and each LLVM registers its command line options in one global table. A CUDA build of torch
brings triton, which any torch optimizer and ``import torchvision`` load. When triton comes *after* TensorFlow, LLVM
meets ``bitcode-mdindex-threshold`` a second time and calls ``abort()``: there is no exception, and no message that
names the cause. The other order is harmless. A torch without triton is harmless too, and only loses ``torch.compile``
on a GPU. JAX changes nothing.
"""

from __future__ import annotations

import sys
from contextlib import suppress

_LIBRARY = "triton._C.libtriton"


def guard() -> None:
    """Make any later import of TensorFlow, torch, torchvision and triton in this process harmless.

    Call it before importing TensorFlow, and before using torch where TensorFlow may be loaded. More calls do no harm,
    and without triton it does nothing.
    """
    if _LIBRARY in sys.modules:
        return
    if "tensorflow" in sys.modules:
        # None makes `import triton` an ImportError, and torch takes that for 'not installed'
        sys.modules["triton"] = None  # type: ignore[assignment]
    else:
        with suppress(ImportError):
            __import__(_LIBRARY)
