"""An architecture in a few words, for hover texts."""

from __future__ import annotations

from vitresnas.space.architecture import Architecture


def describe(architecture: Architecture) -> str:
    """One line per stage: width, then heads/hidden of its blocks, `-` where one is skipped."""
    lines = [architecture.id]
    for number, stage in enumerate(architecture.stages, 1):
        blocks = " ".join(f"{b.heads}/{b.hidden}" if b else "-" for b in stage.blocks)
        lines.append(f"stage {number}: {stage.embed} wide, heads/hidden {blocks}")
    return "\n".join(lines)
