"""tox.ini's agreement environments: which suite they run, and with which releases."""

import configparser
import re
from pathlib import Path

import yaml
from packaging.version import Version

ROOT = Path(__file__).parents[1]
AGES = ("oldest", "previous", "newest")
SUBJECTS = ("art", "foolbox", "torchattacks", "torch", "keras")


def section():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    (name,) = [each for each in parser.sections() if each.startswith("testenv:agree-")]
    assert name == f"testenv:agree-{{{','.join(SUBJECTS)}}}-{{{','.join((*AGES, 'release'))}}}"
    return parser[name]


def lines(text: str, *factors: str) -> list[str]:
    """The lines that hold for an environment with these factors, as tox reads them."""
    found = []
    for line in text.strip().splitlines():
        match = re.match(r"([\w!,-]+): (.*)", line)
        if match is None:
            found.append(line)
        elif any(_holds(one, factors) for one in match[1].split(",")):
            found.append(match[2])
    return found


def _holds(condition: str, factors: tuple[str, ...]) -> bool:
    return all((word[1:] not in factors) if word[0] == "!" else word in factors for word in condition.split("-"))


def test_each_subject_has_a_study_and_three_releases_in_order():
    for subject in SUBJECTS:
        releases = []
        for age in AGES:
            told = dict(line.split(" = ") for line in lines(section()["set_env"], subject, age))
            assert told["SUITE"] == subject
            releases.append(Version(told["RELEASE"]))
        assert releases == sorted(set(releases))
        assert (ROOT / "suites" / "studies" / f"versions-{subject}.yaml").is_file()


def test_the_environments_are_light():
    for subject in SUBJECTS:
        deps = " ".join(lines(section()["deps"], subject, "newest"))
        assert ("tensorflow" in deps) == ("keras" in deps) == (subject == "keras")
        assert deps.count("torch==") == 1
        assert "torchvision" not in deps


def test_an_environment_installs_the_libraries_that_its_study_attacks_with_and_no_others():
    packages = {"art": "adversarial-robustness-toolbox", "foolbox": "foolbox", "torchattacks": "torchattacks"}
    for subject in SUBJECTS:
        study = yaml.safe_load((ROOT / "suites" / "studies" / f"versions-{subject}.yaml").read_text())
        words = " ".join(lines(section()["commands_pre"], subject, "newest")).split()
        installed = {word.split("==")[0] for word in words if "==" in word}
        assert installed == {packages[name] for name in study["libraries"]}


def test_a_row_that_fails_fails_no_environment_but_a_missing_table_does():
    run, table = section()["commands"].strip().splitlines()
    assert run.startswith("- sparring run versions-")
    assert table.startswith("sparring table ")
    assert run.split("--out ")[1].split()[0] == table.split()[2]
