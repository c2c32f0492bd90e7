import json

import pytest

from vitresnas.__main__ import main
from vitresnas.space import SPACES, derive_space, load_space


def test_list_names_every_preset(capsys):
    assert main(["space", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(SPACES)
    assert "1.9e+28 networks" in lines[list(SPACES).index("tiny")]


def test_list_json_holds_the_choices_and_the_ends(capsys):
    assert main(["space", "list", "--json"]) == 0
    spaces = json.loads(capsys.readouterr().out)["spaces"]
    tiny = next(space for space in spaces if space["name"] == "tiny")
    assert tiny["largest"]["macs"] == 3_497_553_920
    assert tiny["stages"][0]["embed"] == [256, 224, 192, 176, 160]
    assert tiny["networks"] == SPACES["tiny"].size


def test_show_prints_every_choice(capsys):
    assert main(["space", "show", "digits"]) == 0
    printed = capsys.readouterr().out
    for part in ("embed  64 56 48 40 32", "hidden 1024 768 512 256", "may be skipped: 2, 4"):
        assert part in printed


def test_derive_writes_a_space_that_show_and_load_read(capsys, tmp_path):
    out = tmp_path / "new" / "space.json"
    arguments = ["space", "derive", "--image-size", "96", "--classes", "7", "--out", str(out)]
    assert main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["classes"] == 7 and printed.err == f"wrote {out}\n"
    assert load_space(out) == derive_space(96, 7)
    assert main(["space", "show", str(out)]) == 0
    assert capsys.readouterr().out.startswith("derived-96: 96 pixels, patch 6, grids 16 8 4")
    assert main([*arguments, "--name", "birds"]) == 0
    assert load_space(out).name == "birds"
    assert main([*arguments, "--classes", "8"]) == 2
    assert "holds another space" in capsys.readouterr().err and load_space(out).classes == 7


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "digit"], "error: there is no space 'digit': use digits, cifar-nano"),
        (["derive", "--image-size", "90", "--classes", "7"], "error: no even patch divides"),
        (["derive", "--image-size", "96", "--classes", "1"], "error: classes is 1"),
        (["derive", "--image-size", "x", "--classes", "7"], "error: argument --image-size: inv"),
        ([], "error: the following arguments are required: list|show|derive; see"),
    ],
)
def test_bad_input_is_one_sentence_exit_2_and_leaves_the_file(
    capsys, tmp_path, arguments, sentence
):
    out = tmp_path / "space.json"
    SPACES["digits"].save(out)
    before = out.read_bytes()
    more = ["--out", str(out)] if "derive" in arguments else []
    assert main(["space", *arguments, *more]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(sentence) and len(printed.err.splitlines()) == 1
    assert printed.out == "" and out.read_bytes() == before


def test_an_unknown_field_in_a_space_file_is_named(capsys, tmp_path):
    path = tmp_path / "mine.json"
    SPACES["digits"].save(path)
    document = json.loads(path.read_text())
    del document["checksum"]
    path.write_text(json.dumps({**document, "depths": [4]}))
    assert main(["space", "show", str(path)]) == 2
    assert 'mine.json has the unknown field "depths": known fields' in capsys.readouterr().err
