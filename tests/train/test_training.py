"""What is trained is what the recipe says, and it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from vitresnas.data import Augmentation, Mixing, load_data
from vitresnas.errors import InputError
from vitresnas.models.model_directory import load_model
from vitresnas.space import SPACES, derive_space, load_architecture, load_space, macs
from vitresnas.supernet import load_supernet
from vitresnas.train.objectives import classification
from vitresnas.train.optimiser import create_optimizer, create_schedule
from vitresnas.train.place import Place
from vitresnas.train.recipe import RETRAIN, SUPERNET
from vitresnas.train.recipes import RECIPES, Pair, load_recipe, recipes_for, supernet_recipe
from vitresnas.train.run import look, run
from vitresnas.train.tasks import create_task
from vitresnas.train.trainer import Trainer

PINNED = [2.32066, 2.30666, 2.30946, 2.2996, 2.29989, 2.30217, 2.32542, 2.30517, 2.30905, 2.32752]

PLACE = Place(torch.device("cpu"))


def test_a_super_network_learns_digits(toy_supernet, tmp_path):
    recipe = replace(
        toy_supernet,
        batch_size=32,
        groups=2,
        epochs=5,
        drop_path=0.0,
        augmentation=Augmentation(),
        mixing=Mixing(),
    )
    result = run(recipe, tmp_path, device="cpu")
    assert set(result.holdout) == {"largest", "smallest", "random_1", "random_2", "random_3"}
    assert min(score["accuracy"] for score in result.holdout.values()) > 0.5
    assert result.test["largest"]["accuracy"] > 0.5
    supernet = load_supernet(tmp_path)
    data = load_data("digits", image_size=8)
    images, labels = next(data.holdout.batches(300))
    with torch.no_grad():
        logits = supernet(images, (supernet.space.largest,))
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    assert accuracy == pytest.approx(result.holdout["largest"]["accuracy"])


def test_other_images_bring_their_classes(toy_supernet, tmp_path, pets):
    recipe = replace(toy_supernet, epochs=1, data=str(pets), batch_size=16, groups=2)
    result = run(recipe, tmp_path / "run", device="cpu")
    assert load_supernet(tmp_path / "run").space.classes == 2
    assert "no test split" in result.data["notes"][0]


def test_inherited_weights_start_as_the_sub_network(toy_supernet, toy_retrain, digits, tmp_path):
    run(replace(toy_supernet, epochs=1), tmp_path / "supernet", device="cpu")
    supernet = load_supernet(tmp_path / "supernet")
    recipe = replace(toy_retrain, init="inherited", supernet=str(tmp_path / "supernet"))
    model = create_task(recipe, digits).model.eval()
    images, _ = next(digits.holdout.batches(20))
    with torch.no_grad():
        expected = supernet(images, (load_architecture(recipe.architecture),))
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_a_retrained_network_is_a_model_directory(toy_retrain, digits, tmp_path):
    result = run(replace(toy_retrain, epochs=6), tmp_path / "run", device="cpu")
    model = load_model(tmp_path / "run")
    assert model.architecture == load_architecture(toy_retrain.architecture)
    images, labels = next(digits.holdout.batches(300))
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).float().mean().item()
    assert accuracy == pytest.approx(result.holdout["network"]["accuracy"])
    assert accuracy > 0.3


def test_training_never_sees_holdout_or_test(digits):
    trained = {image.numpy().tobytes() for image in digits.train.pixels}
    held = [image.numpy().tobytes() for s in (digits.holdout, digits.test) for image in s.images]
    assert sum(pixels in trained for pixels in held) == 0


def test_weight_decay_skips_vectors_and_prefix_tokens(toy_supernet, digits):
    model = create_task(toy_supernet, digits).model
    decayed, free = create_optimizer(model, toy_supernet).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    free_names = {names[id(parameter)] for parameter in free["params"]}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert {n for n in free_names if dict(model.named_parameters())[n].ndim > 1} == {
        "network.embedding.prefix_tokens"
    }
    assert any("position_embedding" in names[id(parameter)] for parameter in decayed["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(names)


def test_the_rate_warms_up_and_follows_a_cosine(toy_supernet):
    recipe = replace(toy_supernet, epochs=10, warmup_epochs=2)
    optimizer = create_optimizer(nn.Linear(2, 2), recipe)
    schedule = create_schedule(optimizer, recipe, steps_per_epoch=10)
    rates = []
    for step in range(100):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(recipe.warmup_learning_rate)
    assert max(rates) == rates[20] == pytest.approx(recipe.learning_rate)
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[60] == pytest.approx((recipe.learning_rate + recipe.final_learning_rate) / 2)
    assert rates[99] < 2e-5


def test_a_run_of_one_step_takes_the_peak_rate_without_a_warning(toy_supernet, caplog):
    recipe = replace(toy_supernet, epochs=1, warmup_epochs=0)
    optimizer = create_optimizer(torch.nn.Linear(2, 2), recipe)
    create_schedule(optimizer, recipe, steps_per_epoch=1).step_update(0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(recipe.learning_rate)
    assert not caplog.records


def test_channels_are_sorted_up_to_the_widening_epoch_and_no_longer(toy_supernet, digits):
    trainer = Trainer(create_task(toy_supernet, digits), digits, toy_supernet, PLACE)
    moved = []
    for epoch in range(4):
        before = [p.clone() for p in trainer.task.model.parameters()]
        trainer.task.begin_epoch(epoch, trainer.optimizer, [])
        after = trainer.task.model.parameters()
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
        trainer.train_epoch(epoch)
    # train_epoch sorts again what is sorted already; E_w is 2 and epochs count from 0.
    assert moved == [True, True, True, False]


def test_sorting_carries_the_weight_average(toy_supernet, digits):
    trainer = Trainer(create_task(toy_supernet, digits), digits, toy_supernet, PLACE)
    trainer.train_epoch(0)
    images, _ = next(digits.holdout.batches(50))
    average, largest = trainer.model.eval(), (load_space(toy_supernet.space).largest,)
    with torch.no_grad():
        before = average(images, largest)
        trainer.task.begin_epoch(1, trainer.optimizer, [average])
        torch.testing.assert_close(average(images, largest), before, rtol=1e-4, atol=1e-5)


def test_the_loss_of_the_first_steps_is_pinned(toy_supernet, digits):
    """A refactoring keeps these; a change that moves them says so in its message."""
    trainer = Trainer(create_task(toy_supernet, digits), digits, toy_supernet, PLACE)
    losses = [
        trainer.train_step(images, labels, 0, step)["loss"].item()
        for step, (images, labels) in zip(range(10), trainer.loader.epoch(0), strict=False)
    ]
    assert losses == pytest.approx(PINNED, rel=1e-3)


def test_every_classifier_of_the_network_learns():
    logits, targets = torch.randn(4, 3), torch.eye(3)[[0, 1, 2, 0]]
    labels = {"class": targets}
    losses = classification({"class": logits, "distillation": logits + 1}, labels)
    torch.testing.assert_close(losses["class"], nn.functional.cross_entropy(logits, targets))
    mean = (losses["class"] + losses["distillation"]) / 2
    torch.testing.assert_close(losses["loss"], mean)
    assert set(classification({"class": logits}, labels)) == {"loss", "class"}


def test_bf16_autocast_trains_too(toy_supernet, digits):
    recipe = replace(toy_supernet, dtype="bf16")
    trainer = Trainer(create_task(recipe, digits), digits, recipe, PLACE)
    images, labels = next(trainer.loader.epoch(0))
    assert trainer.train_step(images, labels, 0, 0)["loss"].isfinite()
    assert all(parameter.dtype == torch.float32 for parameter in trainer.task.model.parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_what_exists(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    if recipe.task == SUPERNET:
        assert load_space(recipe.space).image_size in (16, 32, 224)
    else:
        assert macs(replace(recipe, init="random").network) > 0
    documentation = RECIPES[name].__doc__
    assert documentation and f"--recipe {name}" in documentation and "ViT-ResNAS" in documentation


@pytest.mark.parametrize("name", SPACES)
def test_every_space_by_name_has_recipes_made_for_it(name):
    chosen = recipes_for(load_space(name))
    assert load_recipe(chosen.supernet).space == name
    retraining = load_recipe(chosen.retrain)
    assert retraining.task == RETRAIN
    assert retraining.network.image_size == load_space(name).image_size
    assert supernet_recipe(name, "photos").name == chosen.supernet


@pytest.mark.parametrize(
    ("side", "supernet", "retrain"),
    [
        (16, "digits-supernet", "digits-retrain"),
        (96, "cifar-supernet", "cifar-retrain"),
        (160, "supernet-tiny", "retrain"),
    ],
)
def test_a_space_of_one_s_own_is_told_the_recipe_for_images_of_its_size(
    side, supernet, retrain, tmp_path
):
    space = derive_space(side, 7)
    space.save(tmp_path / "space.json")
    assert recipes_for(space) == Pair(supernet, retrain)
    with pytest.raises(
        InputError, match=rf"--recipe {supernet} --space .*space\.json --data mine "
    ):
        supernet_recipe(str(tmp_path / "space.json"), "mine")


def test_images_that_no_recipe_brings_must_be_given():
    with pytest.raises(InputError, match="cifar-nano-supernet, which brings none: give --data"):
        supernet_recipe("cifar-nano", None)
    assert supernet_recipe("digits", None).data == "digits"


def test_a_schedule_is_stretched_with_its_widening_and_warm_up(toy_supernet):
    recipe = replace(toy_supernet, epochs=40, widening_epochs=10, warmup_epochs=5)
    assert recipe.stretched(40) == recipe
    short, long = recipe.stretched(8), recipe.stretched(80)
    assert (short.epochs, short.widening_epochs, short.warmup_epochs) == (8, 2, 1)
    assert (long.epochs, long.widening_epochs, long.warmup_epochs) == (80, 20, 5)


def test_a_look_tells_the_time_and_writes_nothing(toy_supernet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    found = look(toy_supernet, device="cpu")
    assert sorted(tmp_path.rglob("*")) == before
    assert found.steps_per_epoch == 17 and found.training_images == 1137
    assert found.macs_first_epoch > found.macs_last_epoch > 0
    assert found.seconds > 4 * 17 * 64 / found.images_per_second
    assert len(found.lines()) == 8
