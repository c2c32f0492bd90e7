"""What timm's own tests and scripts ask of every network: of ours, too."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data.model_config import resolve_input_data_config
from timm.models import PretrainedCfg, save_for_hf
from timm.models._input import get_model_args
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn

import vitresnas.models  # noqa: F401  registers the networks
from vitresnas.models import create_model, save_model
from vitresnas.models.registry import default_cfgs
from vitresnas.models.timm_config import timm_config
from vitresnas.space import NETWORKS, SPACES
from vitresnas.space.architecture import Embedding

SMALLEST = SPACES["digits"].smallest
TWO_TOKENS = replace(SMALLEST, prefix_tokens=2)
LINEAR = replace(SMALLEST, embedding=Embedding("linear", 0))
CLOSE: dict[str, Any] = {"atol": 1e-6, "rtol": 1e-5}
EACH = pytest.mark.parametrize("architecture", (SMALLEST, TWO_TOKENS, LINEAR))


def build(architecture=SMALLEST, **options):
    torch.manual_seed(0)
    return timm.create_model("vitresnas", architecture=architecture, **options).eval()


def images(count=2, channels=3, side=16):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))


@EACH
def test_features_are_unpooled_and_a_network_without_classes_is_pooled(architecture):
    model = build(architecture)
    tokens = model.num_prefix_tokens + 4
    with torch.inference_mode():
        features = model.forward_features(images())
        assert features.shape == (2, tokens, model.num_features)
        model.reset_classifier(0)
        assert torch.equal(model(images()), features[:, 0]) and model.num_classes == 0
        model.reset_classifier(0, "")
        assert torch.equal(model(images()), features)
        model.reset_classifier(7, "token")
        assert model(images()).shape == (2, 7) and model.num_classes == 7
    heads = model.get_classifier()
    assert len(heads if isinstance(heads, tuple) else [heads]) == model.num_prefix_tokens


@EACH
def test_no_classes_can_be_asked_for_at_once(architecture):
    model = build(architecture, num_classes=0)
    assert model(images()).shape == (2, 128)
    assert build(architecture, num_classes=0, global_pool="")(images()).dim() == 3


@EACH
def test_the_ends_have_the_names_that_the_configuration_tells(architecture):
    model = build(architecture)
    named = model.pretrained_cfg["classifier"]
    for name in (model.pretrained_cfg["first_conv"], *([named] if type(named) is str else named)):
        assert f"{name}.weight" in model.state_dict()
    assert model.default_cfg["pool_size"] is None


def test_registered_configurations_are_the_networks_own():
    for name, network in NETWORKS.items():
        registered = default_cfgs[f"vitresnas_{name}"].default.to_dict()
        assert registered.items() >= timm_config(network).items()


def test_checkpointed_gradients_are_the_same_for_less_memory():
    model = build(drop_path_rate=0.3).train()
    found = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(0)
        kept = 0

        def count(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(images()).square().sum()
        loss.backward()
        found.append((kept, loss.item(), [p.grad.clone() for p in model.parameters()]))
    (kept, loss, gradients), (few, same, again) = found
    assert few < kept / 2 and same == pytest.approx(loss)
    torch.testing.assert_close(again, gradients, **CLOSE)


def test_a_distilled_network_trains_by_its_mean_unless_told_otherwise():
    model = build(TWO_TOKENS).train()
    assert model(images()).shape == (2, 10)
    model.set_distilled_training()
    assert [logits.shape for logits in model(images())] == [(2, 10), (2, 10)]


@pytest.fixture
def weights(tmp_path):
    """A file of weights, and the network that they are of."""
    torch.manual_seed(1)
    model = create_model(replace(SMALLEST, classes=4)).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors", model


def test_weights_are_read_from_where_the_configuration_says(weights):
    path, model = weights
    told = {"file": str(path), "num_classes": 4, "mean": (0.5, 0.5, 0.5)}
    for options in (
        {"pretrained_cfg_overlay": told},
        {"pretrained_cfg": told},
        {"pretrained_cfg": PretrainedCfg(**told)},
        {"pretrained_cfg_overlay": {"state_dict": model.state_dict(), "num_classes": 4}},
    ):
        read = build(pretrained=True, **options)
        with torch.inference_mode():
            torch.testing.assert_close(read(images()), model(images()), **CLOSE)
    read = build(pretrained=True, pretrained_cfg_overlay=told, num_classes=0)
    with torch.inference_mode():
        torch.testing.assert_close(read(images()), model.features(images()).pooled, **CLOSE)
    assert timm.data.resolve_model_data_config(read)["mean"] == (0.5, 0.5, 0.5)
    with pytest.raises(RuntimeError, match=r"Invalid pretrained tag \(in22k\)"):
        timm.create_model("vitresnas_tiny.in22k")


def test_pretrained_weights_read_grey_images(tmp_path):
    torch.manual_seed(0)
    model = create_model(SMALLEST).eval()
    SMALLEST.save(tmp_path / "architecture.json")
    save_model(model, tmp_path / "model", {"class_names": list("0123456789")})
    grey = build(tmp_path, pretrained=True, in_chans=1)  # a search's folder, with a model in it
    with torch.inference_mode():
        one = images(channels=1)
        torch.testing.assert_close(grey(one), model(one.repeat(1, 3, 1, 1)))
    assert grey.pretrained_cfg["input_size"] == (1, 16, 16)
    assert grey.pretrained_cfg["label_names"] == list("0123456789")
    few = build(tmp_path, pretrained=True, num_classes=3)
    assert "label_names" not in few.pretrained_cfg  # they are of other classes


def test_a_backbone_tells_how_to_prepare_images(tmp_path):
    body = build(features_only=True, out_indices=(1,), in_chans=1)
    assert timm.data.resolve_model_data_config(body)["input_size"] == (1, 16, 16)
    assert resolve_input_data_config(body)["input_size"] == (1, 16, 16)
    assert "classifier" not in body.pretrained_cfg


def test_a_backbone_learns_in_a_dense_network():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = build(features_only=True, out_indices=(0, 2))
            low, high = self.body.feature_info.channels()
            self.low, self.high = nn.Conv2d(low, 5, 1), nn.Conv2d(high, 5, 1)

        def forward(self, x):
            fine, coarse = self.body(x)
            up = nn.functional.interpolate(self.high(coarse), size=fine.shape[-2:])
            return self.low(fine) + up

    model = Dense().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    labels = torch.randint(5, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(images()), labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.low.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    trunk = model.body.model.embedding.trunk.conv1[0].weight
    assert trunk.grad is not None and trunk.grad.abs().sum() > 0


def test_timms_layer_wise_rates_and_average_work_on_it():
    model = build()
    groups = create_optimizer_v2(model, "adamw", lr=1.0, weight_decay=0.05, layer_decay=0.5)
    scales = {
        id(p): (group["lr_scale"], group["weight_decay"])
        for group in groups.param_groups
        for p in group["params"]
    }
    found = {name: scales[id(p)] for name, p in model.named_parameters()}
    assert found["head.weight"] == (1.0, 0.05) and found["head.bias"] == (1.0, 0.0)
    assert found["embedding.prefix_tokens"][1] == 0.0
    assert min(scale for scale, _ in found.values()) == found["embedding.projection.weight"][0]
    average = ModelEmaV3(model, decay=0.5)
    before = model.head.weight.detach().clone()
    with torch.no_grad():
        model.head.weight += 1
    average.update(model)
    torch.testing.assert_close(average.module.head.weight, before + 0.5)


def test_it_is_built_where_and_in_the_type_that_is_asked_for():
    model = build(device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}


@EACH
def test_copies_compute_the_same(architecture):
    model = build(architecture)
    with torch.inference_mode():
        expected = model(images())
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(other(images()), expected, **CLOSE)
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        batch = images().to(memory_format=torch.channels_last)
        torch.testing.assert_close(last(batch), expected, atol=1e-5, rtol=1e-5)
        half = copy.deepcopy(model).half()(images().half())
        torch.testing.assert_close(half.float(), expected, atol=5e-3, rtol=5e-2)


def test_what_timm_saves_of_it_timm_builds_again(tmp_path):
    # From a value, then at another size and with other classes: its arguments tell nothing of it.
    model = build(TWO_TOKENS, patch_head=True).at_resolution(32)
    model.reset_classifier(6)
    save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert again.architecture == model.architecture and again.patch_head is not None
    with torch.inference_mode():
        torch.testing.assert_close(again(images(side=32)), model(images(side=32)), **CLOSE)
    save_for_hf(build(num_classes=0), tmp_path / "headless", safe_serialization=True)
    headless = timm.create_model(f"local-dir:{tmp_path / 'headless'}", pretrained=True)
    assert headless(images()).shape == (2, 128)
    with torch.device("meta"):
        tiny = timm.create_model("vitresnas_tiny", img_size=56)
    assert get_model_args(tiny)["architecture"]["image_size"] == 56
    assert tiny.pretrained_cfg["architecture"] == "vitresnas"  # which those arguments are for
