import dataclasses

import pytest

from vitresnas.errors import FileFormatError, InputError, SpaceError
from vitresnas.space import (
    NETWORKS,
    SPACES,
    Architecture,
    Block,
    Embedding,
    Stage,
    load_architecture,
    parameters,
)

PAIR = (Block(2, 16), None)


def build(**changes) -> Architecture:
    fields = {
        "image_size": 8,
        "patch_size": 2,
        "embedding": Embedding("convolutional", 4),
        "stages": (Stage(16, 8, PAIR), Stage(24, 8, (Block(3, 32),))),
        "classes": 5,
    }
    return Architecture(**{**fields, **changes})


def test_equal_networks_are_equal_values_with_equal_ids():
    assert build() == build() and hash(build()) == hash(build()) and build().id == build().id
    assert build().id != build(classes=6).id
    assert build(stages=(Stage(16, 8, (Block(2, 16), Block(1, 16))),)).id != build().id


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tiny", "0066743d6fff"), ("small", "efc8b6be3b85"), ("medium", "84c42e3d107b")],
)
def test_ids_of_published_networks_never_change(name, expected):
    assert NETWORKS[name].id == expected


def test_grids_tokens_and_reduction_follow_the_image():
    tiny = NETWORKS["tiny"]
    assert tiny.grids == (16, 8, 4)
    assert tiny.tokens == (257, 65, 17)
    assert tiny.total_reduction == 56
    assert tiny.resized(280).grids == (20, 10, 5)
    assert dataclasses.replace(tiny, prefix_tokens=2).tokens == (258, 66, 18)
    assert tiny.depth == 16 and build().depth == 2


def test_positions_name_every_block_that_is_not_skipped():
    assert list(build().positions()) == [(0, 0, Block(2, 16)), (1, 0, Block(3, 32))]


@pytest.mark.parametrize("architecture", [build(), build(prefix_tokens=2), *NETWORKS.values()])
def test_json_and_files_round_trip_exactly(architecture, tmp_path):
    assert Architecture.from_json(architecture.to_json()) == architecture
    architecture.save(tmp_path / "a.json")
    loaded = Architecture.load(tmp_path / "a.json")
    assert loaded == architecture and loaded.id == architecture.id
    loaded.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_size": 9}, "image_size is 9, not a multiple of 4 .* use 8 or 12"),
        ({"image_size": 0}, "image_size is 0"),
        ({"prefix_tokens": 3}, "prefix_tokens is 3: use 1"),
        ({"stages": ()}, "needs at least one stage"),
        (
            {"stages": (Stage(16, 8, PAIR), Stage(8, 8, PAIR))},
            "16 channels is followed by one of 8",
        ),
        ({"classes": 0}, "classes 0: it needs at least 1"),
        ({"patch_size": 1, "image_size": 8}, "patch_size is 1: .* even"),
    ],
)
def test_shapes_that_cannot_be_built_are_refused(changes, sentence):
    with pytest.raises(SpaceError, match=sentence):
        build(**changes)


def test_parts_that_cannot_be_built_are_refused():
    with pytest.raises(SpaceError, match="heads 0"):
        Block(0, 8)
    with pytest.raises(SpaceError, match="embed -1"):
        Stage(-1, 8, PAIR)
    with pytest.raises(SpaceError, match="'fourier' is unknown: use one of convolutional, linear"):
        Embedding("fourier", 4)
    with pytest.raises(SpaceError, match="linear embedding cannot have 4 mid channels"):
        Embedding("linear", 4)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("image_size",), None, 'lacks the field "image_size": add it'),
        (("image_size",), "8", "\"image_size\" is '8', expected a whole number"),
        (("image_size",), True, '"image_size" is True, expected a whole number'),
        (("stages", 1, "blocks", 0, "heads"), 0, r'stages\[1\], blocks\[0\]: "heads" is 0'),
        (("stages", 0, "blocks"), 7, r'stages\[0\]: "blocks" is 7, expected a list'),
        (("stages", 0), "wide", r"stages\[0\] is 'wide', expected an object"),
        (("embedding", "kind"), "cubic", "\"kind\" is 'cubic', expected one of convolutional"),
        (("widths",), 3, 'unknown field "widths": known fields are channels, classes'),
    ],
)
def test_a_broken_field_is_named_with_its_value(path, value, sentence):
    document = Architecture.from_json(build().to_json()).to_json()
    document["stages"] = [
        {**stage, "blocks": list(stage["blocks"])} for stage in document["stages"]
    ]
    *parents, last = path
    place = document
    for key in parents:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    with pytest.raises(FileFormatError, match=sentence):
        Architecture.from_json(document)


def test_shapes_in_a_file_that_contradict_each_other_name_the_file(tmp_path):
    path = tmp_path / "odd.json"
    path.write_text(
        '{"schema": "vitresnas/architecture/1", "image_size": 9, "patch_size": 2, "classes": 5,'
        '"embedding": {"kind": "linear"},'
        '"stages": [{"embed": 8, "head_dim": 4, "blocks": [null, {"heads": 1, "hidden": 4}]}]}'
    )
    with pytest.raises(SpaceError, match=r"odd\.json: image_size is 9"):
        Architecture.load(path)


def test_load_architecture_understands_names_ends_files_and_directories(tmp_path):
    tiny = NETWORKS["tiny"]
    tiny.save(tmp_path / "architecture.json")
    for spec in ("tiny", "vitresnas_tiny", tmp_path, tmp_path / "architecture.json"):
        assert load_architecture(spec) == tiny
    assert load_architecture("digits:largest") == SPACES["digits"].largest
    assert load_architecture("digits:smallest") == SPACES["digits"].smallest
    for spec, sentence in (
        ("tinny", "no architecture 'tinny': use tiny, small, medium, SPACE:largest"),
        ("nowhere:largest", "no space 'nowhere'"),
        (tmp_path / "missing.json", "there is no file .*missing.json"),
        (tmp_path / "empty", "there is no architecture"),
    ):
        with pytest.raises(InputError, match=sentence):
            load_architecture(spec)


def test_a_removed_block_of_an_architecture_costs_nothing():
    with_gap = build(stages=(Stage(16, 8, PAIR),))
    without = build(stages=(Stage(16, 8, PAIR[:1]),))
    assert parameters(with_gap) == parameters(without)
