"""The only oracle from outside: the authors' checkpoints give the authors' logits."""

import argparse
import re

import pytest
import torch

from tests.models.official_oracle import oracle_logits, random_checkpoint
from vitresnas.errors import FileFormatError, InputError, SpaceError
from vitresnas.models.official import import_official
from vitresnas.space import NETWORKS


def block(width, heads, head_dim, hidden, kept=1):
    return (1, (width, heads, head_dim), (width, hidden), kept)


# Three stages; heads x head dim differs from the width, widths rise unevenly, blocks are removed
# at the start, in the middle and at the end of stages.
BODY = (
    block(24, 3, 16, 40),
    block(24, 2, 16, 64, 0),
    block(24, 1, 16, 56),
    (3, 24, 40),
    block(40, 2, 24, 80, 0),
    block(40, 3, 24, 100),
    (3, 40, 40),
    block(40, 4, 8, 48),
    block(40, 2, 8, 40, 0),
    (2, 40, 7),
)
EMBEDDINGS = {"linear": (0, 24), "convolutional": (4, 24), "own mid channels": (5, 24, 10)}


def write(path, state, **more):
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1, name="x"), **more}, path)
    return path


@pytest.mark.parametrize("patch_head", [False, True], ids=["", "patch head"])
@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize("side", [56, 112])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_imported_networks_give_the_logits_of_the_facts(
    tmp_path, embedding, side, prefix, patch_head
):
    definition = (EMBEDDINGS[embedding], *BODY)
    state = random_checkpoint(definition, prefix=prefix, side=side, patch_head=patch_head)
    model = import_official(write(tmp_path / "c.pth", state), definition)
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    expected = oracle_logits(state, definition, images)
    with torch.inference_mode():
        found = model.forward_heads(images)
        assert found.keys() == expected.keys()
        for head in expected:
            assert expected[head].std() > 0.1  # a network that computes something
            torch.testing.assert_close(found[head], expected[head], atol=1e-5, rtol=0)
        heads = [expected[name] for name in ("class", "distillation") if name in expected]
        mean = torch.stack(heads).mean(dim=0)
        torch.testing.assert_close(model(images), mean, atol=1e-5, rtol=0)


def test_published_tiny_gives_the_logits_of_the_facts(tmp_path):
    tiny = NETWORKS["tiny"]
    items: list[tuple[object, ...]] = [(4, 176)]
    for index, stage in enumerate(tiny.stages):
        if index:
            items.append((3, tiny.stages[index - 1].embed, stage.embed))
        items += [block(stage.embed, b.heads, stage.head_dim, b.hidden) for b in stage.kept]
    items.append((2, 704, 1000))
    state = random_checkpoint(tuple(items), side=224)
    model = import_official(write(tmp_path / "c.pth", state), items)
    assert model.architecture == tiny
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = oracle_logits(state, items, images)["class"]
        torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=0)


DEFINITION = (EMBEDDINGS["own mid channels"], *BODY)


def test_the_running_average_is_preferred(tmp_path):
    old, average = (random_checkpoint(DEFINITION, seed=seed) for seed in (1, 2))
    model = import_official(write(tmp_path / "c.pth", old, model_ema=average), DEFINITION)
    assert torch.equal(model.head.weight, average["cls_head.weight"])


def test_removed_blocks_stay_in_the_architecture_as_skipped(tmp_path):
    path = write(tmp_path / "c.pth", random_checkpoint(DEFINITION))
    stages = import_official(path, DEFINITION).architecture.stages
    kept = [[block is not None for block in stage.blocks] for stage in stages]
    assert kept == [[True, False, True], [False, True], [True, False]]


