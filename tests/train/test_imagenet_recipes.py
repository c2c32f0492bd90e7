"""The ImageNet recipes: the paper's numbers, a look at them, fine-tuning, teachers."""

from __future__ import annotations

import shutil
from dataclasses import replace

import huggingface_hub
import pytest
import torch
from torch.nn import functional as F

from vitresnas.data import Mixing, load_data
from vitresnas.data.share import Piece
from vitresnas.data.stand_in import stand_in
from vitresnas.errors import DataError, InputError, MismatchError
from vitresnas.models import create_model
from vitresnas.models.model_directory import load_model
from vitresnas.space import load_architecture, parameters
from vitresnas.train.__main__ import main
from vitresnas.train.memory import estimate_memory
from vitresnas.train.objectives import teaching
from vitresnas.train.optimiser import create_optimizer, create_schedule
from vitresnas.train.place import Place
from vitresnas.train.recipes import load_recipe
from vitresnas.train.run import look, run
from vitresnas.train.tasks import RetrainTask, create_task
from vitresnas.train.trainer import Trainer, create_average

PLACE = Place(torch.device("cpu"))


def test_the_numbers_are_the_papers():
    supernet, network = load_recipe("supernet-tiny"), load_recipe("retrain")
    assert (supernet.epochs, supernet.widening_epochs, network.epochs) == (120, 30, 300)
    for recipe in (supernet, network, load_recipe("supernet-small")):
        assert (recipe.batch_size, recipe.learning_rate, recipe.final_learning_rate) == (
            1024,
            5e-4 * 1024 / 512,
            1e-5,
        )
        assert (recipe.warmup_epochs, recipe.weight_decay, recipe.drop_path) == (5, 0.05, 0.2)
        assert recipe.mixing == Mixing(0.8, 1.0, smoothing=0.1, tokens=True)
    assert supernet.batch_size // supernet.groups == 64
    assert (supernet.average, network.average) == (0.0, 0.99996)
    assert replace(load_recipe("finetune-336"), init="random").network.grids == (24, 12, 6)
    assert load_recipe("distill").network.prefix_tokens == 2


