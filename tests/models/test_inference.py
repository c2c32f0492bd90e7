"""The optimised network is the network: its logits, and nothing of what training needs."""

import copy
import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from torch import nn

from vitresnas.errors import InputError
from vitresnas.models import create_model, optimise_for_inference
from vitresnas.space import NETWORKS, SPACES, Architecture, Block, Embedding, Stage

DIGITS = SPACES["digits"]


def stages(*blocks) -> Architecture:
    """A small network with these blocks in its three stages."""
    widths = ((20, 8), (20, 4), (36, 8))
    return Architecture(
        image_size=16,
        patch_size=2,
        embedding=Embedding("convolutional", 6),
        stages=tuple(Stage(*width, kept) for width, kept in zip(widths, blocks, strict=True)),
        classes=5,
    )


BLOCK = Block(2, 24)
NETS = {
    **{f"digits {seed}": DIGITS.sample(Random(seed)) for seed in range(4)},
    "largest": DIGITS.largest,
    "smallest": DIGITS.smallest,
    "no blocks at all": stages((), (None,), (None, None)),
    "blocks in the first stage alone": stages((BLOCK, BLOCK), (None,), ()),
    "blocks in the middle alone": stages((None,), (BLOCK,), (None,)),
    "one block at the end": stages((), (), (BLOCK,)),
    "linear embedding": replace(
        stages((BLOCK,), (BLOCK,), (BLOCK,)), embedding=Embedding("linear", 0)
    ),
    "one channel": replace(stages((BLOCK,), (BLOCK,), (BLOCK,)), channels=1),
}


def grown(architecture, **options):
    """A network in which every number matters, as if it had been trained; float64."""
    torch.manual_seed(1)
    model = create_model(architecture, **options).double().eval()
    for module in model.modules():
        if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.bias, std=0.2)
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(value)
        if name.endswith("running_var"):
            nn.init.uniform_(value, 0.2, 3.0)
    return model


def pictures(architecture, batch=3, dtype=torch.float64):
    side = architecture.image_size
    generator = torch.Generator().manual_seed(2)
    shape = (batch, architecture.channels, side, side)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("prefix_tokens", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_the_logits_are_the_network_s(name, prefix_tokens):
    architecture = replace(NETS[name], prefix_tokens=prefix_tokens)
    model = grown(architecture)
    images = pictures(architecture)
    with torch.no_grad():
        exact = model(images)
        torch.testing.assert_close(
            optimise_for_inference(model)(images), exact, rtol=1e-10, atol=1e-10
        )
        for start in (model.float(), model):  # cast before and after
            found = optimise_for_inference(start, dtype=torch.float32)(images.float())
            torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    assert exact.std() > 0.01  # the images and the weights decide something


@pytest.mark.parametrize("prefix_tokens", [1, 2])
def test_vitresnas_tiny_keeps_its_logits(prefix_tokens):
    architecture = replace(NETWORKS["tiny"], prefix_tokens=prefix_tokens)
    model, images = grown(architecture), pictures(architecture, batch=2)
    with torch.no_grad():
        exact = model(images)
        found = optimise_for_inference(model)(images)
        single = optimise_for_inference(model, dtype=torch.float32)(images.float())
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_close_as_the_plain_network_in_half_precision(dtype):
    model, images = grown(DIGITS.largest), pictures(DIGITS.largest, batch=16)
    with torch.no_grad():
        exact = model(images)
        optimised = optimise_for_inference(model, dtype=dtype)(images.to(dtype))
        plain = model.to(dtype)(images.to(dtype))
    assert optimised.dtype == dtype
    errors = [(found.double() - exact).square().mean().sqrt() for found in (optimised, plain)]
    assert errors[0] < 1.5 * errors[1]


def test_the_original_is_left_as_it_was():
    model = grown(NETS["digits 0"], patch_head=True)
    before = copy.deepcopy(model.state_dict())
    images = pictures(model.architecture)
    optimised = optimise_for_inference(model, dtype=torch.float32)
    optimised(images.float())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(value.is_contiguous() for value in model.state_dict().values())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in optimised.parameters())
    assert not any("patch_head" in name for name, _ in optimised.named_parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in optimised.modules())


def test_images_are_read_and_never_written():
    for name in ("digits 0", "linear embedding", "no blocks at all"):
        model = optimise_for_inference(grown(NETS[name]))
        images = pictures(model.architecture)
        kept = images.clone()
        first, second = model(images), model(images)
        assert torch.equal(images, kept) and torch.equal(first, second)
        assert model(images[:0]).shape == (0, model.architecture.classes)
        torch.testing.assert_close(model(images[:1]), first[:1])


def test_the_last_block_and_what_follows_compute_prefix_rows_alone():
    model = optimise_for_inference(grown(NETS["blocks in the first stage alone"]))
    rows = []
    for step in model.steps:
        step.register_forward_hook(lambda module, inputs, out: rows.append(out.shape[1]))
    model(pictures(model.architecture))
    assert rows == [65, 65, 1, 1, 1]


def test_it_is_copied_and_compiled_like_any_module():
    model = optimise_for_inference(grown(NETS["largest"]))
    images = pictures(model.architecture)
    expected = model(images)
    torch.testing.assert_close(copy.deepcopy(model)(images), expected)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), expected)


def test_training_mode_is_refused_before_and_after():
    model = grown(NETS["digits 0"])
    optimised = optimise_for_inference(model)
    assert not optimised.eval().training
    with pytest.raises(InputError, match=r"cannot be trained.*train the network"):
        optimised.train()
    with pytest.raises(InputError, match=r"training mode.*call model\.eval\(\)"):
        optimise_for_inference(model.train())


def test_images_of_another_shape_are_refused():
    with pytest.raises(InputError, match="images have shape"):
        optimise_for_inference(grown(NETS["digits 0"]))(torch.zeros(2, 3, 9, 9))


def test_the_page_s_snippet_runs():
    page = (Path(__file__).parents[2] / "docs" / "inference.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(snippet, "docs/inference.md", "exec"), {})
