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

from timm.models import generate_default_cfgs, load_pretrained, register_model
from timm.models._features import FeatureGetterNet
from timm.models._hub import load_model_config_from_path

from vitresnas.errors import InputError
from vitresnas.models.model_directory import CARD, load_model
from vitresnas.models.timm_network import TIMM_CONFIG, TimmViTRes, check_classes, check_pooling
from vitresnas.space.architecture import Architecture
from vitresnas.space.presets import NETWORKS, load_architecture

Spec = Architecture | Mapping[str, Any] | str | Path


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
    global_pool: str | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Any = None,
    pretrained_model_args: Any = None,
    cache_dir: Any = None,
    **unknown: Any,
) -> TimmViTRes | FeatureGetterNet:
    if unknown:
        raise InputError(
            f"{name} has no option {next(iter(unknown))!r}: use num_classes, img_size, "
            "in_chans, drop_path_rate, patch_head, distilled, features_only, out_indices"
        )
    if drop_rate:
        raise InputError(
            f"drop_rate is {drop_rate}: this network has no dropout, use drop_path_rate"
        )
    if out_indices is not None and not features_only:
        raise InputError(f"out_indices is {out_indices}: it needs features_only=True")
    check_pooling(global_pool)
    saved = _architecture(spec)
    wanted = replace(
        saved,
        image_size=_side(img_size, saved),
        classes=_classes(num_classes, saved),
        channels=saved.channels if in_chans is None else in_chans,
        prefix_tokens=saved.prefix_tokens if distilled is None else 1 + distilled,
    )
    source = pretrained_cfg if isinstance(pretrained_cfg, Mapping) else {}
    if pretrained:
        _check_weights_fit(saved, wanted)
        if isinstance(spec, (str, Path)) and (Path(spec) / CARD).is_file():
            source = {**load_model_config_from_path(spec)[0], **source}
        model = _with_weights(name, saved, source, drop_path_rate, patch_head, cache_dir)
        if wanted.image_size != saved.image_size:
            model = model.at_resolution(wanted.image_size)
        if wanted.classes != saved.classes:
            model.reset_classifier(wanted.classes)
    else:
        model = TimmViTRes(wanted, drop_path=drop_path_rate, patch_head=patch_head)
    _describe(model, name, source)
    if not features_only:
        return model
    every = tuple(range(len(wanted.stages)))
    return FeatureGetterNet(model, out_indices=every if out_indices is None else out_indices)


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
        raise InputError(f"img_size is {img_size}: this network reads square images alone")
    return sides[0]


def _classes(num_classes: int | None, saved: Architecture) -> int:
    if num_classes is None:
        return saved.classes
    check_classes(num_classes)
    return num_classes


def _check_weights_fit(saved: Architecture, wanted: Architecture) -> None:
    for field in ("channels", "prefix_tokens"):
        found, asked = getattr(saved, field), getattr(wanted, field)
        if found != asked:
            raise InputError(
                f"the weights are of a network with {found} {field}, {asked} were asked for: "
                "leave in_chans and distilled out, or use pretrained=False"
            )


def _with_weights(
    name: str,
    saved: Architecture,
    source: Mapping[str, Any],
    drop_path: float,
    patch_head: bool,
    cache_dir: Any,
) -> TimmViTRes:
    """The saved network; a directory of ours is verified, what the hub keeps is timm's to load."""
    if source.get("source") == "local-dir":
        state = load_model(source["file"]).state_dict()
        model = TimmViTRes(saved, drop_path=drop_path, patch_head="patch_head.weight" in state)
        model.load_state_dict(state)
        return model
    if not source.get("hf_hub_id"):
        raise InputError(
            f"no weights are published for {name}: train it with `vitresnas train`, read the "
            "authors' file with `vitresnas import-official`, or name a model directory with "
            'create_model("vitresnas", architecture=DIR, pretrained=True)'
        )
    model = TimmViTRes(saved, drop_path=drop_path, patch_head=patch_head)
    load_pretrained(model, dict(source), saved.classes, saved.channels, cache_dir=cache_dir)
    return model


def _describe(model: TimmViTRes, name: str, source: Mapping[str, Any]) -> None:
    """What timm reads to pre-process images, from where the weights come or our own."""
    architecture = model.architecture
    side = architecture.image_size
    model.pretrained_cfg = {
        **TIMM_CONFIG,
        **source,
        "architecture": name,
        "input_size": (architecture.channels, side, side),
        "num_classes": architecture.classes,
    }
    model.default_cfg = model.pretrained_cfg


_NAMES = ("vitresnas", *(f"vitresnas_{name}" for name in NETWORKS))
# timm looks for this name in the module of a registered function.
default_cfgs = generate_default_cfgs({f"{name}.untrained": TIMM_CONFIG for name in _NAMES})

for _network in (vitresnas, vitresnas_tiny, vitresnas_small, vitresnas_medium):
    register_model(_network)
