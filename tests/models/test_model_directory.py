import hashlib
import json
import subprocess
import sys
import textwrap
from random import Random
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from vitresnas.errors import FileFormatError, InputError
from vitresnas.models.model_directory import load_model, read_card, save_model, update_card
from vitresnas.models.vit_res import create_model
from vitresnas.space import SPACES, load_architecture, macs, parameters

SPACE = SPACES["digits"]


def build(seed=0, **options):
    torch.manual_seed(seed)
    return create_model(SPACE.sample(Random(seed)), **options).eval()


@pytest.mark.parametrize("patch_head", [False, True])
def test_a_model_comes_back_as_it_was(tmp_path, patch_head):
    model = build(patch_head=patch_head)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.add_(0.25)  # statistics that are not the initial ones
    save_model(model, tmp_path / "m", {"recipe": "none", "seed": 0})
    loaded = load_model(tmp_path / "m")
    assert loaded.architecture == model.architecture and not loaded.training
    images = torch.randn(2, 3, 16, 16)
    for head, logits in model.forward_heads(images).items():
        assert torch.equal(loaded.forward_heads(images)[head], logits)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "README.md",
        "architecture.json",
        "config.json",
        "model.safetensors",
        "model_card.json",
    ]
    assert load_architecture(tmp_path / "m") == model.architecture


def test_the_card_tells_what_the_model_is(tmp_path):
    model = build(patch_head=True)
    save_model(model, tmp_path, {"recipe": "none"})
    card = read_card(tmp_path)
    assert card["recipe"] == "none"
    assert card["architecture_id"] == model.architecture.id
    assert card["macs"] == macs(model.architecture)
    assert card["parameters"] == parameters(model.architecture, patch_head=True)
    with pytest.raises(ValueError, match="'macs' is written by save_model"):
        save_model(model, tmp_path, {"macs": 3})


def test_weights_that_could_not_be_read_again_are_not_written(tmp_path):
    headless = timm.create_model("vitresnas", architecture=SPACE.smallest, num_classes=0)
    wrapped: Any = torch.compile(build())
    for model, what in (
        (wrapped, "embedding.prefix_tokens is missing"),
        (headless, "head.weight is missing"),
    ):
        with pytest.raises(InputError, match=f"{what}: save the network itself"):
            save_model(model, tmp_path / "m", {})
    assert not (tmp_path / "m").exists()


def test_a_card_can_be_completed_and_the_model_stays(tmp_path):
    model = build()
    save_model(model, tmp_path, {"verdict": "unproven"})
    update_card(tmp_path, {"verdict": "met"})
    assert read_card(tmp_path)["verdict"] == "met"
    assert torch.equal(load_model(tmp_path).head.weight, model.head.weight)


def test_loading_draws_no_random_numbers(tmp_path):
    save_model(build(), tmp_path, {})
    torch.manual_seed(1)
    before = torch.get_rng_state()
    load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_later_model_replaces_an_earlier_one_and_leaves_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    save_model(build(0), tmp_path, {"seed": 0})
    later = build(1)
    save_model(later, tmp_path, {"seed": 1})
    assert load_model(tmp_path).architecture == later.architecture
    assert (tmp_path / "notes.txt").read_text() == "mine"


FULL_DISK = """
    import resource, sys
    from random import Random
    from vitresnas.errors import StorageError
    from vitresnas.models.model_directory import save_model
    from vitresnas.models.vit_res import create_model
    from vitresnas.space import SPACES

    model = create_model(SPACES["digits"].largest)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    try:
        save_model(model, sys.argv[1], {"seed": 1})
    except StorageError as error:
        print(error)
    else:
        sys.exit("the limit was not met")
"""


def test_a_full_disk_leaves_the_earlier_model(tmp_path):
    model = build()
    save_model(model, tmp_path, {"seed": 0})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"no space left to write {tmp_path / 'model.safetensors'}")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_is_no_model_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere holds no finished model .no model_card.json."):
        load_model(tmp_path / "nowhere")
    save_model(build(), tmp_path, {})
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"cannot read .*model.safetensors .No such file"):
        load_model(tmp_path)


def test_damaged_weights_are_refused(tmp_path):
    save_model(build(), tmp_path, {})
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # one bit
    weights.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"model.safetensors is not the file that its card"):
        load_model(tmp_path)


def test_a_directory_that_mixes_two_models_is_refused(tmp_path):
    save_model(build(0), tmp_path / "a", {})
    save_model(build(1), tmp_path / "b", {})
    (tmp_path / "a" / "architecture.json").replace(tmp_path / "b" / "architecture.json")
    with pytest.raises(FileFormatError, match="the directory mixes two models"):
        load_model(tmp_path / "b")


def rewrite_card(directory, weights: bytes) -> None:
    """What a careless tool would leave: a card that vouches for the wrong weights."""

    (directory / "model.safetensors").write_bytes(weights)
    card = json.loads((directory / "model_card.json").read_text())
    card.pop("checksum", None)
    card["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    (directory / "model_card.json").write_text(json.dumps(card))


def test_foreign_weights_are_refused_by_key(tmp_path):
    model = build()
    save_model(model, tmp_path, {})
    state = dict(model.state_dict())
    state["extra"] = torch.zeros(1)
    state["head.bias"] = torch.zeros(3)
    del state["norm.bias"]
    rewrite_card(tmp_path, safetensors.torch.save(state))
    with pytest.raises(FileFormatError) as caught:
        load_model(tmp_path)
    for part in (
        "norm.bias is missing",
        "extra is unexpected",
        "head.bias has shape (3,), expected (10,)",
    ):
        assert part in str(caught.value)
    rewrite_card(tmp_path, b"not safetensors at all")
    with pytest.raises(FileFormatError, match=r"model.safetensors is not a safetensors file"):
        load_model(tmp_path)
