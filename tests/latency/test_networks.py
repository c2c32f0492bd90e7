from itertools import pairwise
from random import Random

import numpy as np
import pytest

from vitresnas.errors import InputError
from vitresnas.files import Fields
from vitresnas.latency.networks import NETWORKS_NEEDED, NetworkChoice, choose_networks
from vitresnas.space import Embedding, SearchSpace, StageChoices, load_space, macs


def test_held_out_networks_are_spaced_evenly_in_log_cost_between_the_ends():
    space = load_space("digits")
    choice = choose_networks(space, macs, Random(0))
    costs = np.log([macs(network) for network in choice.validation])
    low, high = np.log(macs(space.smallest)), np.log(macs(space.largest))
    expected = low + (high - low) * (np.arange(24) + 0.5) / 24
    assert np.abs(costs - expected).max() < 0.02
    assert all(a < b for a, b in pairwise(costs))


def test_no_network_has_two_roles_and_all_belong_to_the_space(small_space):
    choice = choose_networks(small_space, macs, Random(1))
    assert len(set(choice.all)) == len(choice.all) == NETWORKS_NEEDED
    assert all(network in small_space for network in choice.all)
    assert {small_space.smallest, small_space.largest} <= set(choice.calibration)


def test_the_choice_follows_from_the_seed_and_survives_json(small_space):
    choice = choose_networks(small_space, macs, Random(2))
    assert choice == choose_networks(small_space, macs, Random(2))
    assert choice != choose_networks(small_space, macs, Random(3))
    assert NetworkChoice.take(Fields(choice.to_json(), "here")) == choice


def test_a_space_too_small_to_hold_networks_out_is_refused():
    stages = (StageChoices((16, 8), 4, 1, (2, 1), (32,)),)
    space = SearchSpace("dwarf", 8, 2, Embedding("linear", 0), stages, classes=2)
    with pytest.raises(InputError, match="dwarf holds 4 networks"):
        choose_networks(space, macs, Random(0))
