"""Recipe: every number that shapes a training run, in one frozen value."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vitresnas.data.augmentation import Augmentation
from vitresnas.data.mixing import Mixing
from vitresnas.data.sampling import SHUFFLED, check_sampling
from vitresnas.data.unreadable import UNREADABLE_SHARE
from vitresnas.errors import InputError
from vitresnas.files import JsonObject
from vitresnas.models.model_directory import ARCHITECTURE, find_model, read_card
from vitresnas.space import Architecture, load_architecture
from vitresnas.supernet.samplers import MULTI_ARCHITECTURE, load_sampler
from vitresnas.supernet.supernet import PATHS

if TYPE_CHECKING:
    from vitresnas.models.timm_sized import TimmNetwork

SUPERNET, RETRAIN = "supernet", "retrain"
HARD, SOFT = "hard", "soft"  # labels of a teacher
TIMM = "timm:"  # before the name, or the file, of a network that is not of a space
AUTO = "auto"  # as suits the device: see precision.py


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, and how; `recipes.py` holds the ones with names.

    Two equal recipes on the same images give the same weights on a CPU, bit for bit.
    """

    name: str
    task: str  # "supernet": the weights of a whole space; "retrain": one network
    space: str = "digits"  # a space by name or file, for super-networks
    # Retraining: an architecture as load_architecture reads it, or timm:NAME@SIZE, timm:FILE.json;
    # with init "trained" a model directory, or the folder of the search that wrote it.
    architecture: str = ""
    init: str = "random"  # retraining: "random", "inherited" from `supernet`, or "trained"
    supernet: str = ""  # a super-network directory, for inherited weights
    image_size: int = 0  # retraining: the side of the images; 0 is what the architecture says
    teacher: str = ""  # retraining: a network of timm or a model directory, for distillation
    distillation: str = "hard"  # the teacher's first choice; "soft": its whole distribution
    temperature: float = 3.0  # of soft labels
    data: str = "digits"  # as load_data reads it; empty: the command must name images
    sampling: str = SHUFFLED  # "shuffled", or "balanced": every class equally often
    unreadable_share: float = UNREADABLE_SHARE  # of the images, that may be left out
    seed: int = 0

    epochs: int = 120
    batch_size: int = 128
    groups: int = 4  # sub-networks per step
    sampler: str = MULTI_ARCHITECTURE.name  # which ones, and on which images; see samplers.py
    accumulation: int = 1  # turns a process takes at its part of a batch; saves memory
    widening_epochs: int = 0  # E_w: choices open one by one, channels are sorted, until then

    learning_rate: float = 5e-4
    final_learning_rate: float = 1e-5
    warmup_epochs: int = 5
    warmup_learning_rate: float = 1e-6
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: float = 1.0  # retraining: each layer learns by this factor less than the next
    clip_gradient: float = 0.0  # by norm; 0 switches it off
    drop_path: float = 0.0
    average: float = 0.0  # decay of the weight average; 0 switches it off
    dtype: str = AUTO  # "bf16" under autocast, "fp32"; auto: bf16 on a GPU that has it
    path: str = AUTO  # how a super-network step is computed: see Supernet
    evaluate_every: int = 10  # epochs between looks at the hold-out

    augmentation: Augmentation = field(default_factory=Augmentation)
    mixing: Mixing = field(default_factory=Mixing)

    def __post_init__(self) -> None:
        if self.task not in (SUPERNET, RETRAIN):
            raise InputError(f"task is {self.task!r}: use {SUPERNET} or {RETRAIN}")
        for name in ("epochs", "batch_size", "groups", "accumulation", "evaluate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: use at least 1")
        if not 0 <= self.unreadable_share < 1:
            raise InputError(f"unreadable_share is {self.unreadable_share}: use 0 to below 1")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}: use a number above 0")
        for name in ("drop_path", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: use 0 to below 1")
        if self.image_size < 0:
            raise InputError(f"image_size is {self.image_size}: use the side of images in pixels")
        load_sampler(self.sampler).check(self.groups if self.task == SUPERNET else 2)
        if self.batch_size % self.parts:
            raise InputError(
                f"batch_size {self.batch_size} cannot be divided into {self.parts} equal groups: "
                "use a multiple of groups"
            )
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"layer_decay is {self.layer_decay}: use more than 0 and at most 1")
        if self.layer_decay < 1 and self.task == SUPERNET:
            raise InputError("layer_decay is for one network: leave it out for a super-network")
        if self.init not in ("random", "inherited", "trained"):
            raise InputError(f"init is {self.init!r}: use random, inherited or trained")
        if self.distillation not in (HARD, SOFT):
            raise InputError(f"distillation is {self.distillation!r}: use {HARD} or {SOFT}")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature is {self.temperature}: use a number above 0")
        if self.teacher and self.mixing.tokens:
            raise InputError(
                "a teacher gives no token labels: use either a teacher or token-level mixing"
            )
        if self.init == "inherited" and not self.supernet:
            raise InputError(
                "inherited weights need a super-network to inherit from: add --supernet DIR, "
                "or --init random"
            )
        if self.foreign and (
            self.init != "random" or self.image_size or self.teacher or self.mixing.tokens
        ):
            raise InputError(
                f"{self.architecture} is trained as timm has it: use --init random, and leave out "
                "--image-size, a teacher and token-level mixing"
            )
        check_sampling(self.sampling)
        if self.dtype not in (AUTO, "fp32", "bf16"):
            raise InputError(f"dtype is {self.dtype!r}: use auto, fp32 or bf16")
        if self.path not in (AUTO, *PATHS):
            raise InputError(f"path is {self.path!r}: use one of auto, {', '.join(PATHS)}")

    @property
    def parts(self) -> int:
        """Into how many equal groups the images of a batch fall, each for networks of its own."""
        return load_sampler(self.sampler).parts(self.groups) if self.task == SUPERNET else 1

    @property
    def foreign(self) -> bool:
        """Whether the network to retrain is one of timm's and not of a space."""
        return self.architecture.startswith(TIMM)

    @cached_property
    def timm(self) -> TimmNetwork:
        """The network of timm to train. Raises InputError."""
        from vitresnas.models.timm_sized import load_timm_network

        return load_timm_network(self.architecture.removeprefix(TIMM))

    @cached_property
    def network(self) -> Architecture:
        """The network to retrain; its classes become the data's. Raises InputError."""
        if self.init == "trained":
            # From where the weights come: a folder may be called like a published network.
            folder = find_model(self.architecture)
            read_card(folder)  # refuses a folder without a finished model
            network = Architecture.load(folder / ARCHITECTURE)
        else:
            network = load_architecture(self.architecture)
        if self.image_size:
            network = network.resized(self.image_size)
        if self.teacher and self.init == "random":
            network = replace(network, prefix_tokens=2)
        if self.teacher and network.prefix_tokens != 2:
            raise InputError(
                f"the network {self.architecture} has no distillation token to learn from a "
                "teacher: use --init random, or leave --teacher out"
            )
        return network

    def stretched(self, epochs: int) -> Recipe:
        """The same schedule over so many epochs: widening and warm-up take their part of them."""
        stretch = epochs / self.epochs
        return replace(
            self,
            epochs=epochs,
            widening_epochs=round(self.widening_epochs * stretch),
            # At least one, which the schedule cuts to a fifth of a short training: without a
            # warm-up the first steps can end the learning.
            warmup_epochs=min(self.warmup_epochs, max(1, round(self.warmup_epochs * stretch))),
        )

    def to_json(self) -> JsonObject:
        return asdict(self)

    @property
    def shaping(self) -> JsonObject:
        """What decides a super-network's weights; its space and images count by their digests."""
        return {k: v for k, v in self.to_json().items() if k not in ("space", "data")}


def retraining(recipe: Recipe, name: str, architecture: str, **changes: Any) -> Recipe:
    """The recipe of a super-network, for one network; `changes` as `replace` takes them."""
    return replace(
        recipe,
        name=name,
        task=RETRAIN,
        space="",
        architecture=architecture,
        widening_epochs=0,
        groups=1,
        **changes,
    )
