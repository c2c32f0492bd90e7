from dataclasses import replace

import pytest
import timm
import torch

import vitresnas.models  # noqa: F401  registers the networks
from vitresnas.errors import InputError
from vitresnas.models.model_directory import load_model, save_model
from vitresnas.space import NETWORKS, SPACES, parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_published_networks_are_in_timms_registry(name):
    with torch.device("meta"):
        model = timm.create_model(f"vitresnas_{name}")
    assert model.architecture == NETWORKS[name]
    assert sum(p.numel() for p in model.parameters()) == parameters(NETWORKS[name])
    assert not timm.is_model_pretrained(f"vitresnas_{name}")


@pytest.fixture(scope="module")
def small_tiny():
    torch.manual_seed(0)
    return timm.create_model(
        "vitresnas_tiny", pretrained=False, num_classes=10, img_size=112, drop_path_rate=0.2
    ).eval()


def test_timms_arguments_reach_the_network(small_tiny):
    assert small_tiny.architecture.image_size == 112 and small_tiny.num_classes == 10
    assert small_tiny.stages[-1].blocks[-1].drop_path == pytest.approx(0.2)
    with torch.inference_mode():
        assert small_tiny(torch.zeros(1, 3, 112, 112)).shape == (1, 10)


def test_what_timms_training_script_passes_is_understood():
    with torch.device("meta"):
        model = timm.create_model(
            "vitresnas_tiny", img_size=[56, 56], drop_rate=0.0, global_pool="token"
        )
    assert model.pretrained_cfg["input_size"] == (3, 56, 56)


def test_timms_data_configuration_is_read_from_the_model(small_tiny):
    config = timm.data.resolve_model_data_config(small_tiny)
    assert config["input_size"] == (3, 112, 112) and config["interpolation"] == "bicubic"
    assert config["mean"] == (0.485, 0.456, 0.406) and config["std"] == (0.229, 0.224, 0.225)


def test_another_resolution_is_told_to_timm_too(small_tiny):
    other = small_tiny.at_resolution(56)
    assert timm.data.resolve_model_data_config(other)["input_size"] == (3, 56, 56)
    assert timm.data.resolve_model_data_config(small_tiny)["input_size"] == (3, 112, 112)


def test_features_then_head_are_the_forward_pass(small_tiny):
    images = torch.randn(1, 3, 112, 112)
    with torch.inference_mode():
        features = small_tiny.forward_features(images)
        assert torch.equal(small_tiny.forward_head(features), small_tiny(images))
        pooled = small_tiny.forward_head(features, pre_logits=True)
    assert pooled.shape == (1, small_tiny.num_features) == (1, 704)


def test_a_classifier_can_be_replaced_and_saved(tmp_path):
    model = timm.create_model("vitresnas_tiny", img_size=56, distilled=True, patch_head=True)
    model.reset_classifier(3, global_pool="token")
    assert [head.out_features for head in (*model.get_classifier(), model.patch_head)] == [3, 3, 3]
    assert model.num_classes == model.architecture.classes == 3
    save_model(model, tmp_path, {})
    images = torch.zeros(1, 3, 56, 56)
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path)(images), model.eval()(images))


def test_timms_optimiser_leaves_prefix_tokens_and_vectors_undecayed():
    from timm.optim import param_groups_weight_decay

    with torch.device("meta"):
        model = timm.create_model("vitresnas_tiny", img_size=56)
    groups = param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    undecayed = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    for name, parameter in model.named_parameters():
        expected = parameter.dim() == 1 or name == "embedding.prefix_tokens"
        assert (id(parameter) in undecayed) == expected, name


@pytest.fixture(scope="module")
def digits_net():
    torch.manual_seed(0)
    return timm.create_model("vitresnas", architecture="digits:smallest").eval()


def test_any_architecture_is_built_by_name_value_or_json(digits_net):
    wanted = SPACES["digits"].smallest
    for spec in (wanted, wanted.to_json(), "digits:smallest"):
        assert timm.create_model("vitresnas", architecture=spec).architecture == wanted
    wider = timm.create_model("vitresnas", architecture=wanted, num_classes=3, distilled=True)
    assert wider.architecture == replace(wanted, classes=3, prefix_tokens=2)
    with pytest.raises(InputError, match="stands for every network: say which with architecture="):
        timm.create_model("vitresnas")


def test_feature_maps_are_the_patches_of_the_plain_forward_pass(digits_net):
    body = timm.create_model("vitresnas", architecture="digits:smallest", features_only=True).eval()
    body.model.load_state_dict(digits_net.state_dict(), strict=False)
    images = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        maps, plain = body(images), digits_net.features(images)
    assert body.feature_info.channels() == [32, 64, 128]
    assert body.feature_info.reduction() == [2, 4, 8]
    for index, (found, tokens) in enumerate(zip(maps, plain.stages, strict=True)):
        assert torch.equal(found.flatten(2).transpose(1, 2), tokens[:, 1:])
        assert found.shape[2] == 16 // body.feature_info.reduction()[index]
        module = body.model.get_submodule(body.feature_info.module_name()[index])
        assert module is body.model.stages[index]


def test_chosen_feature_maps_drop_what_they_do_not_need(digits_net):
    body = timm.create_model(
        "vitresnas", architecture="digits:smallest", features_only=True, out_indices=(0, -2)
    ).eval()
    assert body.feature_info.channels() == [32, 64] and len(body.model.stages) == 2
    body.model.load_state_dict(
        {name: t for name, t in digits_net.state_dict().items() if name in body.model.state_dict()}
    )
    images = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        every = digits_net.forward_intermediates(images, intermediates_only=True)
        for found, whole in zip(body(images), every, strict=False):
            assert torch.equal(found, whole)


def test_intermediates_come_with_what_the_head_reads(digits_net):
    images = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        tokens, (last,) = digits_net.forward_intermediates(
            images, indices=1, norm=True, output_fmt="NLC"
        )
        assert torch.equal(tokens, digits_net.forward_features(images))
        assert torch.equal(digits_net.forward_head(tokens), digits_net(images))
        assert torch.equal(last, tokens[:, 1:])
        assert len(digits_net.forward_intermediates(images, indices=[0], stop_early=True)) == 1
        with pytest.raises(InputError, match="output_fmt is 'NHWC': use NCHW or NLC"):
            digits_net.forward_intermediates(images, output_fmt="NHWC")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pretrained": True}, "no weights are published for vitresnas_tiny: train it with"),
        ({"out_indices": (0,)}, "out_indices is .0,.: it needs features_only=True"),
        ({"num_classes": -1}, "num_classes is -1: use 0 for features"),
        ({"global_pool": ""}, r"global_pool is '': .* with num_classes=0"),
        ({"img_size": (112, 56)}, r"img_size is \(112, 56\): .* square"),
        ({"drop_rate": 0.1}, "drop_rate is 0.1: .* use drop_path_rate"),
        ({"global_pool": "avg"}, "global_pool is 'avg': .* class token"),
        ({"colour": 1}, "no option 'colour': use num_classes, img_size"),
        ({"img_size": 100}, "image_size is 100, not a multiple of 56 .* use 56 or 112"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        timm.create_model("vitresnas_tiny", **options)
