import itertools
import re
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitresnas.errors import FileFormatError, InputError, SpaceError
from vitresnas.space import (
    SPACES,
    Architecture,
    Block,
    Embedding,
    SearchSpace,
    Stage,
    StageChoices,
    load_space,
    macs,
    operations,
)

seeds = st.integers(min_value=0, max_value=2**32)
names = st.sampled_from(sorted(SPACES))


def every_network(space: SearchSpace) -> set[Architecture]:
    """All members, by trying every combination of choices and skips and keeping what belongs."""
    stages = []
    for choices in space.stages:
        blocks = [Block(*pair) for pair in itertools.product(choices.heads, choices.hidden)]
        patterns = itertools.product([None, *blocks], repeat=choices.blocks)
        stages.append(
            [
                Stage(embed, choices.head_dim, pattern)
                for embed, pattern in itertools.product(choices.embed, list(patterns))
            ]
        )
    networks = (replace(space.largest, stages=pair) for pair in itertools.product(*stages))
    return {network for network in networks if network in space}


def test_size_counts_distinct_networks(toy_space):
    assert len(every_network(toy_space)) == toy_space.size


def test_draws_reach_every_network_and_no_other(toy_space):
    small = replace(
        toy_space,
        stages=(replace(toy_space.stages[0], embed=(8,), heads=(1,)), toy_space.stages[1]),
    )
    rng = Random(0)
    drawn = {small.sample(rng) for _ in range(6000)}
    assert drawn == every_network(small)


def test_operations_are_exactly_the_pieces_of_all_networks(toy_space):
    pieces = {piece for network in every_network(toy_space) for piece in operations(network)}
    listed = toy_space.operations()
    assert set(listed) == pieces and len(listed) == len(pieces)


@pytest.mark.parametrize(("name", "expected"), [("tiny", 1.9e28), ("small", 4.2e32)])
def test_the_paper_spaces_hold_as_many_networks_as_the_facts_say(name, expected):
    assert SPACES[name].size == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("name", "expected"), [("tiny", 48.7), ("small", 50.8)])
def test_uniform_draws_have_the_mean_macs_of_the_facts(name, expected):
    space, rng = SPACES[name], Random(0)
    shares = [100 * macs(space.sample(rng)) / macs(space.largest) for _ in range(1500)]
    assert sum(shares) / len(shares) == pytest.approx(expected, abs=0.7)


@settings(max_examples=60, deadline=None)
@given(name=names, seed=seeds, probability=st.sampled_from([0.0, 0.3, 1.0]))
def test_draws_mutants_and_children_stay_in_the_space(name, seed, probability):
    space, rng = SPACES[name], Random(seed)
    a, b = space.sample(rng), space.sample(rng)
    mutant, child = space.mutate(a, rng, probability), space.crossover(a, b, rng)
    for network in (a, b, mutant, child):
        assert network in space, space.reason_outside(network)
        assert set(operations(network)) <= set(space.operations())
    assert macs(space.smallest) <= macs(child) <= macs(space.largest)


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_mutants_and_children_obey_the_rule_of_neighbouring_skips(seed):
    space = neighbours()
    rng = Random(seed)
    a, b = space.sample(rng), space.sample(rng)
    assert space.mutate(a, rng, 0.5) in space
    assert space.crossover(a, b, rng) in space


def neighbours() -> SearchSpace:
    """One stage in which three blocks in a row may be skipped."""
    stage = StageChoices((16, 8), 8, 5, (2, 1), (16, 8), (2, 3, 4))
    return SearchSpace("neighbours", 8, 2, Embedding("convolutional", 4), (stage,), 5)


