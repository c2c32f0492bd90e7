"""Networks in timm's registry: timm.create_model("vitresnas", architecture=...), "vitresnas_tiny".

Importing `vitresnas.models` registers them. No weights are published with this project;
`pretrained=True` reads those of a model directory, named as the architecture, or those of one that
was pushed, as "hf-hub:USER/NAME".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from timm.models import (
    PretrainedCfg,
    generate_default_cfgs,
    get_pretrained_cfg,
    load_pretrained,
    register_model,
)
from timm.models._builder import pretrained_cfg_for_features
from timm.models._features import FeatureGetterNet
from torch import Tensor

from vitresnas.errors import InputError
from vitresnas.models.hub_files import pretrained_facts
from vitresnas.models.model_directory import CARD, find_model, load_model, read_card
from vitresnas.models.timm_config import TIMM_CONFIG, timm_config
from vitresnas.models.timm_network import TimmViTRes, check_classes, check_pooling
from vitresnas.space.architecture import Architecture
from vitresnas.space.presets import NETWORKS, load_architecture

Spec = Architecture | Mapping[str, Any] | str | Path
PLACES = ("file", "url", "hf_hub_id", "state_dict")  # where timm finds weights, by its own names


def vitresnas(
    pretrained: bool = False, *, architecture: Spec | None = None, **options: Any
) -> TimmViTRes | FeatureGetterNet:
    """Any network: by an Architecture, its JSON, its name or file, or a model directory."""
    if architecture is None:
        raise InputError(
            "vitresnas stands for every network: say which with architecture=, a model directory, "
            f"an architecture.json, SPACE:largest, or one of {', '.join(NETWORKS)}"
        )
    return _create("vitresnas", architecture, pretrained, **options)


def vitresnas_tiny(pretrained: bool = False, **options: Any) -> TimmViTRes | FeatureGetterNet:
    """ViT-ResNAS-Tiny: 40.8 M parameters, 1.78 G MACs at 224 pixels."""
    return _create("vitresnas_tiny", "tiny", pretrained, **options)


def vitresnas_small(pretrained: bool = False, **options: Any) -> TimmViTRes | FeatureGetterNet:
    """ViT-ResNAS-Small: 63.7 M parameters, 2.85 G MACs at 224 pixels."""
    return _create("vitresnas_small", "small", pretrained, **options)


def vitresnas_medium(pretrained: bool = False, **options: Any) -> TimmViTRes | FeatureGetterNet:
    """ViT-ResNAS-Medium: 96.4 M parameters, 4.51 G MACs at 224 pixels."""
    return _create("vitresnas_medium", "medium", pretrained, **options)


def _create(
    name: str,
    spec: Spec,
    pretrained: bool,
    *,
    num_classes: int | None = None,
    img_size: int | Sequence[int] | None = None,
    in_chans: int | None = None,
    drop_path_rate: float = 0.0,
    patch_head: bool = False,
    distilled: bool | None = None,
    drop_rate: float = 0.0,
    global_pool: str = "token",
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    device: Any = None,
    dtype: Any = None,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    pretrained_model_args: Any = None,
    cache_dir: Any = None,
    **unknown: Any,
) -> TimmViTRes | FeatureGetterNet:
    if unknown:
        raise InputError(
            f"{name} has no option {next(iter(unknown))!r}: use num_classes, img_size, "
            "in_chans, global_pool, drop_path_rate, patch_head, distilled, features_only, "
            "out_indices"
        )
    if drop_rate:
        raise InputError(
            f"drop_rate is {drop_rate}: this network has no dropout, use drop_path_rate"
        )
    if out_indices is not None and not features_only:
        raise InputError(f"out_indices is {out_indices}: it needs features_only=True")
    saved = _architecture(spec)
    told = _told(name, spec if pretrained else None, pretrained_cfg, pretrained_cfg_overlay)
    if pretrained:
        saved = replace(saved, classes=told.get("num_classes") or saved.classes)
    classes = saved.classes if num_classes is None else num_classes
    check_classes(classes)
    check_pooling(global_pool, classes)
    side, channels = _side(img_size, saved), saved.channels if in_chans is None else in_chans
    prefix = saved.prefix_tokens if distilled is None else 1 + distilled
    if pretrained:
        _check_weights_fit(saved, prefix)
        model = _with_weights(name, saved, told, drop_path_rate, patch_head, cache_dir)
        if side != saved.image_size:
            model = model.at_resolution(side)
        if channels != saved.channels:
            model.reset_channels(channels)
    else:
        wanted = replace(
            saved,
            image_size=side,
            channels=channels,
            classes=classes or saved.classes,
            prefix_tokens=prefix,
        )
        model = TimmViTRes(wanted, drop_path=drop_path_rate, patch_head=patch_head)
    if model.num_classes != classes or global_pool != model.global_pool:
        model.reset_classifier(classes, global_pool)
    _describe(model, told)
    model = model.to(device=device, dtype=dtype)
    if not features_only:
        return model
    every = tuple(range(len(saved.stages)))
    body = FeatureGetterNet(model, out_indices=every if out_indices is None else out_indices)
    body.default_cfg = body.pretrained_cfg = pretrained_cfg_for_features(model.pretrained_cfg)
    return body


def _told(
    name: str, spec: Spec | None, config: Any, overlay: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the caller, or a directory of ours, says of weights and of the images they want."""
    if isinstance(config, str):
        get_pretrained_cfg(f"{name}.{config}")  # raises for a tag that is not there
        config = {}
    if isinstance(config, PretrainedCfg):
        config = config.to_dict()
    told = {**(config or {}), **(overlay or {})}
    if isinstance(spec, (str, Path)) and not any(told.get(place) for place in PLACES):
        directory = find_model(spec)
        if (directory / CARD).is_file():
            architecture = Architecture.load(directory / "architecture.json")
            told |= pretrained_facts(architecture, read_card(directory))
            told |= {"source": "local-dir", "file": str(directory), **(overlay or {})}
    return told


