import math
from dataclasses import replace
from random import Random

import pytest
import torch
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

from vitresnas.errors import InputError
from vitresnas.models.block import attend
from vitresnas.models.vit_res import create_model
from vitresnas.space import (
    NETWORKS,
    SPACES,
    Architecture,
    Block,
    Embedding,
    Stage,
    macs,
    parameters,
)


def toy(**changes) -> Architecture:
    fields = {
        "image_size": 16,
        "patch_size": 2,
        "embedding": Embedding("convolutional", 6),
        "stages": (
            Stage(20, 8, (Block(2, 24), None, Block(3, 32))),
            Stage(20, 4, (None, Block(1, 16))),
            Stage(36, 8, (Block(2, 40), Block(1, 8))),
        ),
        "classes": 5,
    }
    return Architecture(**{**fields, **changes})


def draws(count):
    for seed in range(count):
        rng = Random(seed)
        space = SPACES[rng.choice(sorted(SPACES))]
        yield replace(space.sample(rng), prefix_tokens=rng.choice((1, 2)))


COUNTED = {
    **NETWORKS,
    "linear": toy(embedding=Embedding("linear", 0)),
    "one channel": toy(channels=1),
    **{f"draw {index}": architecture for index, architecture in enumerate(draws(8))},
}


@pytest.mark.parametrize("patch_head", [False, True])
@pytest.mark.parametrize("name", COUNTED)
def test_built_parameters_are_the_counted_ones_to_the_unit(name, patch_head):
    architecture = COUNTED[name]
    with torch.device("meta"):
        model = create_model(architecture, patch_head=patch_head)
    built = sum(parameter.numel() for parameter in model.parameters())
    assert built == parameters(architecture, patch_head=patch_head)


@pytest.mark.parametrize("name", COUNTED)
def test_flops_that_torch_counts_are_twice_the_macs(name):
    architecture = COUNTED[name]
    with torch.device("meta"):
        model = create_model(architecture).eval()
        side = architecture.image_size
        images = torch.zeros(1, architecture.channels, side, side)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(images)
    # The convention counts the classifier once, whatever the number of prefix tokens.
    second_head = (architecture.prefix_tokens - 1) * architecture.stages[-1].embed
    expected = macs(architecture) + second_head * architecture.classes
    assert counter.get_total_flops() == 2 * expected


