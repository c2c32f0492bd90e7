"""The costs of finalists that need a device: time at batch 1, and peak memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from vitresnas.latency import Condition
from vitresnas.latency.cores import threads
from vitresnas.latency.measure import DTYPES
from vitresnas.latency.measure_memory import measure_peak
from vitresnas.search.check import Found
from vitresnas.search.prove import Measure
from vitresnas.search.timing import example_images, extracted_timer, remembered
from vitresnas.space import Architecture
from vitresnas.supernet import Supernet


def measurer(
    names: Sequence[str],
    supernet: Supernet,
    condition: Condition,
    device: str,
    *,
    seconds: float,
    log: Path,
) -> Measure:
    """Measures those of the costs named that can be, of networks taken out of `supernet`.

    log: where times are kept, so that a proof that is interrupted does not take them again.
    """
    at_batch_1 = replace(condition, batch_size=1)
    timer = remembered(extracted_timer(supernet, at_batch_1, device, seconds=seconds), log)

    def measure(networks: Sequence[Architecture]) -> list[Mapping[str, Found]]:
        found: list[dict[str, Found]] = [{} for _ in networks]
        if "latency_batch_1" in names:
            for costs, time in zip(found, timer(networks), strict=True):
                costs["latency_batch_1"] = Found(
                    time.median,
                    time.interval_95,
                    f"timed, {len(time.samples_milliseconds)} samples",
                )
        if "peak_memory" in names:
            for costs, network in zip(found, networks, strict=True):
                costs["peak_memory"] = _peak(supernet, network, condition, device)
        return [*found]

    return measure


def _peak(supernet: Supernet, network: Architecture, condition: Condition, device: str) -> Found:
    dtype = DTYPES[condition.dtype]
    model = supernet.extract(network).eval().to(device, dtype)
    images_BCHW = example_images(network, condition.batch_size, device).to(dtype)
    with threads(1), torch.inference_mode():
        peak, how = measure_peak(model, images_BCHW)
    return Found(float(peak), None, f"measured by {how}")