def test_half_precision_weights_are_read_in_single_precision(tmp_path):
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in random_checkpoint(DEFINITION).items()
    }
    model = import_official(write(tmp_path / "c.pth", state), DEFINITION)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_every_key_that_does_not_fit_is_named(tmp_path):
    state = random_checkpoint(DEFINITION)
    del state["blocks.2.mlp.fc1.bias"]
    state["blocks.1.norm1.weight"] = torch.ones(24)  # of a removed block
    state["blocks.3.patch_reduce.weight"] = torch.zeros(40, 24, 1, 1)
    with pytest.raises(FileFormatError) as caught:
        import_official(write(tmp_path / "c.pth", state), DEFINITION)
    for part in (
        "c.pth does not fit the network definition",
        "blocks.2.mlp.fc1.bias is missing",
        "blocks.1.norm1.weight is unexpected",
        "blocks.3.patch_reduce.weight has shape (40, 24, 1, 1), expected (40, 24, 3, 3)",
    ):
        assert part in str(caught.value)


def test_another_definition_is_refused_by_key(tmp_path):
    path = write(tmp_path / "c.pth", random_checkpoint(DEFINITION))
    wider = ((5, 24, 12), *BODY)
    with pytest.raises(FileFormatError, match=re.escape("conv1.conv.weight has shape (10, 3, 3")):
        import_official(path, wider)
    with pytest.raises(SpaceError, match=r"item 1, .* width 24 where the tokens have 32"):
        import_official(path, ((5, 32, 10), *BODY))


def test_files_that_hold_more_than_tensors_are_refused_and_never_run(tmp_path):
    import pickle

    ran = tmp_path / "ran"
    program = b"cos\nsystem\n(S'touch " + str(ran).encode() + b"'\ntR."
    (tmp_path / "c.pth").write_bytes(program)
    with pytest.raises(FileFormatError, match=r"cannot read .*c.pth as a checkpoint"):
        import_official(tmp_path / "c.pth", DEFINITION)
    torch.save({"model": random_checkpoint(DEFINITION), "args": pickle.Pickler}, tmp_path / "d.pth")
    with pytest.raises(FileFormatError, match=r"cannot read .*d.pth as a checkpoint"):
        import_official(tmp_path / "d.pth", DEFINITION)
    assert not ran.exists()


def test_the_namespace_is_allowed_for_these_files_alone(tmp_path):
    path = write(tmp_path / "c.pth", random_checkpoint(DEFINITION))
    import_official(path, DEFINITION)
    with pytest.raises(Exception, match="Namespace"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"epoch": 3}, 'no weights under "model" or "model_ema" .it holds epoch.'),
        ({"model": {}}, "no weights"),
        ([1], "holds a list, expected a dictionary"),
        ({"model": {"tokens": 3}}, "'tokens' is 3, expected a tensor"),
        ({"model": {"tokens": torch.zeros(1, 1, 8)}}, "pos_embed is missing"),
        ({"model": {"tokens": torch.zeros(8)}}, r"tokens is \(8,\), expected the shape"),
        (
            {"model": {"tokens": torch.zeros(1, 1, 8), "pos_embed": torch.zeros(1, 16, 8)}},
            "pos_embed has 15 positions besides 1 prefix tokens, expected the square",
        ),
    ],
)
def test_checkpoints_of_others_are_refused(tmp_path, content, sentence):
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(FileFormatError, match=sentence):
        import_official(tmp_path / "c.pth", DEFINITION)


def test_missing_and_truncated_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*nothing.pth"):
        import_official(tmp_path / "nothing.pth", DEFINITION)
    whole = write(tmp_path / "c.pth", random_checkpoint(DEFINITION)).read_bytes()
    for size in (0, 1, 1000, len(whole) - 1000):
        (tmp_path / "c.pth").write_bytes(whole[:size])
        with pytest.raises(FileFormatError, match=r"cannot read .*c.pth as a checkpoint"):
            import_official(tmp_path / "c.pth", DEFINITION)
    with pytest.raises(FileFormatError, match="cannot read"):
        import_official(tmp_path, DEFINITION)


def test_a_damaged_file_of_an_old_torch_is_one_sentence(tmp_path):
    path = tmp_path / "c.pth"
    state = {"model": random_checkpoint(DEFINITION)}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    first = re.search(rb"[0-9]{9,}", content)  # tensors name their storages by number
    assert first is not None
    path.write_bytes(content.replace(first[0], first[0][:-1] + b"x", 1))
    with pytest.raises(FileFormatError, match=r"cannot read .*c.pth as a checkpoint"):
        import_official(path, DEFINITION)
