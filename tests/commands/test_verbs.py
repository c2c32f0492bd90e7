import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import vitresnas
from vitresnas.__main__ import VERBS, main


def test_help_lists_every_verb_with_one_line(capsys):
    for arguments in (["--help"], []):
        assert main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        for verb, (_, meaning) in VERBS.items():
            assert f"{verb}  " in "".join(line for line in lines if meaning in line)


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vitresnas {vitresnas.__version__}\n"


def test_an_unknown_verb_is_one_sentence_with_the_nearest_one(capsys):
    assert main(["serach"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: there is no command 'serach': did you mean 'search'? use")
    assert len(printed.err.splitlines()) == 1 and printed.out == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_door_with_an_example(capsys, verb):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(VERBS[verb][0]).main(["--help"])
    assert ended.value.code == 0
    assert "example:" in capsys.readouterr().out


def test_a_verb_may_be_written_with_underscores(capsys):
    assert main(["import_official", "x.pth"]) == 2
    assert "required: --network-def, --out" in capsys.readouterr().err


def test_the_console_script_is_the_same_door():
    script = Path(sys.executable).parent / "vitresnas"
    command = [script] if script.exists() else [sys.executable, "-m", "vitresnas"]
    done = subprocess.run([*command, "space", "list"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("digits: 16 pixels")


def test_a_reader_that_stops_early_is_no_error():
    program = f"{sys.executable} -m vitresnas space list --json | head -c 1"
    done = subprocess.run(program, shell=True, capture_output=True, text=True)
    assert done.stdout == "{" and done.stderr == ""
