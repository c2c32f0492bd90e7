"""From measured paces and the time given to epochs: which space, and how long each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from vitresnas.files import Fields, JsonObject
from vitresnas.latency.networks import NETWORKS_NEEDED
from vitresnas.latency.request import default_batch_size
from vitresnas.quickstart.pace import DevicePace
from vitresnas.quickstart.survey import Survey
from vitresnas.search.evolution import Evolution
from vitresnas.search.prove import FINALISTS
from vitresnas.space import SearchSpace, macs

# Of what training may use, the super-network gets this; the found network the rest.
SUPERNET_SHARE = 0.6
USABLE = 0.9  # of the time given; the rest is for imports, decoding, saving and bad estimates
LEAST_TRAINING = 0.3  # whatever the rest takes: nothing is worth finding among untrained networks
MOST_EPOCHS = {"supernet": 120, "retrain": 300}  # the paper's (ViT-ResNAS, section 4)
ENOUGH_IMAGES = 300_000  # shown in training: below 15 epochs of them a cheaper space is taken
ENOUGH_EPOCHS = (3, 15)
MOST_SEARCHING = 0.4  # of the time: where measuring and searching take more, likewise
_MEAN_SHARE = 0.5  # a drawn network's MACs over the largest one's
_STEP_OVERHEAD = 1.15  # optimiser, augmentation, metrics
_TABLE_SECONDS = (2.0, 60.0)
_PROOF_SECONDS = (0.3, 15.0)
# Calls of the largest network that the least number of a table's rounds comes to: two calls per
# visit, six rounds of all operations, five of the whole networks at half the work.
_TABLE_CALLS = 2 * 6 * 10 + 2 * 5 * NETWORKS_NEEDED * 0.5
# Likewise of the ten rounds that finalists, or the winner, are timed beside the largest network.
_PROOF_CALLS = 2 * 10 * (1 + FINALISTS * 0.5)
_VERIFY_CALLS = 2 * 10 * (1 + 0.5)


@dataclass(frozen=True)
class Schedule:
    """Seconds by stage, and the settings they come from. retrain_epochs is for a network of half
    the largest one's MACs; the epochs are recomputed once the network is found."""

    supernet_epochs: int
    retrain_epochs: int
    table_seconds: float  # asked of the latency table, which may take longer
    proof_seconds: float  # for every round of finalists
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def to_json(self) -> JsonObject:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object, where: str) -> Schedule:
        fields = Fields(value, where)
        found = cls(
            fields.integer("supernet_epochs"),
            fields.integer("retrain_epochs"),
            fields.number("table_seconds", minimum=0),
            fields.number("proof_seconds", minimum=0),
            fields.take("seconds"),
        )
        fields.done()
        return found


@dataclass(frozen=True)
class Circumstances:
    """What a schedule depends on besides the space."""

    images: Survey
    pace: DevicePace
    scorers: int  # candidates scored at a time
    device_type: str
    timed_batch: int | None  # asked for; None for the usual
    batch_size: int  # of training
    seconds: float  # given for everything


def schedule(space: SearchSpace, known: Circumstances) -> Schedule:
    """The time given, shared out; more than that where it is too little for this space."""
    work, pace = macs(space.largest), known.pace
    usual = default_batch_size(space.image_size, known.device_type)
    call = pace.scoring_seconds(work, known.timed_batch or usual)
    table = _between(0.08 * known.seconds, _TABLE_SECONDS)
    proof = _between(0.04 * known.seconds, _PROOF_SECONDS)
    one_score = pace.scoring_seconds(_MEAN_SHARE * work, known.images.holdout)
    scores = Evolution.for_space(space).budget * one_score / known.scorers
    fixed = {
        "latency_table": max(table, _TABLE_CALLS * call) + 1,
        "search": scores + 1.5 * max(proof, _PROOF_CALLS * call) + 2,
        "verify": max(proof, _VERIFY_CALLS * call) + 1,
    }
    left = max(LEAST_TRAINING * known.seconds, USABLE * known.seconds - sum(fixed.values()))
    shown = max(known.images.training // known.batch_size, 1) * known.batch_size
    epoch = _STEP_OVERHEAD * pace.training_seconds(_MEAN_SHARE * work, shown)
    shares = {"supernet": SUPERNET_SHARE, "retrain": 1 - SUPERNET_SHARE}
    epochs = {
        name: max(1, min(int(share * left / epoch), MOST_EPOCHS[name]))
        for name, share in shares.items()
    }
    seconds = {**fixed, **{name: count * epoch for name, count in epochs.items()}}
    return Schedule(
        epochs["supernet"],
        epochs["retrain"],
        round(table, 1),
        round(proof, 1),
        {name: round(value, 1) for name, value in seconds.items()},
    )


def choose(spaces: Sequence[SearchSpace], known: Circumstances) -> tuple[SearchSpace, Schedule]:
    """The richest of `spaces`, cheapest first, that the time suffices for; or else the cheapest."""
    for space in reversed(spaces):
        found = schedule(space, known)
        if _suffices(found, known):
            return space, found
    return spaces[0], schedule(spaces[0], known)


def _suffices(found: Schedule, known: Circumstances) -> bool:
    least, most = ENOUGH_EPOCHS
    enough = min(max(ENOUGH_IMAGES // max(known.images.training, 1), least), most)
    searching = found.seconds["latency_table"] + found.seconds["search"]
    return found.supernet_epochs >= enough and searching <= MOST_SEARCHING * known.seconds


def _between(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
