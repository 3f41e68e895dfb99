"""The command line from outside: exit codes, messages, formats, and that it answers at once."""

import json
import os
import subprocess
import sys

import pytest


def test_help_imports_nothing_heavy():
    code = "import sparring.suites.cli.app, sys; print([m for m in ('torch','tensorflow','keras','pandas','numpy','art','foolbox','pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_run_table_and_what_they_say(sparring, command, suite_file, tmp_path):
    done = sparring("run", suite_file, "--out", "out", "--set", "data.samples=16")
    assert done.returncode == 0, done.stderr
    assert "robust accuracy on 16 images of digits" in done.stdout
    assert "Next: sparring table out" in done.stdout
    assert "train cnn" in done.stderr or "8 cells to compute" in done.stderr
    for form, mark in (("md", "**"), ("csv", ","), ("latex", "tabular"), ("rich", "fgsm")):
        table = command("table", "out", "--format", form)
        assert table.returncode == 0
        assert mark in table.stdout
        assert "torchattacks" in table.stdout
    assert command("table", "out", "--format", "parquet").returncode == 2
    assert command("table", "out", "--format", "svg", "--out", "t.svg").returncode == 0
    assert "<svg" in (tmp_path / "t.svg").read_text()
    assert command("table", "out", "--value", "seconds").returncode == 0


def test_a_dry_run_shows_the_plan_and_writes_nothing(command, suite_file, tmp_path):
    cache = tmp_path / "cache"
    done = command("run", suite_file, "--out", "out", "--dry-run", SPARRING_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert "train cnn (2 epochs)" in done.stdout
    assert not (tmp_path / "out").exists()
    assert not list(cache.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "no-such-suite.yaml"], "no-such-suite.yaml"),
        (["run", "quikstart"], "quickstart"),
        (["table", "nowhere"], "results.parquet is missing"),
        (["list", "atacks"], "'attacks'"),
        (["run", "quickstart", "--profile", "papr"], "smoke"),
        (["run", "quickstart", "--retry", "all"], "failed"),
        (["run", "quickstart", "--device", "tpu"], "auto, cpu, cuda"),
        (["run", "quickstart", "--set", "data.samples"], "path=value"),
    ],
)
def test_bad_words_are_one_message_and_exit_code_2(words, said, command, tmp_path):
    done = command(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_schema_is_json(command):
    schema = json.loads(command("schema").stdout)
    assert {"data", "models", "attacks"} <= set(schema["properties"])


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            "attacks",
            ["fgsm", "hopskipjump", "art:NewtonFool", "foolbox:L2FMNAttack", "torchattacks:Jitter", "keras-tensorflow"],
        ),
        ("parameters", ["overshoot", "initial_const"]),
        ("libraries", ["art", "foolbox", "torchattacks"]),
        ("models", ["cnn", "rnn", "resnet18"]),
        ("datasets", ["digits", "embedded"]),
        ("studies", ["quickstart"]),
        ("operators", ["ai.onnx.ml", "LayerNormalization"]),
        ("defenses", ["gaussian-blur", "madry", "art:JpegCompression", "not for classifiers of images"]),
    ],
)
def test_lists_name_what_there_is(what, words, command):
    done = command("list", what)
    assert done.returncode == 0, done.stderr
    for word in words:
        assert word in done.stdout


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"{sys.executable} -c 'from sparring.suites.cli.app import main; main()' list parameters | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=os.environ, cwd=tmp_path)
    assert "Traceback" not in done.stderr
