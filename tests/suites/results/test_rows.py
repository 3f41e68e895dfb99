"""What a run's rows say, from the stored arrays to the columns."""

import numpy as np
import pytest

from sparring.suites.results import store
from sparring.suites.results.metrics import MACRO, RANKING, scores
from sparring.suites.results.rows import COLUMNS, MEASURED
from sparring.suites.runner.run import run

SUITE = {
    "name": "votes",
    "data": {"name": "digits", "samples": 40},
    "models": [
        {"name": "a", "architecture": "dnn(units=(16, 8))", "framework": "torch", "train": {"epochs": 1}},
        {
            "name": "b",
            "architecture": "cnn_batchnorm(filters=(4, 4), units=8)",
            "framework": "torch",
            "attack": False,
            "train": {"epochs": 1},
        },
        {"name": "vote", "ensemble": ["a", "b"], "combine": "vote"},
    ],
    "libraries": ["sparring"],
    "attacks": [{"attack": "pixel-swap", "steps": 6}],
    "profiles": {"smoke": {"data": {"name": "digits", "samples": 24}}},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run(SUITE, out=tmp_path_factory.mktemp("votes") / "out", profile="smoke")


def test_every_column_is_there_and_a_number_where_it_should_be(done):
    frame = done.frame.set_index("model")
    assert tuple(done.frame.columns) == COLUMNS
    assert list(frame["status"]) == ["done", "done"]
    assert set(frame["profile"]) == {"smoke"}
    assert set(frame["n"]) == {24}
    assert (frame[list(MEASURED)].dtypes == np.float64).all()
    for name in ("a", "vote"):
        row = frame.loc[name]
        known = [key for key in MEASURED if not key.endswith(("_low", "_high")) and not np.isnan(row[key])]
        assert {"clean_accuracy", "robust_accuracy", "drop_accuracy", *MACRO} <= set(known)
        assert all(row[f"{key}_low"] <= row[key] <= row[f"{key}_high"] for key in known)
        assert row["seconds_per_image"] == pytest.approx(row["seconds"] / 24)
        assert row["prediction_seconds_per_image"] > 0


def test_rows_are_the_scores_of_the_stored_arrays(done):
    frame = done.frame.set_index("model")
    result = store.read(done.folder, frame.loc["a", "cell_id"])
    found = scores(result.arrays)
    assert {"logits_clean", "logits_adv"} <= set(result.arrays)
    for key in MEASURED:
        assert frame.loc["a", key] == pytest.approx(found[key], nan_ok=True), key


def test_a_model_that_only_decides_ranks_nothing(done):
    frame = done.frame.set_index("model")
    for key in (*RANKING, "top5"):
        for prefix in ("", "clean_", "drop_"):
            assert np.isnan(frame.loc["vote", f"{prefix}{key}"])
            assert not np.isnan(frame.loc["a", f"{prefix}{key}"])