def test_a_skipped_block_takes_the_next_skippable_one_with_it():
    space, rng = neighbours(), Random(3)
    patterns = Counter(
        tuple(block is None for block in space.sample(rng).stages[0].blocks) for _ in range(4000)
    )
    no, yes = False, True
    shares = {pattern: count / 4000 for pattern, count in patterns.items()}
    assert set(shares) == {
        (no, no, no, no, no),
        (no, no, no, yes, no),
        (no, no, yes, yes, no),
        (no, yes, yes, yes, no),
    }
    # One coin per block that is still open: 1/8, 1/8, 1/4, 1/2.
    assert shares[no, yes, yes, yes, no] == pytest.approx(0.5, abs=0.04)
    assert shares[no, no, yes, yes, no] == pytest.approx(0.25, abs=0.04)


def test_mutation_with_probability_zero_changes_nothing():
    space, rng = SPACES["digits"], Random(5)
    network = space.sample(rng)
    assert space.mutate(network, rng, 0.0) == network


def test_mutation_with_probability_one_flips_every_skippable_block():
    space, rng = SPACES["digits"], Random(5)
    network = space.sample(rng)
    mutant = space.mutate(network, rng, 1.0)
    for choices, old, new in zip(space.stages, network.stages, mutant.stages, strict=True):
        for position in range(choices.blocks):
            flipped = (old.blocks[position] is None) != (new.blocks[position] is None)
            assert flipped == choices.may_skip(position)


def test_a_child_takes_each_choice_from_one_of_its_parents():
    space, rng = SPACES["tiny"], Random(7)
    for _ in range(50):
        a, b = space.sample(rng), space.sample(rng)
        child = space.crossover(a, b, rng)
        for ours, theirs, other in zip(child.stages, a.stages, b.stages, strict=True):
            assert ours.embed in (theirs.embed, other.embed)
            for block, x, y in zip(ours.blocks, theirs.blocks, other.blocks, strict=True):
                parents = [parent for parent in (x, y) if parent]
                if block is None:
                    assert None in (x, y)
                else:
                    assert block.heads in {parent.heads for parent in parents}
                    assert block.hidden in {parent.hidden for parent in parents}


def test_the_same_seed_gives_the_same_draws_and_leaves_the_global_generator_alone():
    import random

    space = SPACES["cifar"]
    state = random.getstate()
    first, second = Random(9), Random(9)
    assert [space.sample(first) for _ in range(5)] == [space.sample(second) for _ in range(5)]
    assert random.getstate() == state


def test_largest_and_smallest_are_members_at_the_ends():
    for space in SPACES.values():
        assert space.largest in space and space.smallest in space
        assert None not in [block for stage in space.largest.stages for block in stage.blocks]
        assert all(
            (stage.blocks[position] is None) == choices.may_skip(position)
            for choices, stage in zip(space.stages, space.smallest.stages, strict=True)
            for position in range(choices.blocks)
        )


def outsiders():
    inside = SPACES["digits"].largest
    first = inside.stages[0]

    def with_first(**changes):
        return replace(inside, stages=(replace(first, **changes), *inside.stages[1:]))

    blocks = first.blocks
    yield replace(inside, classes=9), "its classes is 9, the space has 10"
    yield replace(inside, channels=1), "it reads 1 channels, the space 3"
    yield inside.resized(32), "its image_size is 32, the space has 16"
    yield replace(inside, stages=inside.stages[:2]), "it has 2 stages, the space 3"
    yield with_first(embed=60), r"stage 1: width 60 is not among \[64, 56, 48, 40, 32\]"
    yield with_first(head_dim=8), "stage 1: its head dim is 8, the space has 16"
    yield with_first(blocks=blocks[:3]), "it has 3 block positions, the space has 4"
    yield with_first(blocks=(None, *blocks[1:])), "block 1 is skipped and may not be"
    yield with_first(blocks=(Block(7, 64), *blocks[1:])), "block 1: 7 heads are not among"
    yield with_first(blocks=(Block(4, 65), *blocks[1:])), "block 1: 65 hidden units are not among"


