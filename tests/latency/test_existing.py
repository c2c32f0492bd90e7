"""Existing models: found by name, timed as they are, beside the networks of a space."""

import json

import pytest
import torch

from vitresnas.errors import FileFormatError, InputError
from vitresnas.latency import load_tables
from vitresnas.latency.__main__ import main
from vitresnas.latency.compared import Compared, ExistingModel, misfit, names_asked
from vitresnas.latency.existing import find_models, guests
from vitresnas.latency.measure import prepare_guest, time_interleaved
from vitresnas.space import load_space, macs

SMALL = "test_resnet@32"  # 0.5 M parameters, which timm keeps for tests like these


def test_a_model_is_what_its_name_promises_unless_a_size_is_asked_for():
    plain, sized = find_models(["deit_tiny_patch16_224", "deit_tiny_patch16_224@32"])
    assert (plain.image_size, plain.classes, plain.parameters) == (224, 1000, 5717416)
    assert plain.macs == 1253683200  # DeiT's paper: 1.3 G
    assert sized.image_size == 32 and sized.macs < plain.macs
    assert sized.label == "deit_tiny_patch16_224@32"
    assert find_models(["resnet18", "resnet18@224"]) == find_models(["resnet18"])


def test_a_network_that_passes_tuples_is_counted_too():
    (found,) = find_models(["pit_ti_224"])
    assert found.macs == pytest.approx(0.7e9, rel=0.05)  # PiT's paper: 0.7 G


def test_this_project_s_own_networks_are_models_too():
    (model,) = find_models(["vitresnas_tiny"])
    assert model.image_size == 224
    assert model.macs < macs(load_space("tiny").largest)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("deit_smal_patch16_224", "did you mean deit_small_patch16_224"),
        ("qqqqqq", r"no model 'qqqqqq': timm.list_models"),
        ("resnet18@", "write the image size as in resnet18@224"),
        ("resnet18@big", "write the image size"),
        ("swin_tiny_patch4_window7_224@1", "cannot read images of 1 pixels"),
    ],
)
def test_what_timm_does_not_know_or_cannot_do_is_told(name, complaint):
    with pytest.raises(InputError, match=complaint):
        find_models([name])


def test_names_come_by_commas_or_one_by_one():
    assert names_asked([]) == ()
    assert names_asked(["a,b", "c", "a"]) == ("a", "b", "c")
    with pytest.raises(InputError, match="name timm models"):
        names_asked(["a,"])


def test_a_model_that_does_another_job_is_told():
    model = ExistingModel("deit", 224, 1000, 1, 1)
    assert misfit([model], 224, 1000) == ""
    sentence = misfit([model], 16, 10)
    assert "deit (224 pixels, 1,000 classes)" in sentence and "NAME@16" in sentence


def test_models_are_timed_as_guests_on_images_of_their_own():
    found = guests(find_models([SMALL]), batch_size=2, device="cpu")
    images = found[SMALL][1]
    assert images.shape == (2, 3, 32, 32)
    host = {"host": lambda images: None}
    times = time_interleaved(host, torch.zeros(2, 3, 8, 8), beside=found, seconds=0.05)
    assert times[SMALL].median > times["host"].median


def test_a_model_that_cannot_run_is_refused_by_name():
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("no such kernel\nand a long trace")

    with pytest.raises(InputError, match=r"odd cannot run in bf16.*\(no such kernel\)"):
        prepare_guest("odd", (Broken(), torch.zeros(1, 3, 8, 8)), "bf16")


def test_what_was_compared_reads_back_and_refuses_what_its_samples_deny():
    found = Compared(ExistingModel("deit", 224, 1000, 1, 1), 4, (2.0, 2.5, 2.25))
    assert Compared.from_json(found.to_json(), "here") == found
    for name, value in (
        ("images_per_second", 1.0),
        ("images_per_second_interval_95", [1.0, 2.0]),
        ("images_per_second_interval_95", None),
    ):
        with pytest.raises(FileFormatError, match=name):
            Compared.from_json({**found.to_json(), name: value}, "here")


def test_a_table_is_measured_with_models_beside_it(small_space, tmp_path, capsys):
    small_space.save(tmp_path / "space.json")
    out = tmp_path / "table.json"
    command = ["--space", str(tmp_path / "space.json"), "--out", str(out), "--batch-size", "2"]
    command += ["--seconds", "1.5", "--device", "cpu"]
    assert main([*command, "--compare", "test_resnett@32"]) == 2
    assert "did you mean test_resnet" in capsys.readouterr().err and not out.exists()
    assert main([*command, "--compare", SMALL, "--json"]) == 0
    printed = capsys.readouterr()
    (told,) = json.loads(printed.out)["compared"]
    (table,) = load_tables(out)
    (found,) = table.compared
    assert told["name"] == found.model.name == "test_resnet" and found.images_per_second > 0
    assert found.milliseconds > table.milliseconds(small_space.smallest)
    assert "test_resnet (32 pixels, 1,000 classes)" in printed.err
