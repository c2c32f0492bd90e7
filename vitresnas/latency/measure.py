"""Whole networks timed against each other: interleaved rounds, raw samples, honest intervals.

Used wherever two networks are compared: the search's proof, `vitresnas verify`, the table's own
validation works the same way. Every round times every network once, in a new order, so that a
machine that slows down slows all of them.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from functools import partial
from random import Random
from typing import TypeVar

import torch
from torch import Tensor, nn

from vitresnas.errors import InputError
from vitresnas.latency.priority import measuring_priority
from vitresnas.latency.runtime import Call, usable_runtime
from vitresnas.latency.stable import settle
from vitresnas.latency.statistics import Clock, Measurement, relative_width
from vitresnas.latency.timer import Timer, timer_for

DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

Name = TypeVar("Name", bound=Hashable)
Module = nn.Module | Callable[[Tensor], object]
Guest = tuple[Module, Tensor]  # a network and the images (B, C, S, S) that it is timed on

_ROUNDS_BETWEEN_CHECKS = 5
_WARM_UP_SECONDS = 0.5  # at most, for each network: kernels, memory, clocks and threads settle


def time_interleaved(
    networks: Mapping[Name, Module],
    images_BCHW: Tensor,
    *,
    beside: Mapping[Name, Guest] | None = None,
    runtime: str = "eager",
    dtype: str = "fp32",
    seconds: float = 15.0,
    minimum_rounds: int = 10,
    maximum_rounds: int = 200,
    precision: float = 0.01,
    seed: int = 0,
    clock: Clock = time.perf_counter,
    on_round: Callable[[int, float], None] | None = None,
) -> dict[Name, Measurement]:
    """Time each network's forward pass on the same images, on the device they are on.

    networks: modules, measured as copies in evaluation mode, of `dtype`, on the images' device; or
        any callables, run as they are.
    beside: further networks, each with images of its own, that take turns in the same rounds. They
        take no time from the others: they have as many seconds to themselves, and leave when those
        are spent, so that they may have fewer samples (but at least `minimum_rounds`).
    seconds: time to spend; at least `minimum_rounds` are taken whatever that costs, and fewer than
        the time allows when every 95 % interval is narrower than `precision` of its median.
    on_round: told (rounds done, seconds spent) after every round.

    One call per network and round is measured, right after one that is not. The number of threads
    is torch's own. Returns samples in the order of the rounds, so that two networks can be compared
    round by round (`Measurement.speedup_over`). Raises InputError.
    """
    if not networks:
        raise InputError("no network to time: give at least one")
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}: use one of {', '.join(DTYPES)}")
    how = usable_runtime(runtime, str(images_BCHW.device))
    images, guests = images_BCHW.to(DTYPES[dtype]), dict(beside or {})
    timer, rng = timer_for(images.device, clock), Random(seed)
    samples: dict[Name, list[float]] = {name: [] for name in (*networks, *guests)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        calls = {
            name: how.prepare(_ready(network, images), images, None)
            for name, network in networks.items()
        }
        for name, guest in guests.items():
            calls[name] = prepare_guest(name, guest, dtype, runtime)
        # Only now: compilers get no priority.
        priority = stack.enter_context(measuring_priority(torch.get_num_threads()))
        for call in calls.values():
            settle(partial(_wall, timer, call), _WARM_UP_SECONDS, least=2, clock=clock)
        begin, guests_spent = clock(), 0.0
        for round_ in range(1, maximum_rounds + 1):
            guests_spent += _one_round(calls, timer.network, samples, rng, guests, clock)
            spent = clock() - begin - guests_spent
            if on_round:
                on_round(round_, spent)
            if round_ >= minimum_rounds and (
                spent >= seconds or _narrow(round_, [samples[name] for name in networks], precision)
            ):
                break
            if round_ >= minimum_rounds and guests_spent >= seconds:
                calls = {name: calls[name] for name in networks}
    return {name: Measurement(tuple(values), priority) for name, values in samples.items()}


def _one_round(
    calls: Mapping[Name, Call],
    measure: Callable[[Call], tuple[float, float]],
    samples: Mapping[Name, list[float]],
    rng: Random,
    guests: Container[Name],
    clock: Clock,
) -> float:
    """Call and measure everything once; returns the seconds that guests took."""
    guests_spent = 0.0
    order = list(calls)
    rng.shuffle(order)
    for name in order:
        begin = clock() if name in guests else 0.0
        calls[name]()  # brings this network's weights back into the caches
        samples[name].append(measure(calls[name])[0])
        if name in guests:
            guests_spent += clock() - begin
    return guests_spent


def prepare_guest(name: object, guest: Guest, dtype: str, runtime: str = "eager") -> Call:
    """A call, made once already, of a network that others wrote.

    Whatever keeps it from running is an InputError with its name.
    """
    network, images = guest[0], guest[1].to(DTYPES[dtype])
    try:
        with torch.inference_mode():
            call = usable_runtime(runtime, str(images.device)).prepare(
                _ready(network, images), images, None
            )
            call()
    except (RuntimeError, NotImplementedError, InputError) as error:
        first_line = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"{name} cannot run in {dtype}, {runtime}, at batch {len(images)} on {images.device} "
            f"({first_line}): leave it out of the comparison, or change one of these"
        ) from error
    return call


def _wall(timer: Timer, call: Call) -> float:
    return timer.network(call)[0]


def _narrow(round_: int, samples: Sequence[list[float]], precision: float) -> bool:
    if round_ % _ROUNDS_BETWEEN_CHECKS:
        return False
    return all(relative_width(values) < precision for values in samples)


def _ready(network: Module, images: Tensor) -> Module:
    if not isinstance(network, nn.Module):
        return network
    # A copy: the caller's weights keep their device, type and mode.
    return copy.deepcopy(network).eval().requires_grad_(False).to(images.device, images.dtype)
