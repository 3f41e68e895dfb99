"""What earlier versions stored as failures of cells, and what of it was one."""

import pytest

from sparring.suites.results import store
from sparring.suites.results.disruptions import stored_by_mistake

DISRUPTED = [
    "BrokenPipeError: [Errno 32] Broken pipe",
    "OSError: [Errno 28] No space left on device",
    "torchattacks's PGD raised OSError: [Errno 28] No space left on device: '/tmp/x'",
    "PermissionError: [Errno 13] Permission denied: '/runs/out/cells/.0123-abc'",
    "the process was killed (SIGKILL): most likely there was no memory left",
    "the process crashed (SIGTERM); it said last: something",
    "the process crashed (SIGBUS)",
    "the process ended with code 0; it said last: 2026-01-01 I tensorflow",
    "the run is over",
    "the process of an ensemble's member ended with code -9",
    "the data changed: digits now has the digest 0123456789ab",
    "the data to train the attack on changed: digits",
    "the cache /home/me/.cache/sparring/decoded can't be written (Read-only file system): set SPARRING_CACHE",
    "/home/me/.cache/sparring/models/0123456789abcdef0123456789abcdef/weights.safetensors is gone: run the suite again",
    "weights: /c/models/0123456789abcdef0123456789abcdef/weights.npz can't be read: File is not a zip file",
]
FAILED = [
    "foolbox's LinfPGD raised RuntimeError: index 7 is out of range",
    "the process crashed (SIGABRT); it said last: terminate called",
    "the process crashed (SIGSEGV)",
    "the process ended with code 3",
    "the process of an ensemble's member ended with code -11",
    "the process of an ensemble's member crashed (SIGSEGV)",
    "out of memory",
    "SystemExit: 0",
    "FileNotFoundError: [Errno 2] No such file or directory: 'mine.npz'",
]


@pytest.mark.parametrize("reason", DISRUPTED)
def test_a_disruption_is_no_result(reason, tmp_path):
    assert stored_by_mistake("failed", reason)
    store.write(tmp_path, "abc", {}, store.Result("failed", reason))
    assert not store.has(tmp_path, "abc")
    assert store.read(tmp_path, "abc") is None
    store.write(tmp_path, "abc", {}, store.Result("unsupported", "now it is known"))  # in its place
    assert store.read(tmp_path, "abc").reason == "now it is known"


@pytest.mark.parametrize("reason", FAILED)
def test_a_failure_stays_one(reason, tmp_path):
    assert not stored_by_mistake("failed", reason)
    store.write(tmp_path, "abc", {}, store.Result("failed", reason))
    assert store.read(tmp_path, "abc").reason == reason


def test_whatever_is_done_is_done():
    assert not stored_by_mistake("done", "No space left on device")
