import pytest
import timm
import torch

import vitresnas.models  # noqa: F401  registers the networks
from vitresnas.errors import InputError
from vitresnas.models.model_directory import load_model, save_model
from vitresnas.space import NETWORKS, parameters


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


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pretrained": True}, "no weights are published for vitresnas_tiny: train it with"),
        ({"num_classes": 0}, r"num_classes is 0: .* model\.forward_features"),
        ({"img_size": (112, 56)}, r"img_size is \(112, 56\): .* square"),
        ({"features_only": True}, r"no features_only form: call model\.forward_features"),
        ({"drop_rate": 0.1}, "drop_rate is 0.1: .* use drop_path_rate"),
        ({"global_pool": "avg"}, "global_pool is 'avg': .* class token"),
        ({"colour": 1}, "no option 'colour': use num_classes, img_size"),
        ({"img_size": 100}, "image_size is 100, not a multiple of 56 .* use 56 or 112"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        timm.create_model("vitresnas_tiny", **options)
