import json
import subprocess
import sys

import pytest

from vitresnas.__main__ import main
from vitresnas.space import NETWORKS, SPACES

# The golden figures: training parameters, inference parameters, MACs at 224 pixels.
GOLDEN = {
    "tiny": (41_498_552, 40_793_552, 1_782_630_272),
    "small": (64_605_108, 63_724_108, 2_845_501_856),
    "medium": (97_323_672, 96_442_672, 4_513_135_936),
}


def described(capsys, *arguments):
    assert main(["describe", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", GOLDEN)
def test_published_networks_have_the_golden_figures(capsys, name):
    found = described(capsys, name)
    keys = ("parameters_training", "parameters_inference", "macs")
    assert tuple(found[key] for key in keys) == GOLDEN[name]


@pytest.mark.parametrize(
    ("spec", "expected"), [("tiny:largest", 3_497_553_920), ("small:largest", 6_260_342_784)]
)
def test_the_largest_networks_have_the_golden_macs(capsys, spec, expected):
    assert described(capsys, spec)["macs"] == expected


def test_the_parts_add_up_to_the_whole(capsys):
    found = described(capsys, "digits:smallest")
    parts = [found["embedding"], *found["stages"], found["head"]]
    assert sum(part["macs"] for part in parts) == found["macs"]
    assert sum(part["parameters"] for part in parts) == found["parameters_inference"]
    smallest = SPACES["digits"].smallest
    assert [stage["embed"] for stage in found["stages"]] == [32, 64, 128]
    assert [stage["tokens"] for stage in found["stages"]] == list(smallest.tokens)
    assert [stage["blocks"][1] for stage in found["stages"]] == [None] * 3


def test_files_directories_and_other_sides_are_understood(capsys, tmp_path):
    NETWORKS["tiny"].save(tmp_path / "architecture.json")
    by_name = described(capsys, "tiny")
    assert described(capsys, str(tmp_path)) == by_name
    assert described(capsys, str(tmp_path / "architecture.json")) == by_name
    larger = described(capsys, "tiny", "--image-size", "280")
    assert larger["stages"][0]["tokens"] == 401 and larger["macs"] > by_name["macs"]


def test_people_read_a_table(capsys):
    assert main(["describe", "tiny"]) == 0
    printed = capsys.readouterr().out
    for part in ("1,782,630,272", "40,793,552", "41,498,552", "stage 3, 4x4", "10/2816"):
        assert part in printed
    assert main(["describe", "digits:smallest"]) == 0
    assert "2/64 - 2/64 -" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gigantic"], "error: there is no architecture 'gigantic': use tiny, small, medium"),
        (["nothing.json"], "error: there is no file nothing.json: check the path"),
        (["tiny", "--image-size", "100"], "error: image_size is 100, not a multiple of 56"),
        ([], "error: the following arguments are required: network; see vitresnas describe"),
        (["tiny", "--colour"], "error: unrecognized arguments: --colour; see vitresnas"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(capsys, arguments, sentence):
    assert main(["describe", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(sentence) and len(printed.err.splitlines()) == 1
    assert printed.out == ""


def test_an_architecture_file_with_a_wrong_schema_is_refused(capsys, tmp_path):
    SPACES["digits"].save(tmp_path / "space.json")
    assert main(["describe", str(tmp_path / "space.json")]) == 2
    assert "has schema 'vitresnas/search_space/1', expected" in capsys.readouterr().err


def test_the_door_stands_alone_too():
    command = [sys.executable, "-m", "vitresnas.describe", "tiny", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["macs"] == GOLDEN["tiny"][2]
