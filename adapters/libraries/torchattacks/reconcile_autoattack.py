"""The differences between torchattacks' AutoAttack and its source, and how they are taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from sparring.adapters.attacks.library import Call, Reconcile
from sparring.adapters.libraries.rewriting import rewritten

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
    """Within the context every image gets the draws that it would get alone: they depend on the seed only.

    torchattacks draws for the batch: an image's start depends on its place in it, and later draws on how many images
    are left, so that within AutoAttack an image falls or not depending on the others.
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


@contextmanager
def schedule_as_it_is() -> Iterator[None]:
    """Within the context Square's windows shrink as in a search of 10,000 queries, however few it has."""
    from torchattacks import Square

    with rewritten(Square, "p_selection", ("if self.rescale_schedule:", "if False:")):
        yield


def _within(context: Callable[[], AbstractContextManager[None]]) -> Reconcile:
    @contextmanager
    def reconcile(call: Call) -> Iterator[Call]:
        with context():
            yield call

    return reconcile


RECONCILIATIONS: dict[str, Reconcile] = {
    "autoattack-draws-of-the-batch": _within(draws_for_each_image),
    "autoattack-l2-one-step": _within(steps_of_each_image),
    "autoattack-square-rescaled": _within(schedule_as_it_is),
}
