"""torchattacks' APGD, APGDT and Square with draws that hang on the seed alone, not on which images share the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sparring.adapters.rewriting import rewritten

START = (
    ("torch.rand(x.shape)", "torch.rand(x.shape[1:]).expand(x.shape)"),
    ("torch.randn(x.shape)", "torch.randn(x.shape[1:]).expand(x.shape)"),
)
SIGNS = (
    ("[x.shape[0], c, 1, w]", "[1, c, 1, w]"),
    ("[x.shape[0], c, 1, 1]", "[1, c, 1, 1]"),
    ("[x_curr.shape[0], c, 1, 1]", "[1, c, 1, 1]"),
)


@contextmanager
def draws_for_each_image() -> Iterator[None]:
    """Within the context every image gets the draws that it would get alone.

    torchattacks draws for the batch: an image's start depends on its place in it, and later draws on how many images
    are left, so that in an ensemble of attacks it hangs on its neighbours which images fall.
    """
    from torchattacks import APGD, APGDT, Square

    with ExitStack() as stack:
        for attack in (APGD, APGDT):
            stack.enter_context(rewritten(attack, "attack_single_run", *START))
        stack.enter_context(rewritten(Square, "attack_single_run", *SIGNS))
        yield


@contextmanager
def steps_of_each_image() -> Iterator[None]:
    """Within the context APGDT takes each image's own step under l2, where it takes the first image's for all."""
    from torchattacks import APGDT

    with rewritten(APGDT, "attack_single_run", ("step_size[0] * grad", "step_size * grad")):
        yield