def test_the_weight_average_gets_as_long_as_the_paper_says():
    model = torch.nn.Linear(1, 1)
    for name, steps in (("retrain", 300 * 1_226), ("cifar-retrain", 13_000)):
        recipe = load_recipe(name)
        average = create_average(model, recipe)
        assert average.get_decay(steps // 5) < recipe.average == average.get_decay(steps - 1)
        assert average.get_decay(1) == 0  # the first weights leave no trace


@pytest.fixture(scope="module")
def trained(toy_space, tmp_path_factory):
    """A model directory of the toy space's smallest network."""
    out = tmp_path_factory.mktemp("trained")
    recipe = replace(
        load_recipe("digits-retrain"), architecture=f"{toy_space}:smallest", batch_size=192
    )
    run(replace(recipe, epochs=2), out, device="cpu")
    return out


def test_a_fine_tuned_network_starts_with_its_weights_at_the_new_size(trained, tmp_path):
    recipe = replace(
        load_recipe("finetune-280"), architecture=str(trained), image_size=16, data="digits"
    )
    recipe = replace(recipe, epochs=1, batch_size=384, augmentation=replace(recipe.augmentation))
    data = load_data("digits", image_size=16)
    model = create_task(recipe, data).model.eval()
    images, _ = next(data.holdout.batches(4))
    with torch.no_grad():
        expected = load_model(trained).at_resolution(16)(images)
        torch.testing.assert_close(model(images), expected)
    run(recipe, tmp_path, device="cpu", workers=0)
    assert load_model(tmp_path).architecture.image_size == 16


def test_shape_and_weights_come_from_one_folder_whatever_its_name(
    trained, digits, tmp_path, monkeypatch
):
    shutil.copytree(trained, tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    assert load_architecture("tiny").image_size == 224  # the published one
    recipe = replace(load_recipe("finetune-336"), architecture="tiny", image_size=8, data="digits")
    assert recipe.network == load_model(trained).architecture
    weights = create_task(recipe, digits).model.state_dict()
    torch.testing.assert_close(weights, load_model(trained).state_dict())


def test_fine_tuning_needs_a_trained_network(toy_retrain, digits, trained, pets):
    with pytest.raises(InputError, match="holds no finished model"):
        create_task(replace(toy_retrain, init="trained"), digits)
    two = load_data(str(pets), image_size=8)
    with pytest.raises(DataError, match="the network has 10 classes and the data 2"):
        create_task(replace(toy_retrain, init="trained", architecture=str(trained)), two)


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_the_distillation_token_learns_from_the_teacher(toy_retrain, digits, trained, labels):
    recipe = replace(
        toy_retrain, teacher=str(trained), distillation=labels, temperature=2.0, mixing=Mixing()
    )
    task = create_task(recipe, digits)
    trainer = Trainer(task, digits, recipe, PLACE)
    images, classes = next(trainer.loader.epoch(0))
    _, targets = trainer.mixer(images, classes, 0, 0)
    heads = task.heads(images, 0, 0, Piece())
    assert heads["class"].shape == heads["distillation"].shape == heads["teacher"].shape
    with torch.no_grad():
        torch.testing.assert_close(heads["teacher"], load_model(trained)(images))
    known = F.cross_entropy(heads["class"], targets["class"])
    if labels == "hard":
        learned = F.cross_entropy(heads["distillation"], heads["teacher"].argmax(1))
    else:
        p, q = ((heads[name] / 2).softmax(1) for name in ("teacher", "distillation"))
        learned = 4 * (p * (p / q).log()).sum(1).mean()
    found = trainer.objective(heads, targets)
    torch.testing.assert_close(found["loss"], (known + learned) / 2)
    assert set(task.identity()) == {"architecture_id", "teacher_weights"}


def test_a_taught_run_ends_as_a_network_with_two_heads(toy_retrain, trained, tmp_path):
    recipe = replace(toy_retrain, teacher=str(trained), epochs=1, batch_size=192)
    run(recipe, tmp_path, device="cpu")
    model = load_model(tmp_path)
    assert model.distillation_head is not None
    assert run(recipe, tmp_path, device="cpu").recipe == "toy-retrain"  # finished, not repeated


def test_soft_labels_of_oneself_cost_nothing():
    logits = torch.randn(5, 7)
    heads = {"class": logits, "distillation": logits, "teacher": logits}
    assert teaching(heads, {"class": torch.eye(7)[:5]}, labels="soft", temperature=3.0)[
        "distillation"
    ].item() == pytest.approx(0, abs=1e-6)


def test_teachers_that_do_not_fit_are_refused(toy_retrain, digits, trained, pets):
    with pytest.raises(InputError, match="timm has no network 'oracle'"):
        create_task(replace(toy_retrain, teacher="oracle"), digits)
    with pytest.raises(MismatchError, match="has 10 classes and the data has 2"):
        create_task(replace(toy_retrain, teacher=str(trained)), load_data(str(pets), image_size=8))
    sixteen = load_data("digits", image_size=16)
    with pytest.raises(InputError, match="cannot read images of 16 pixels"):
        create_task(replace(toy_retrain, teacher=str(trained), image_size=16), sixteen)
    with pytest.raises(InputError, match="no distillation token"):
        fine_tuned = replace(toy_retrain, architecture=str(trained), init="trained")
        _ = replace(fine_tuned, teacher=str(trained)).network


def test_rates_fall_from_layer_to_layer(toy_retrain, digits):
    recipe = replace(toy_retrain, layer_decay=0.5, warmup_epochs=0)
    model = RetrainTask(recipe, 10).model
    optimizer = create_optimizer(model, recipe)
    create_schedule(optimizer, recipe, 10).step_update(0)
    rate = {
        id(p): group["lr"] / recipe.learning_rate
        for group in optimizer.param_groups
        for p in group["params"]
    }
    found = {name: rate[id(parameter)] for name, parameter in model.named_parameters()}
    assert len(found) == len(rate)
    layers = ["head", "stages.2.blocks.0", "stages.2.reduction", "stages.1.blocks.0"]
    for depth, layer in enumerate(layers):
        rates = {value for name, value in found.items() if name.startswith(f"{layer}.")}
        assert rates == {0.5**depth}, layer
    assert found["embedding.prefix_tokens"] == min(found.values())
    free = [p for g in optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]]
    assert any(p is model.embedding.prefix_tokens for p in free)


def test_memory_is_what_autograd_keeps(toy_retrain, digits, trained):
    recipe = replace(toy_retrain, average=0.0)
    trainer = Trainer(create_task(recipe, digits), digits, recipe, PLACE)
    memory = estimate_memory(trainer, 0)
    numbers = sum(p.numel() for p in trainer.task.model.parameters())
    assert memory.fixed == 4 * 4 * numbers
    taught = replace(recipe, teacher=str(trained), mixing=Mixing())
    trainer = Trainer(create_task(taught, digits), digits, taught, PLACE)
    with_token = sum(p.numel() for p in trainer.task.model.parameters())
    assert estimate_memory(trainer, 0).fixed == 4 * (
        4 * with_token + parameters(load_model(trained).architecture)
    )
    # at least the input of each linear, and not ten times the tokens of all layers
    tokens = sum(
        count * stage.embed * len(stage.kept)
        for count, stage in zip(recipe.network.tokens, recipe.network.stages, strict=True)
    )
    assert 4 * tokens < memory.per_image < 400 * tokens
    assert memory.of(10) == memory.fixed + 10 * memory.per_image


def test_a_look_without_data_reads_noise_of_its_size(
    few_timed_steps, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            ["--recipe", "cifar-nano-supernet", "--dry-run", "--workers", "0", "--batch-size", "8"]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "noise in place of CIFAR-10, 45000 training images" in printed
    assert "memory    about" in printed and "total     about" in printed
    data = stand_in(224)
    assert len(data.train) == 1_256_167 and len(data.class_names) == 1000
    assert data.train[1_000_000][0].shape == (3, 224, 224)
    assert not list(tmp_path.iterdir())


def test_a_look_at_distillation_downloads_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    recipe = replace(load_recipe("distill"), architecture="digits:smallest", data="digits")
    recipe = replace(recipe, teacher="resnet18")  # a RegNetY-16GF takes seconds to build
    with pytest.raises(MismatchError, match="has 1000 classes and the data has 10"):
        look(recipe, device="cpu", workers=0)  # it got as far as that without weights
    with pytest.raises(InputError, match="cannot get the pre-trained weights of resnet18"):
        run(recipe, tmp_path / "out", device="cpu", workers=0)


def test_a_look_grows_its_batches_to_the_recipes(toy_retrain):
    found = look(toy_retrain, device="cpu")
    assert (found.timed_batch_size, found.timed_steps) == (64, 20)
    assert 0 < found.memory_bytes < found.device_memory_bytes
    assert "after 2 epochs of warm-up, then a cosine to 1e-05" in "\n".join(found.lines())
    rate = {"learning_rate": 5e-6, "final_learning_rate": 5e-6, "warmup_epochs": 0}
    constant = replace(found, recipe=replace(toy_retrain, **rate))
    assert "batches of 64, learning rate 5e-06\n" in "\n".join(constant.lines())
    assert create_model(load_architecture(toy_retrain.architecture)).head.out_features == 10
