import pytest

from vitresnas.errors import SpaceError
from vitresnas.space import SPACES, derive_space, macs, parameters


def test_digits_has_the_sizes_of_the_facts():
    digits = SPACES["digits"]
    assert macs(digits.largest) == pytest.approx(47e6, rel=0.01)
    assert macs(digits.smallest) == pytest.approx(5e6, rel=0.02)
    assert parameters(digits.largest) == pytest.approx(4.6e6, rel=0.01)
    assert digits.largest.grids == (8, 4, 2)


def test_cifar_has_the_sizes_of_the_facts():
    cifar = SPACES["cifar"]
    assert macs(cifar.largest) == pytest.approx(0.95e9, rel=0.01)
    assert macs(cifar.smallest) == pytest.approx(0.17e9, rel=0.01)
    assert parameters(cifar.largest) == pytest.approx(22.6e6, rel=0.01)
    assert cifar.largest.grids == (16, 8, 4)


@pytest.mark.parametrize(
    "image_size", [8, 16, 24, 28 + 4, 48, 64, 96, 112, 128, 160, 224, 280, 384]
)
def test_a_derived_space_has_whole_grids_and_the_classes_asked_for(image_size):
    space = derive_space(image_size, 7)
    assert space.image_size == image_size and space.classes == 7
    assert len(space.largest.grids) == 3
    assert space.patch_size % 2 == 0 and space.patch_size * space.largest.grids[0] == image_size


@pytest.mark.parametrize(
    ("image_size", "grid"), [(96, 16), (64, 16), (32, 16), (224, 16), (48, 12)]
)
def test_a_derived_space_stays_close_to_the_grid_of_the_paper(image_size, grid):
    assert abs(derive_space(image_size, 7).largest.grids[0] - 16) <= abs(grid - 16)


@pytest.mark.parametrize("image_size", [9, 12, 90, 100, 225, 1001])
def test_an_image_size_without_a_fitting_patch_is_answered_with_sizes_that_work(image_size):
    with pytest.raises(SpaceError, match=f"images of {image_size} pixels") as caught:
        derive_space(image_size, 7)
    words = str(caught.value).split("such as ")[1].split(",")[0]
    below, above = map(int, words.split(" or "))
    assert below <= image_size <= above
    for size in (below, above):
        assert derive_space(size, 7).image_size == size


@pytest.mark.parametrize("image_size", [0, -8, 7])
def test_too_small_an_image_is_refused(image_size):
    with pytest.raises(SpaceError, match=f"image_size is {image_size}: use at least 8"):
        derive_space(image_size, 7)


@pytest.mark.parametrize("classes", [1, 0, -3])
def test_a_classifier_needs_two_classes(classes):
    with pytest.raises(SpaceError, match=f"classes is {classes}: a classifier needs at least 2"):
        derive_space(96, classes)
