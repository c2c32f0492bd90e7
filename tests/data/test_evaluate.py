"""One evaluation serves training, search and verification: it is what its formula says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vitresnas.data import ImageSet
from vitresnas.data.evaluate import evaluate, evaluate_model


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (23, 3, 4, 4), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.randint(0, 4, (23,), generator=generator))


@pytest.fixture
def classifier():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 5))


def test_likelihood_and_accuracies_are_those_of_all_images_at_once(images, classifier):
    found = evaluate_model(classifier, images)
    ((inputs, labels),) = images.batches()
    with torch.no_grad():
        logits = classifier.eval()(inputs).double()
    right = logits.argmax(1) == labels
    chosen = torch.log_softmax(logits, 1)[torch.arange(23), labels]
    assert found.negative_log_likelihood == pytest.approx(-float(chosen.mean()))
    assert found.accuracy == float(right.double().mean()) and found.images == 23
    for label, accuracy in enumerate(found.accuracy_by_class[:4]):
        assert accuracy == pytest.approx(float(right[labels == label].double().mean()))
    assert found.accuracy_by_class[4] is None, "a class without images"


def test_batches_change_nothing_but_the_last_digits(images, classifier):
    model = classifier.eval()
    whole, parts = (evaluate(model, images.batches(size)) for size in (23, 5))
    assert parts.negative_log_likelihood == pytest.approx(whole.negative_log_likelihood)
    assert (parts.accuracy_by_class, parts.images) == (whole.accuracy_by_class, whole.images)


def test_a_model_goes_on_in_the_mode_it_was_in(images, classifier):
    for training in (True, False):
        evaluate_model(classifier.train(training), images)
        assert all(module.training is training for module in classifier.modules())
