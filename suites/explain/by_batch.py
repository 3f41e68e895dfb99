"""What only a batch shows: single images agree and a batch doesn't, as where a loss is divided by the batch's size."""

from __future__ import annotations

import numpy as np

from sparring.suites.explain.bench import Bench, Finding, first_meeting, judge, rerun
from sparring.suites.explain.by_trial import find_by_parameters, goes_on
from sparring.suites.explain.cotangents import Rescaled
from sparring.suites.explain.habits import minimal
from sparring.suites.explain.habits.replay import read_loss
from sparring.suites.explain.paths import Apart, apart, batch_paths, nearest_points


def find_by_batch(bench: Bench, together: Apart, noise: int) -> Finding:
    """Look for the change that makes the batches meet: a loss divided by the batch, or images that share more.

    ``together``: how far apart the batches' images are; ``noise``: how many pixels differ by rounding alone.
    """
    most = max(noise, together.pixels // 20)
    if (finding := _by_reduction(bench, most)) is not None:
        return finding
    _by_batch_paths(bench)
    return _by_size(bench, together, most) or first_meeting(bench) or find_by_parameters(bench, in_a_batch=True)


def _by_reduction(bench: Bench, most: int) -> Finding | None:
    """One library again with its loss multiplied by what the other's is."""
    names, ratio = bench.names, batch_scale(bench, 1) / batch_scale(bench, 0)
    if abs(ratio - 1) < 0.01:
        return None
    text = (
        f"in a batch of {len(bench.x)} the loss of {names[1]} is {ratio:.4g} times that of {names[0]}: "
        "one is a mean over the batch, the other a sum"
    )
    # what a mean lost in its own arithmetic no factor brings back: then the sum loses it by the same factor
    for which, factor in sorted(((0, ratio), (1, 1 / ratio)), key=lambda item: -item[1]):
        images = rerun(bench, which, classifier=Rescaled(bench.classifier, factor), at_once=None)
        ran = f"{names[which]} itself, rescaled"
        if judge(bench, "loss reduction", text, ran, images, 1 - which, most=most, in_a_batch=True).meets:
            return first_meeting(bench)
    return None


def batch_scale(bench: Bench, which: int) -> float:
    """By what a library's loss is multiplied in the batch: 1 for a sum, and where no one number tells."""
    queries = bench.traces[which].batch_queries
    rows = [(query.x, query.cotangent) for query in queries if query.cotangent is not None]
    if not rows or not bench.has_tape:
        return 1.0
    # the largest cotangents tell best; a query of a batch doesn't tell its image, so its label is looked for
    rows = sorted(rows, key=lambda row: -float(np.abs(row[1]).max()))[:32]
    cotangents = np.stack([cotangent.astype(np.float64) for _, cotangent in rows])[None]
    logits = bench.classifier.logits(np.stack([x for x, _ in rows]))[None]
    loss = read_loss(cotangents, logits, np.argmin(cotangents, axis=-1), bench.request.targeted)
    scales = np.abs(loss.scale[(loss.label >= 0) & (loss.error < 1e-3) & (loss.size > 1e-2)])
    steady = len(scales) and np.ptp(scales) < 1e-3 * scales.max()
    return float(np.median(scales)) if steady else 1.0


def _by_batch_paths(bench: Bench) -> None:
    """DeepFool and CW: what the ways through the batch show, where every query asks about all of it."""
    if bench.request.name not in minimal.KNOWN:
        return
    a, b = batch_paths(bench.traces[0]), batch_paths(bench.traces[1])
    if not all(path.queries for path in (*a, *b)) or goes_on(bench, a, b, in_a_batch=True):
        return
    ways = [[np.stack([query.x for query in path.queries]) for path in side] for side in (a, b)]
    if all(one.shape == two.shape and not apart(one, two).pixels for one, two in zip(*ways, strict=True)):
        text = f"of the same points in the batch, {bench.names[1]} returns another than {bench.names[0]} does"
        images = nearest_points(a, bench.traces[1].batch_images)
        ran = f"{bench.names[0]}'s own path in the batch"
        judge(bench, "best against last iterate", text, ran, images, 1, in_a_batch=True)


def _by_size(bench: Bench, together: Apart, most: int) -> Finding | None:
    """One library again with one image a batch, or with as many at once as the other asks about."""
    names, traces = bench.names, bench.traces
    shared = [apart(trace.images, trace.batch_images).pixels for trace in traces]
    sizes = [max((query.batch for query in trace.batch_queries), default=0) for trace in traces]
    first = int(shared[1] >= shared[0])
    text = (
        f"{names[first]}'s image depends on the other images of its batch (it asks about up to "
        f"{sizes[first]} at once, {names[1 - first]} about {sizes[1 - first]}); one at a time they agree"
    )
    reruns = [(first, 1), (1 - first, 1)]
    reruns += [(which, sizes[1 - which]) for which in (0, 1) if 1 < sizes[1 - which] < len(bench.x)]
    for which, size in reruns:
        images = rerun(bench, which, at_once=size)
        # the other may depend on its batch a little, too, as where a mean of the loss is small
        allowed = max(most, min(shared[1 - which], together.pixels // 2)) if which == first else most
        ran = f"{names[which]} itself, batches of {size}"
        if judge(bench, "batch size", text, ran, images, 1 - which, most=allowed, in_a_batch=True).meets:
            return first_meeting(bench)
    return None
