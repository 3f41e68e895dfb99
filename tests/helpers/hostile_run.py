"""A small study whose every name is one that a careless page would run, break on, or lose."""

import json

import pandas as pd
import study_run

SCRIPT = "<script>alert(1)</script>"
MODEL = SCRIPT
DEFENSE = "blur\u202ework </script> & \"50 %\" 'q' _x_ \U0001f642"
DATASET = 'set"</script><img src=x onerror=alert(2)>'
CLASSES = ["<b>zero</b>", "one\"'", "two</script>", *(f"class {i}" for i in range(3, 10))]
REASON = "ValueError: </script><script>alert(3)</script>"
PUBLISHED = {
    "source": f"A study {SCRIPT}",
    "remarks": "Says it twice & leaves it open.",
    "values": [
        {"data": DATASET, "model": MODEL, "attack": "fgsm", "metrics": {"accuracy": 0.05}},
        {"data": DATASET, "model": MODEL, "attack": "none", "metrics": {"accuracy": 0.94}},
    ],
}


def write_hostile(run) -> None:
    """Write it: one data set and model, undefended and defended."""
    defenses = {"none": ("",), DEFENSE: ("unaware", "aware")}
    study_run.write_study(
        run,
        datasets=(DATASET,),
        models=(MODEL,),
        defenses=defenses,
        seeds=(0,),
        n=40,
        shape=(3, 6, 6),
        attacks=(("fgsm", {"eps": 0.1}, 0.6), ("pgd", {"eps": 0.1}, 0.4)),
        published=PUBLISHED,
    )
    frame = pd.read_parquet(run / "results.parquet")
    frame.loc[frame["status"] == "failed", "reason"] = REASON
    frame.loc[0, "notes"] = f"it differs {SCRIPT}"
    frame.to_parquet(run / "results.parquet", index=False)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["data"]["classes"] = CLASSES
    manifest["suite"] |= {"description": f"Is {SCRIPT} safe?", "protocol": "First this.\n\nThen <i>that</i>."}
    manifest |= {
        "command": f"sparring run '{SCRIPT}' --profile small",
        "sparring": "0.1.0",
        "device": "cpu",
        "reduced": [
            {"key": "data.samples", "here": 40, "paper": 10000},
            {"key": SCRIPT, "here": [1, 2], "paper": None},
        ],
        "packages": {"torch": "2.13.0", "Zebra": "1.0"},
        "machine": {"processor": SCRIPT, "cores": 2, "platform": "machine \ud83d", "gpus": []},  # half a surrogate pair
    }
    (run / "manifest.json").write_text(json.dumps(manifest))
