"""What the Hugging Face hub and timm read beside a model: README.md and config.json.

Both are made from the architecture and the card alone, so they say what was measured and no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from vitresnas.models.timm_config import timm_config
from vitresnas.space.architecture import Architecture

README, CONFIG = "README.md", "config.json"
TAGS = ("image-classification", "timm", "vitresnas", "neural-architecture-search")
SPLITS = {"test": "test", "holdout": "hold-out"}


def hub_config(architecture: Architecture, card: Mapping[str, Any], patch_head: bool) -> str:
    """config.json, from which timm.create_model("hf-hub:...") builds the network."""
    facts = pretrained_facts(architecture, card)
    document = {
        "architecture": facts.pop("architecture"),
        "num_classes": architecture.classes,
        "num_features": architecture.stages[-1].embed,
        "model_args": {"architecture": architecture.to_json(), "patch_head": patch_head},
    }
    if "label_names" in facts:
        document["label_names"] = facts.pop("label_names")
    document["pretrained_cfg"] = facts
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def pretrained_facts(architecture: Architecture, card: Mapping[str, Any]) -> dict[str, Any]:
    """timm's pretrained_cfg of these weights."""
    facts = timm_config(architecture)
    if "data" in card:  # our own evaluation scales the shorter side to the network's
        facts["crop_pct"] = 1.0
    elif "crop_pct" in card:
        facts["crop_pct"] = card["crop_pct"]
    if card.get("class_names"):
        facts["label_names"] = list(card["class_names"])
    return facts


def hub_readme(architecture: Architecture, card: Mapping[str, Any]) -> str:
    """README.md: the front matter that the hub reads, then what is known, as text."""
    name = f"ViT-ResNAS {architecture.id}"
    data = ModelCardData(
        library_name="timm",
        license=card.get("license"),
        pipeline_tag="image-classification",
        tags=list(TAGS),
        model_name=name,
        eval_results=list(_results(card)) or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(_body(name, architecture, card))


def _results(card: Mapping[str, Any]) -> Iterator[EvalResult]:
    dataset = card.get("data", {}).get("name")
    if not dataset:
        return
    for split, score in _scores(card):
        yield EvalResult(
            task_type="image-classification",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=split,
            metric_type="accuracy",
            metric_name=f"Accuracy, {SPLITS[split]}",
            metric_value=score["accuracy"],
        )


def _scores(card: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Scores by split. A search's card has them bare, a training run's by network."""
    for split in SPLITS:
        score = card.get(split) or {}
        score = score.get("network", score)
        if score.get("accuracy") is not None:
            yield split, score


def _body(name: str, architecture: Architecture, card: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {name}\n"
    side = architecture.image_size
    yield (
        "A multi-stage vision transformer with residual spatial reductions "
        "([ViT-ResNAS](https://arxiv.org/abs/2109.00642)), for images of "
        f"{side}x{side} pixels and {architecture.classes} classes: "
        f"{card['parameters']:,} parameters, {card['macs']:,} multiply-accumulates per image.\n"
    )
    yield from _table("What was measured", _measured(card))
    yield from _table("Where it comes from", _origin(card))
    repo = card.get("repo", "USER/NAME")
    yield "## How to use it\n"
    yield (
        "```python\nimport timm\nimport vitresnas.models  # registers the network\n\n"
        f'model = timm.create_model("hf-hub:{repo}", pretrained=True).eval()\n'
        "```\n\n"
        f'`"local-dir:FOLDER"` in place of `"hf-hub:{repo}"` reads a local copy, and '
        "`features_only=True` gives the feature maps of its stages. Images are normalised with "
        "ImageNet's mean and standard deviation.\n"
    )
    if names := card.get("class_names"):
        yield "Classes, in order: " + ", ".join(map(str, names)) + ".\n"


def _table(title: str, rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    if lines:
        yield f"## {title}\n\n| | |\n|---|---|"
        yield from lines
        yield ""


def _measured(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    where = card.get("data", {}).get("name", "")
    for split, score in _scores(card):
        yield f"Accuracy, {SPLITS[split]} of {where}", f"{100 * score['accuracy']:.2f} %"
        if (loss := score.get("negative_log_likelihood")) is not None:
            yield f"Negative log-likelihood, {SPLITS[split]}", f"{loss:.4f}"
    target, speed = card.get("target") or {}, card.get("speed") or {}
    if speed:
        low, high = speed["interval_95"]
        yield (
            f"Throughput on {target['device']}, batch {target['batch_size']}, {target['dtype']}, "
            f"{target['runtime']}",
            f"{speed['images_per_second']:,.0f} images/s (95 %: {low:,.0f} to {high:,.0f})",
        )
        if speed.get("relative"):
            low, high = speed["relative_interval_95"]
            yield (
                "Against the largest network of its space",
                f"{speed['relative']:.2f} times as fast (95 %: {low:.2f} to {high:.2f})",
            )
    if target and card.get("verdict"):
        yield f"Target of {target['requested']}", str(card["verdict"])


def _origin(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    named = {
        "kind": "Weights",
        "recipe": "Recipe",
        "source": "Source",
        "made_by": "Made by",
        "architecture_id": "Architecture",
        "weights_sha256": "SHA-256 of the weights",
    }
    for field, words in named.items():
        if card.get(field):
            yield words, str(card[field])
    environment = card.get("environment", {})
    for field in ("device", "commit"):
        if environment.get(field):
            yield field.capitalize(), str(environment[field])
    for package, version in environment.get("versions", {}).items():
        yield package, str(version)