@pytest.mark.parametrize("side", [16, 8, 24, 40])
@pytest.mark.parametrize("prefix_tokens", [1, 2])
def test_every_multiple_of_the_reduction_is_an_input_side(side, prefix_tokens):
    model = create_model(toy(image_size=side, prefix_tokens=prefix_tokens)).eval()
    features = model.features(torch.randn(2, 3, side, side))
    widths = [
        (grid**2 + prefix_tokens, width)
        for grid, width in zip((side // 2, side // 4, side // 8), (20, 20, 36), strict=True)
    ]
    assert [tuple(stage.shape[1:]) for stage in features.stages] == widths


def test_images_of_another_shape_are_refused():
    model = create_model(toy())
    for shape in ((2, 3, 24, 24), (2, 1, 16, 16), (3, 16, 16), (2, 3, 16, 8)):
        with pytest.raises(InputError, match=r"images have shape .* reads \(batch, 3, 16, 16\)"):
            model(torch.zeros(shape))


@pytest.mark.parametrize("prefix_tokens", [1, 2])
@pytest.mark.parametrize("side", [8, 24, 40])
def test_another_resolution_interpolates_positions_and_keeps_the_rest(prefix_tokens, side):
    model = create_model(toy(prefix_tokens=prefix_tokens))
    other = model.at_resolution(side).eval()
    assert other.architecture == model.architecture.resized(side)
    theirs, ours = dict(other.named_parameters()), dict(model.named_parameters())
    positions = [name for name in ours if "position_embedding" in name]
    assert len(positions) == 3
    for name, parameter in ours.items():
        if name not in positions:
            assert torch.equal(parameter, theirs[name])
    for stage, name in enumerate(positions):
        prefix = prefix_tokens if stage == 0 else 0
        old, grid = 8 >> stage, (side // 2) >> stage
        assert torch.equal(ours[name][:, :prefix], theirs[name][:, :prefix])
        picture = ours[name][0, prefix:].T.reshape(1, -1, old, old)
        expected = interpolate(picture, (grid, grid), mode="bicubic", align_corners=False)
        found = theirs[name][0, prefix:].T.reshape(1, -1, grid, grid)
        torch.testing.assert_close(found, expected)
    assert other(torch.randn(2, 3, side, side)).shape == (2, 5)
    assert model.architecture.image_size == 16  # the original is untouched


def test_frozen_positions_stay_frozen_at_another_resolution():
    frozen = create_model(toy()).requires_grad_(False).at_resolution(24)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_the_published_networks_read_112_and_280_pixels():
    torch.manual_seed(0)
    model = create_model(NETWORKS["tiny"]).eval()
    for side in (112, 280):
        with torch.inference_mode():
            assert model.at_resolution(side)(torch.randn(1, 3, side, side)).shape == (1, 1000)


def test_two_prefix_tokens_give_a_pair_in_training_and_the_mean_in_evaluation():
    model = create_model(toy(prefix_tokens=2))
    images = torch.randn(4, 3, 16, 16)
    pair = model.train()(images)
    assert isinstance(pair, tuple) and [logits.shape for logits in pair] == [(4, 5), (4, 5)]
    assert not torch.equal(*pair)
    model.eval()
    heads = model.forward_heads(images)
    assert list(heads) == ["class", "distillation"]
    torch.testing.assert_close(model(images), (heads["class"] + heads["distillation"]) / 2)


def test_heads_come_by_name_and_the_patch_head_only_when_asked_for():
    images = torch.randn(2, 3, 16, 16)
    plain, patched = create_model(toy()), create_model(toy(), patch_head=True)
    assert list(plain.forward_heads(images)) == ["class"]
    heads = patched.forward_heads(images)
    assert {name: tuple(logits.shape) for name, logits in heads.items()} == {
        "class": (2, 5),
        "patch": (2, 4, 5),
    }
    assert patched.train()(images).shape == patched.eval()(images).shape == (2, 5)


def test_features_are_what_the_heads_read():
    model = create_model(toy(prefix_tokens=2), patch_head=True).eval()
    assert model.distillation_head is not None and model.patch_head is not None
    images = torch.randn(2, 3, 16, 16)
    features, heads = model.features(images), model.forward_heads(images)
    torch.testing.assert_close(model.norm(features.stages[-1]), features.tokens)
    assert torch.equal(features.pooled, features.tokens[:, 0])
    torch.testing.assert_close(model.head(features.pooled), heads["class"])
    torch.testing.assert_close(
        model.distillation_head(features.tokens[:, 1]), heads["distillation"]
    )
    torch.testing.assert_close(model.patch_head(features.tokens[:, 2:]), heads["patch"])


def test_attention_in_bf16_has_the_gradient_of_exact_attention():
    rounded = torch.randn(3, 7, 3 * 2 * 8, dtype=torch.bfloat16)
    exact = rounded.double().requires_grad_()
    attend(exact, 2, 8).square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(rounded.requires_grad_(), 2, 8)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert exact.grad is not None and rounded.grad is not None
    error = torch.linalg.vector_norm(rounded.grad.double() - exact.grad)
    assert error < 0.01 * torch.linalg.vector_norm(exact.grad)


def test_skipped_blocks_are_absent():
    model = create_model(toy())
    assert [len(stage.blocks) for stage in model.stages] == [2, 1, 2]
    assert [stage.reduction is None for stage in model.stages] == [True, False, False]


def test_initial_weights_follow_the_paper():
    torch.manual_seed(0)
    model = create_model(SPACES["digits"].largest, patch_head=True)
    norms = convolutions = 0
    for name, module in model.requires_grad_(False).named_modules():
        if isinstance(module, torch.nn.Linear):
            assert not module.bias.any(), name
            assert module.weight.std() == pytest.approx(0.02, rel=0.15), name
            assert abs(module.weight.mean()) < 0.002, name
        elif isinstance(module, (torch.nn.LayerNorm, torch.nn.BatchNorm2d)):
            norms += 1
            assert (module.weight == 1).all() and not module.bias.any(), name
            assert module.eps == (1e-6 if isinstance(module, torch.nn.LayerNorm) else 1e-5)
        elif isinstance(module, torch.nn.Conv2d):
            convolutions += 1
            # PyTorch's own draw is uniform in +-1/sqrt(fan in), weight and bias.
            bound = module.weight[0].numel() ** -0.5
            assert 0.9 * bound < module.weight.abs().max() <= bound, name
            if module.bias is not None:
                assert 0.5 * bound < module.bias.abs().max() <= bound, name
    assert norms == 3 + 2 * 12 + 2 + 1 and convolutions == 3 + 1 + 2
    embedding = model.embedding
    learned = [embedding.prefix_tokens, embedding.position_embedding]
    learned += [
        stage.reduction.position_embedding for stage in model.stages if stage.reduction is not None
    ]
    assert len(learned) == 4
    for parameter in learned:
        assert parameter.std() == pytest.approx(0.02, rel=0.3)


def test_drop_path_rises_linearly_over_the_blocks_and_not_the_reductions():
    model = create_model(toy(), drop_path=0.4)
    rates = [block.drop_path for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    alone = create_model(toy(stages=(Stage(20, 8, (Block(2, 24),)),)), drop_path=0.4)
    assert [block.drop_path for block in alone.stages[0].blocks] == [0.0]


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    block = create_model(toy(), drop_path=0.4).stages[2].blocks[1].train()
    x_BNC = torch.randn(1, 5, 36).expand(2000, 5, 36)
    branch_NC = block.mlp(block.norm2(x_BNC[:1]))[0]
    kept_B = []
    for image_NC in block.mix(x_BNC) - x_BNC:
        kept = image_NC.abs().max() > 1e-6
        expected = branch_NC / 0.6 if kept else torch.zeros_like(branch_NC)
        torch.testing.assert_close(image_NC, expected, atol=1e-5, rtol=1e-4)
        kept_B.append(float(kept))
    assert sum(kept_B) / len(kept_B) == pytest.approx(0.6, abs=4 * math.sqrt(0.24 / 2000))


@pytest.mark.parametrize("rate", [-0.1, 1.0, math.nan])
def test_a_drop_path_that_leaves_nothing_is_refused(rate):
    with pytest.raises(InputError, match=f"drop_path is {rate}: use at least 0 and less than 1"):
        create_model(toy(), drop_path=rate)


def test_evaluation_drops_nothing():
    model = create_model(toy(), drop_path=0.9).eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images), model(images))


def test_every_parameter_learns():
    torch.manual_seed(0)
    model = create_model(toy(prefix_tokens=2), patch_head=True)
    heads = model.forward_heads(torch.randn(4, 3, 16, 16))
    torch.stack([logits.square().sum() for logits in heads.values()]).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
