"""A small space, and a table of it made from planted times by the real assembly."""

from random import Random

import pytest

from vitresnas.latency.assemble import assemble, estimated_cost, operation_timings
from vitresnas.latency.condition import Condition
from vitresnas.latency.networks import choose_networks
from vitresnas.latency.partial import PartialLog, Visit
from vitresnas.space import Embedding, SearchSpace, StageChoices, operations

ROUNDS = 2


@pytest.fixture(scope="session")
def small_space():
    """4x4 patches, two stages: pieces of microseconds, 1,600 networks."""
    stages = (
        StageChoices((16, 8), 4, 2, (2, 1), (32, 16), (2,)),
        StageChoices((32, 16), 8, 2, (2, 1), (64, 32), (2,)),
    )
    return SearchSpace("small-test", 8, 2, Embedding("convolutional", 4), stages, classes=3)


@pytest.fixture(scope="session")
def condition(small_space):
    return make_condition(small_space)


def make_condition(space, **changes):
    fields = dict(
        space=space.name,
        space_id=space.id,
        image_size=space.image_size,
        device="Abacus 3000",
        dtype="fp32",
        batch_size=4,
        runtime="eager",
        backend="auto",
        threads=2,
        driver="beads 1.0",
        versions=(("torch", "2.11"),),
    )
    return Condition(**{**fields, **changes})


def piece_milliseconds(operation):
    return 0.05 + operation.macs / 1e5


@pytest.fixture(scope="session")
def make_table(small_space, tmp_path_factory):
    """A table whose networks take 0.2 ms + 1.1 x the sum of their pieces."""

    def make(**changes):
        path = tmp_path_factory.mktemp("log") / "log.jsonl"
        log, _ = PartialLog.open(path, {"subject": "planted"})
        for round_ in range(ROUNDS):
            for piece in small_space.operations():
                time = piece_milliseconds(piece) * (1.0 + 0.01 * round_)
                log.record(Visit("operation", round_, str(piece), time, time, 0.0))
        timings = operation_timings(log, small_space.operations(), host_is_device=True)
        cost = estimated_cost(timings)
        choice = choose_networks(small_space, cost, Random(0))
        for round_ in range(ROUNDS):
            for network in choice.all:
                time = 0.2 + 1.1 * cost(network)
                log.record(Visit("network", round_, network.id, time, time, 0.0))
        condition = make_condition(small_space, **changes)
        return assemble(condition, timings, choice, log, {"seconds": 1.0}, {"device": "Abacus"})

    return make


@pytest.fixture(scope="session")
def table(make_table):
    return make_table()


@pytest.fixture
def planted_milliseconds(table):
    def planted(architecture):
        pieces = [table.timing(piece).device.p10 for piece in operations(architecture)]
        return 0.2 + 1.1 * sum(pieces)

    return planted
