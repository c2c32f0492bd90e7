"""A fidelity report trains what it says, survives kill -9, and its statistics hold."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from vitresnas.errors import InputError, MismatchError, WorkerLost
from vitresnas.fidelity.__main__ import main, summary
from vitresnas.fidelity.alone import Trained, alone, recipe_of
from vitresnas.fidelity.exposure import correlation_ratio, exposures, influences
from vitresnas.fidelity.picture import ranks
from vitresnas.fidelity.request import FidelityRequest, trainings
from vitresnas.fidelity.result import FidelityResult, attainable_tau, seed_noise
from vitresnas.fidelity.run import LOG, RESULT, run
from vitresnas.fidelity.score import Scores, best_temperature, score
from vitresnas.fidelity.workers import spread
from vitresnas.files import read_json, read_lines
from vitresnas.latency.networks import spaced_networks
from vitresnas.space import Embedding, SearchSpace, StageChoices, load_space, macs
from vitresnas.supernet.directory import load_supernet, read_card
from vitresnas.supernet.sampling import draw_architectures
from vitresnas.train.recipe import Recipe
from vitresnas.train.recipes import digits_supernet, supernet_recipe
from vitresnas.train.run import run as train
from vitresnas.train.tasks import drawn_at

STAGES = (
    StageChoices((16, 8), 8, 2, (2, 1), (32, 16), (2,)),
    StageChoices((24, 16), 8, 2, (3, 2), (48, 24), (2,)),
)
TOY = SearchSpace("toy", 8, 4, Embedding("convolutional", 4), STAGES, classes=10)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """A super-network of small networks, trained for two epochs on digits."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("toy")
    TOY.save(folder / "toy.json")
    recipe = replace(
        digits_supernet(), space=str(folder / "toy.json"), epochs=2, batch_size=128,
        groups=4, widening_epochs=1, warmup_epochs=1,
    )  # fmt: skip
    train(recipe, folder / "supernet", device="cpu")
    return folder / "supernet"


@pytest.fixture(scope="module")
def request_of(toy):
    def made(out: Path, **changes) -> FidelityRequest:
        asked = FidelityRequest(
            supernet=toy, networks=5, epochs=1, repeats=2, seeds=2, workers=1, device="cpu", out=out
        )
        return replace(asked, **changes)

    return made


@pytest.fixture(scope="module")
def finished(request_of, tmp_path_factory) -> tuple[Path, FidelityResult]:
    """A report made without interruption."""
    out = tmp_path_factory.mktemp("whole")
    return out, run(request_of(out))


@pytest.fixture(scope="module")
def whole(finished) -> Path:
    return finished[0]


def scores_in(out: Path) -> dict[tuple[str, int], object]:
    return {
        (line["architecture_id"], line["seed"]): line["scores"] for line in read_lines(out / LOG)
    }


def test_every_network_is_trained_once_and_the_repeated_ones_from_every_seed(whole):
    document = read_json(whole / RESULT, "fidelity")
    counts = Counter(len(network["alone"]) for network in document["networks"])
    assert counts == {1: 3, 2: 2} and len(read_lines(whole / LOG)) == 7
    costs = [network["macs"] for network in document["networks"]]
    assert costs == sorted(costs) and costs[-1] > 2 * costs[0]
    found = document["agreement"]["negative_log_likelihood"]
    low, high = found["interval_95"]
    assert low <= found["kendall_tau"] <= high and found["noise"] > 0
    assert -1 <= found["attainable_tau"] <= 1
    assert document["agreement"]["accuracy"]["noise"] is None