@pytest.mark.parametrize(("architecture", "reason"), list(outsiders()))
def test_an_outsider_is_told_why(architecture, reason):
    space = SPACES["digits"]
    assert architecture not in space
    assert re.search(reason, space.reason_outside(architecture) or "")


def test_what_is_no_architecture_is_not_in_a_space():
    assert "digits" not in SPACES["digits"] and None not in SPACES["digits"]


def test_a_kept_block_after_a_skipped_neighbour_is_outside():
    space = neighbours()
    blocks = (Block(1, 8), None, Block(1, 8), None, Block(1, 8))
    network = replace(space.largest, stages=(Stage(8, 8, blocks),))
    assert "block 3 must be skipped" in (space.reason_outside(network) or "")


@pytest.mark.parametrize("name", SPACES)
def test_spaces_round_trip_through_files(name, tmp_path):
    space = SPACES[name]
    space.save(tmp_path / "space.json")
    loaded = load_space(tmp_path / "space.json")
    assert loaded == space and loaded.id == space.id


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", "dbe4ac09d364"),
        ("cifar-nano", "b8d6d305074d"),
        ("cifar", "b6c0a13d9e72"),
        ("tiny", "9f39894f7c7a"),
        ("small", "4bf4795e715d"),
    ],
)
def test_ids_of_presets_never_change(name, expected):
    assert SPACES[name].id == expected


def test_the_id_follows_the_choices_and_not_the_name():
    digits = SPACES["digits"]
    assert replace(digits, name="mine").id == digits.id
    assert digits.with_data(classes=7).id != digits.id
    assert digits.with_data(classes=7).largest.classes == 7
    assert digits.with_data(classes=7, image_size=32).largest.grids == (16, 8, 4)


STAGE = StageChoices((16, 8), 8, 2, (2, 1), (16, 8), (2,))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"embed": (8, 16)}, r"embed choices are \[8, 16\]: list each once, from the largest"),
        ({"heads": ()}, r"heads choices are \[\]"),
        ({"hidden": (8, 8)}, r"hidden choices are \[8, 8\]"),
        ({"hidden": (8, 0)}, "hidden choice 0"),
        ({"skippable": (3,)}, r"skippable positions are \[3\]: .* counted from 1 to 2"),
        ({"skippable": (2, 1)}, r"skippable positions are \[2, 1\]: list each once, ascending"),
        ({"blocks": 0, "skippable": ()}, "blocks 0"),
    ],
)
def test_choices_that_contradict_themselves_are_refused(changes, sentence):
    with pytest.raises(SpaceError, match=sentence):
        replace(STAGE, **changes)


def test_stages_that_could_narrow_are_refused():
    embedding = Embedding("convolutional", 4)
    with pytest.raises(SpaceError, match="up to 16 channels is followed by one of 8"):
        SearchSpace("narrow", 8, 2, embedding, (STAGE, STAGE), 5)
    with pytest.raises(SpaceError, match="image_size is 9"):
        SearchSpace("odd", 9, 2, embedding, (STAGE,), 5)
    with pytest.raises(SpaceError, match="has no stages"):
        SearchSpace("none", 8, 2, embedding, (), 5)


def test_an_unknown_field_of_a_space_file_is_named(tmp_path):
    document = SPACES["digits"].to_json()
    with pytest.raises(FileFormatError, match='unknown field "dropout": known fields are channels'):
        SearchSpace.from_json({**document, "dropout": 0.1}, "mine.json")
    stages = [{**stage, "depth": 4} for stage in document["stages"]]
    with pytest.raises(FileFormatError, match=r'mine.json, stages\[0\] has the unknown .*"depth"'):
        SearchSpace.from_json({**document, "stages": stages}, "mine.json")


def test_an_unknown_space_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match="no space 'digit': use digits, cifar-nano, cifar, tiny"):
        load_space("digit")
    with pytest.raises(InputError, match="there is no file mine"):
        load_space("mine.json")
