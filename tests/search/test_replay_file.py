"""The replay: the committed file, and that nothing else is taken for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitresnas.errors import FileFormatError, InputError, MismatchError
from vitresnas.search import Constraint, EvaluationLog, search
from vitresnas.search.guided import Guided
from vitresnas.search.random_search import RandomSearch
from vitresnas.search.replay import Replay, saturated
from vitresnas.space import load_space, macs, parameters
from vitresnas.space.coding import decode, every_code

COMMITTED = Path(__file__).parents[2] / "bench" / "replay" / "cifar-nano.npz"


@pytest.fixture
def small(handful) -> Replay:
    """Every network of a space of 24, on 30 images, by chance."""
    codes = np.array(list(every_code(handful)), dtype=np.uint8)
    networks = [decode(handful, code.tolist()) for code in codes]
    likelihoods = -np.random.default_rng(0).exponential(1.0, (len(codes), 30))
    return Replay(
        space=handful,
        codes=codes,
        log_likelihoods=saturated(likelihoods),
        correct=likelihoods > -0.7,
        labels=(np.arange(30) % 5).astype(np.uint8),
        macs=np.array([macs(network) for network in networks]),
        parameters=np.array([parameters(network) for network in networks]),
        prices={"by hand": np.linspace(100.0, 200.0, len(codes))},
        about={"made": "in a test"},
    )


def test_a_file_gives_back_what_was_saved(tmp_path, small):
    small.save(tmp_path / "replay.npz")
    found = Replay.load(tmp_path / "replay.npz")
    assert (found.space, found.about) == (small.space, small.about)
    for name in ("codes", "log_likelihoods", "correct", "labels", "macs", "parameters"):
        assert np.array_equal(getattr(found, name), getattr(small, name)), name
    assert np.array_equal(found.prices["by hand"], small.prices["by hand"])


def test_scores_and_parts_are_what_the_file_holds(small):
    network = small.network(7)
    losses = -small.log_likelihoods[7].astype(np.float64)
    assert small.row(network) == 7
    assert small(network).negative_log_likelihood == losses.mean()
    (part,) = small.parts([network], 10, 20)
    assert np.array_equal(part.losses, losses[10:20])
    assert part.correct == small.correct[7, 10:20].sum()


def test_ranks_count_among_those_that_keep_the_constraints(small):
    priced = small.with_prices("by hand")
    ranks = priced.ranks([Constraint("throughput", 150.0)])
    kept = priced.prices["by hand"] >= 150.0
    assert (ranks[~kept] == 0).all()
    assert sorted(ranks[kept]) == list(range(1, int(kept.sum()) + 1))
    means = small.log_likelihoods.mean(axis=1, dtype=np.float64)
    assert ranks[np.where(kept, means, -np.inf).argmax()] == 1


def test_what_is_no_replay_is_refused(tmp_path, small):
    path = tmp_path / "replay.npz"
    with pytest.raises(InputError, match="no file"):
        Replay.load(path)
    small.save(path)
    whole = path.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"not a zip"):
        path.write_bytes(broken)
        with pytest.raises(FileFormatError, match="is not a replay"):
            Replay.load(path)
    path.write_bytes(whole[:2000] + bytes([whole[2000] ^ 255]) + whole[2001:])
    with pytest.raises(FileFormatError):
        Replay.load(path)
    with path.open("wb") as file:
        np.savez(file, something=np.zeros(3))
    with pytest.raises(FileFormatError, match="is not a replay"):
        Replay.load(path)


def test_networks_of_another_space_and_missing_prices_are_refused(small):
    with pytest.raises(MismatchError, match="not in the space"):
        small(load_space("digits").largest)
    with pytest.raises(InputError, match="no prices 'other'"):
        small.with_prices("other")
    with pytest.raises(MismatchError, match="make it again"):
        replace(small, codes=small.codes[:-1])


def test_the_committed_replay_is_whole_and_priced():
    replay = Replay.load(COMMITTED)
    assert len(replay) == replay.space.size >= 2000
    assert replay.images == 2000
    assert len(np.unique(replay.labels)) == 10
    assert COMMITTED.stat().st_size < 20e6
    assert replay.prices
    rows = np.random.default_rng(0).integers(len(replay), size=20)
    for row in rows:
        assert replay.row(replay.network(row)) == row
        assert replay.macs[row] == macs(replay.network(row))
        assert replay.parameters[row] == parameters(replay.network(row))


def test_on_the_replay_a_guided_race_beats_uniform_draws_of_ten_times_its_images():
    replay = Replay.load(COMMITTED)
    replay = replay.with_prices(next(iter(replay.prices)))
    bound = Constraint("throughput", float(np.median(replay.prices[replay.priced_by or ""])))

    def found(strategy, seed):
        result = search(
            replay.space, replay, [bound], throughput=replay, strategy=strategy, seed=seed,
            log=EvaluationLog(),
        )  # fmt: skip
        images = sum(candidate.score.images for candidate in result.history)
        row = replay.row(result.selected.candidate.architecture)
        return replay.ranks([bound])[row], images

    ours = [found(Guided(iterations=16), seed) for seed in range(2)]
    uniform = [found(RandomSearch(draws=300), seed) for seed in range(2)]
    assert 9 * sum(images for _, images in ours) < sum(images for _, images in uniform)
    assert np.mean([rank for rank, _ in ours]) <= np.mean([rank for rank, _ in uniform])
