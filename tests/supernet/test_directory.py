"""Super-network directories round-trip, and refuse what does not belong."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
import torch

from vitresnas.errors import FileFormatError, InputError, MismatchError, StorageError
from vitresnas.space import SearchSpace
from vitresnas.supernet import Supernet, load_supernet, save_supernet


def test_a_directory_round_trips(space: SearchSpace, tmp_path: Path) -> None:
    supernet = Supernet(space, patch_head=True).eval()
    save_supernet(supernet, tmp_path / "net", {"recipe": "toy"})
    loaded = load_supernet(tmp_path / "net", space=space)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = supernet(images, (space.largest, space.smallest))
        assert torch.equal(loaded(images, (space.largest, space.smallest)), expected)


def test_loading_draws_no_random_numbers_and_leaves_the_weights_trainable(
    space: SearchSpace, tmp_path: Path
) -> None:
    save_supernet(Supernet(space), tmp_path, {})
    before = torch.get_rng_state()
    loaded = load_supernet(tmp_path, device=torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before) and not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_another_space_is_refused_by_name(space: SearchSpace, tmp_path: Path) -> None:
    save_supernet(Supernet(space), tmp_path, {})
    with pytest.raises(MismatchError, match="6 classes"):
        load_supernet(tmp_path, space=space.with_data(classes=3))


def test_an_unfinished_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished super-network"):
        load_supernet(tmp_path)


def test_damaged_weights_are_named(space: SearchSpace, tmp_path: Path) -> None:
    save_supernet(Supernet(space), tmp_path, {})
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(FileFormatError, match=r"model\.safetensors"):
        load_supernet(tmp_path)


def test_weights_of_another_space_do_not_fit(space: SearchSpace, tmp_path: Path) -> None:
    save_supernet(Supernet(space), tmp_path / "a", {})
    save_supernet(Supernet(space.with_data(classes=3)), tmp_path / "b", {})
    (tmp_path / "a" / "model.safetensors").replace(tmp_path / "b" / "model.safetensors")
    with pytest.raises(FileFormatError, match="does not fit"):
        load_supernet(tmp_path / "b")


def test_a_full_disk_leaves_the_earlier_super_network(space: SearchSpace, tmp_path: Path) -> None:
    save_supernet(Supernet(space), tmp_path, {"run": "first"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    torch.manual_seed(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StorageError, match="no space left"):
            save_supernet(Supernet(space), tmp_path, {"run": "second"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