def _architecture(spec: Spec) -> Architecture:
    if isinstance(spec, Architecture):
        return spec
    if isinstance(spec, Mapping):
        return Architecture.from_json(dict(spec))
    return load_architecture(spec)


def _side(img_size: int | Sequence[int] | None, saved: Architecture) -> int:
    if img_size is None:
        return saved.image_size
    sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(set(sides)) != 1:
        raise InputError(f"img_size is {img_size}: this network reads only square images")
    return sides[0]


def _check_weights_fit(saved: Architecture, prefix_tokens: int) -> None:
    if saved.prefix_tokens != prefix_tokens:
        raise InputError(
            f"the weights are of a network with {saved.prefix_tokens} prefix tokens, "
            f"{prefix_tokens} were asked for: leave distilled out, or use pretrained=False"
        )


def _with_weights(
    name: str,
    saved: Architecture,
    told: Mapping[str, Any],
    drop_path: float,
    patch_head: bool,
    cache_dir: Any,
) -> TimmViTRes:
    """The saved network; a directory of ours is verified, other weights are timm's to load."""
    state = _verified(told)
    if state is not None:
        model = TimmViTRes(saved, drop_path=drop_path, patch_head="patch_head.weight" in state)
        model.load_state_dict(state)
        return model
    if not any(told.get(place) for place in PLACES):
        raise InputError(
            f"no weights are published for {name}: train it with `vitresnas train`, read the "
            "authors' file with `vitresnas import-official`, or name a model directory with "
            'create_model("vitresnas", architecture=DIR, pretrained=True)'
        )
    model = TimmViTRes(saved, drop_path=drop_path, patch_head=patch_head)
    if told.get("num_classes") == 0:
        model.reset_classifier(0)
    facts = {**told, **timm_config(saved)}
    load_pretrained(model, facts, saved.classes, saved.channels, cache_dir=cache_dir)
    return model


def _verified(told: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The weights of a model directory of ours; None where it is not one."""
    directory = told.get("file") if told.get("source") == "local-dir" else None
    if directory is None or not (Path(directory) / CARD).is_file():
        return None
    return load_model(directory).state_dict()


def _describe(model: TimmViTRes, told: Mapping[str, Any]) -> None:
    """What timm reads to pre-process images: our own facts, and what was said of the weights."""
    own = timm_config(model.architecture)
    of_network = {field: own[field] for field in own.keys() - TIMM_CONFIG.keys()}
    facts = {**own, **told, **of_network, "architecture": own["architecture"]}
    if told.get("num_classes", model.num_classes) != model.num_classes:
        for field in ("label_names", "label_descriptions"):  # of the weights' own classes
            facts.pop(field, None)
    model.default_cfg = model.pretrained_cfg = facts


# timm looks for this name in the module of a registered function.
default_cfgs = generate_default_cfgs(
    {"vitresnas.untrained": TIMM_CONFIG}
    | {f"vitresnas_{name}.untrained": timm_config(NETWORKS[name]) for name in NETWORKS}
)

for _network in (vitresnas, vitresnas_tiny, vitresnas_small, vitresnas_medium):
    register_model(_network)