def test_kill_9_and_the_same_command_give_the_same_scores(whole, toy, tmp_path):
    options = [
        *("--supernet", str(toy), "--device", "cpu", "--workers", "1", "--out", str(tmp_path)),
        *("--networks", "5", "--epochs", "1", "--repeats", "2", "--seeds", "2"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "vitresnas.fidelity", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: (tmp_path / LOG).exists())
    process.kill()
    process.wait()
    assert 1 <= len(read_lines(tmp_path / LOG)) < 7
    assert main(options) == 0
    assert scores_in(tmp_path) == scores_in(whole)


def test_workers_do_not_outlive_whoever_started_them(tmp_path):
    program = (
        "import sys, time\nfrom vitresnas.fidelity.workers import spread\n"
        "if __name__ == '__main__':\n"
        "    for _ in spread(time.sleep, [0, 0, 600, 600], 2): print('done', flush=True)\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"done\n"
        workers = children_of(process.pid)
        process.kill()
    assert len(workers) >= 2
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_whoever_stops_listening_ends_the_workers():
    for _ in spread(time.sleep, [0.0, 600.0], 2):
        break
    wait_until(lambda: not multiprocessing.active_children())


def test_a_worker_that_is_killed_is_named():
    with pytest.raises(WorkerLost, match="a worker was killed"):
        list(spread(signal.raise_signal, [signal.SIGKILL] * 2, 2))


def wait_until(true) -> None:
    deadline = time.monotonic() + 300  # a busy machine is not what is tested
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def test_a_finished_report_trains_nothing_and_another_one_is_refused(
    finished, request_of, toy, capsys
):
    whole, result = finished
    before = (whole / LOG).read_bytes()
    options = [
        *("--supernet", str(toy), "--device", "cpu", "--out", str(whole)),
        *("--networks", "5", "--epochs", "1", "--repeats", "2", "--seeds", "2"),
    ]
    assert main([*options, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["settings"]["networks"] == 5 and "resuming" in said.err
    assert (whole / LOG).read_bytes() == before
    with pytest.raises(MismatchError, match="epochs 1, this command's is 2"):
        run(request_of(whole, epochs=2))
    shown = summary(result)
    assert "Kendall tau" in shown and "stage 2 hidden" in shown and "noise between seeds" in shown


def test_exposure_counts_the_draws_that_trained_the_super_network(toy, whole):
    recipe = recipe_of(read_card(toy))
    assert recipe is not None
    steps = 1137 // recipe.batch_size
    found = exposures(TOY, recipe, steps, {})
    drawn = [
        a for epoch in range(2) for step in range(steps) for a in drawn_at(recipe, TOY, epoch, step)
    ]
    for one in found:
        if one.kind == "width":
            assert one.drawn == sum(a.stages[one.stage - 1].embed == one.value for a in drawn)
    shares: dict[tuple[int, str], float] = defaultdict(float)
    for one in found:
        shares[one.stage, one.kind] += one.share
    assert all(abs(total - 1) < 1e-9 for total in shares.values())
    widest = [one for one in found if (one.stage, one.kind) == (1, "width")]
    assert [one.value for one in widest] == [16, 8] and widest[0].drawn > widest[1].drawn
    told = read_json(whole / RESULT, "fidelity")["exposure"]
    assert [one["drawn"] for one in told] == [one.drawn for one in found]
    assert all(one["negative_log_likelihood"] > 0 for one in told)


def test_what_the_likelihood_depends_on_is_found():
    networks = draw_architectures(TOY, 40, Random(0))

    def planted(network) -> Scores:
        off = 1.0 if network.stages[-1].embed == 16 else 2.0
        return Scores(off, 0.9, 0.1 + 0.01 * len(network.stages[0].kept), 1.0)

    first, *_ = found = influences({network: planted(network) for network in networks})
    assert (first.stage, first.kind) == (2, "width") and first.negative_log_likelihood > 0.999
    assert "width of stage 2: 100 % of the variance" in str(first)
    kept = next(one for one in found if (one.stage, one.kind) == (1, "kept"))
    assert kept.calibrated > 0.999 and correlation_ratio([0, 0, 1, 1], [1.0, 2.0, 1.0, 2.0]) == 0


def test_a_super_network_that_does_not_tell_its_training_is_refused(request_of, toy, tmp_path):
    assert recipe_of({"recipe": "none"}) is None
    recipe = recipe_of(read_card(toy))
    assert recipe is not None and recipe.augmentation == digits_supernet().augmentation
    short = alone(recipe, 3)
    assert (short.groups, short.epochs, short.learning_rate) == (1, 3, recipe.learning_rate)
    from vitresnas.supernet.directory import save_supernet

    save_supernet(load_supernet(toy), tmp_path / "mute", {"recipe": "none"})
    with pytest.raises(InputError, match="does not record how it was trained"):
        run(request_of(tmp_path / "out", supernet=tmp_path / "mute"))


def test_the_scores_of_a_search_are_the_scores_here(toy):
    from vitresnas.data import load_data
    from vitresnas.search.score import SupernetScorer

    supernet, holdout = load_supernet(toy), load_data("digits", image_size=8).holdout
    network = TOY.sample(Random(0))
    ours = score(lambda images: supernet(images, (network,)), holdout)
    theirs = SupernetScorer(supernet, holdout)(network)
    assert ours.negative_log_likelihood == pytest.approx(theirs.negative_log_likelihood, rel=1e-6)
    assert ours.accuracy == pytest.approx(theirs.accuracy or 0.0)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_confidence_is_put_right_whatever_it_was(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 10, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert best_temperature(temperature * logits, labels) == pytest.approx(temperature, rel=0.05)


def test_a_network_without_an_error_is_not_told_to_be_certain():
    labels = torch.arange(10).repeat(30)
    logits = torch.nn.functional.one_hot(labels, 10).double()
    temperature = best_temperature(logits, labels)
    certainty = (logits / temperature).softmax(1).max()
    assert 0.99 < certainty < 0.9995  # about one unknown image in 300


def test_ranks_share_ties_and_begin_with_the_least():
    assert ranks([3.0, 1.0, 2.0, 2.0]).tolist() == [4.0, 1.0, 2.5, 2.5]


def test_the_noise_of_seeds_and_what_it_leaves_attainable():
    rng = np.random.default_rng(0)
    groups = np.exp(rng.normal(0, 0.1, (400, 3)) + rng.normal(0, 1, (400, 1)))
    assert seed_noise(groups.tolist()) == pytest.approx(0.1, rel=0.1)
    scores = np.exp(rng.normal(0, 1, 16)).tolist()
    taus = [attainable_tau(scores, noise) for noise in (1e-6, 0.1, 0.5, 10.0)]
    assert taus[0] > 0.999 and taus == sorted(taus, reverse=True)
    assert abs(taus[-1]) < 0.05  # nothing but noise


def test_networks_are_spread_over_the_costs_of_the_space():
    space = load_space("digits")
    found = spaced_networks(space, lambda a: float(macs(a)), 16, Random(0))
    steps = np.diff(np.log([macs(a) for a in found]))
    assert len(set(found)) == 16 and steps.min() > 0.5 * steps.mean()
    with pytest.raises(InputError, match="too few to choose"):
        spaced_networks(TOY, lambda a: float(macs(a)), TOY.size, Random(0))


def test_repeated_networks_are_spread_and_long_trainings_come_first():
    networks = spaced_networks(load_space("digits"), lambda a: float(macs(a)), 16, Random(0))
    jobs = trainings(networks, FidelityRequest())
    assert len(jobs) == 16 + 3 * 2 and len({job.key for job in jobs}) == len(jobs)
    assert [job.work for job in jobs] == sorted((job.work for job in jobs), reverse=True)
    repeated = {networks.index(job.architecture) for job in jobs if job.seed}
    assert repeated == {2, 8, 13}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--networks", "3"], "networks is 3: a rank correlation needs at least 4"),
        (["--repeats", "17"], "repeats is 17 of 16 networks"),
        (["--epochs", "0"], "epochs is 0: use at least 1"),
        (["--space", "tiny"], "by supernet-tiny, which brings none: give --data"),
        (["--supernet", "nowhere"], "holds no finished super-network"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments, words, capsys, tmp_path):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1


def test_a_search_and_a_fidelity_report_share_the_recipe_of_a_space():
    recipe = supernet_recipe("digits", None)
    assert isinstance(recipe, Recipe) and recipe == replace(digits_supernet(), data="digits")
    scores = {
        "negative_log_likelihood": 0.1,
        "accuracy": 0.9,
        "calibrated": 0.1,
        "temperature": 1.0,
    }
    line = {"architecture_id": "x", "seed": 0, "scores": scores, "seconds": 1.0}
    assert Trained.from_json(line, "the log").to_json() == line
