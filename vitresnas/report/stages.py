"""A network drawn stage by stage, within the outline of the largest one of its space."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from vitresnas.report.scale import number
from vitresnas.space.architecture import Architecture, Block, Stage
from vitresnas.space.operations import operations

_BAR, _BLOCK, _GAP, _PIECE, _HIGH, _TOP, _MARGIN = 22, 60, 10, 30, 130, 44, 58
_FLOOR = _TOP + _HIGH


def draw_stages(architecture: Architecture, largest: Architecture) -> str:
    """Two bars per block, attention's channels and the MLP's, both to one scale; as SVG.

    largest: of the same space, so that every position has a counterpart; drawn as outlines.
    """
    return _Drawing(architecture, largest).svg()


@dataclass
class _Drawing:
    architecture: Architecture
    largest: Architecture
    left: float = _MARGIN
    parts: list[str] = field(default_factory=list)

    def svg(self) -> str:
        architecture = self.architecture
        costs = [operation.macs for operation in operations(architecture)]
        self._pieces = iter(costs)
        self._total = sum(costs)
        self._piece(f"{architecture.image_size} px, embedding")
        for index, (stage, outline) in enumerate(
            zip(architecture.stages, self.largest.stages, strict=True)
        ):
            if index:
                self._piece("reduction")
            self._stage(index, stage, outline)
        self._piece(f"{architecture.classes} classes")
        for y, words in ((_FLOOR + 16, "heads"), (_FLOOR + 30, "hidden")):
            self.parts.append(f'<text x="{_MARGIN - 12}" y="{y}" class="y">{words}</text>')
        wide = self.left - _GAP + 2
        return (
            f'<svg class="stages" viewBox="0 0 {wide:.0f} {_FLOOR + 66}" role="img" '
            f'style="max-width:{1.25 * wide:.0f}px" aria-label="the winner, stage by stage">'
            f"{''.join(self.parts)}</svg>"
        )

    def _piece(self, words: str) -> None:
        """What stands between stages: a narrow box with its share of the MACs."""
        cost = next(self._pieces)
        middle = self.left + _PIECE / 2
        self.parts.append(
            f'<rect class="piece point" data-key="" x="{self.left}" y="{_TOP}" width="{_PIECE}" '
            f'height="{_HIGH}" rx="4" data-text="{escape(words)}: {self._share(cost)}"/>'
            f'<text class="x" transform="translate({middle + 4:.1f} {_TOP + _HIGH / 2}) '
            f'rotate(-90)">{escape(words)}</text>'
            f'<text class="x" x="{middle}" y="{_FLOOR + 16}">{self._percent(cost)}</text>'
        )
        self.left += _PIECE + _GAP

    def _stage(self, index: int, stage: Stage, outline: Stage) -> None:
        begin, cost = self.left, 0
        width = _BLOCK * len(stage.blocks) + _GAP
        self.parts.append(
            f'<rect class="panel" x="{begin}" y="{_TOP - 38}" width="{width}" '
            f'height="{_FLOOR + 66 - _TOP + 36}" rx="6"/>'
        )
        self.left += _GAP
        for block, full in zip(stage.blocks, outline.blocks, strict=True):
            cost += self._block(stage, block, outline, full)
        middle = begin + width / 2
        tokens = self.architecture.tokens[index]
        words = f"{tokens} tokens, {stage.embed} of {outline.embed} channels"
        self.parts.append(
            f'<text class="x label" x="{middle}" y="{_TOP - 21}">stage {index + 1}</text>'
            f'<text class="x" x="{middle}" y="{_TOP - 7}">{words}</text>'
            f'<text class="x" x="{middle}" y="{_FLOOR + 54}">{self._share(cost)}</text>'
        )
        self.left = begin + width + _GAP

    def _block(self, stage: Stage, block: Block | None, outline: Stage, full: Block | None) -> int:
        cost = next(self._pieces) + next(self._pieces) if block else 0
        begin = self.left
        self.left += _BLOCK
        middle = begin + _BAR
        if full:
            for n, channels in enumerate((full.heads * outline.head_dim, full.hidden)):
                self._bar(begin + n * _BAR, channels, "outline" if block else "outline skipped")
        if block is None:
            self.parts.append(f'<text class="x quiet" x="{middle}" y="{_FLOOR + 16}">skip</text>')
            return 0
        words = (
            f"{block.heads} heads of {stage.head_dim} channels, {block.hidden} hidden: "
            f"{self._share(cost)}"
        )
        for n, channels in enumerate((block.heads * stage.head_dim, block.hidden)):
            self._bar(begin + n * _BAR, channels, f"bar c-c{n} point", words)
        self.parts.append(
            f'<text class="x" x="{middle}" y="{_FLOOR + 16}">{block.heads}</text>'
            f'<text class="x" x="{middle}" y="{_FLOOR + 30}">{block.hidden}</text>'
        )
        return cost

    def _bar(self, x: float, channels: int, cls: str, words: str = "") -> None:
        high = _HIGH * channels / self._widest
        text = f'data-key="" data-text="{escape(words)}"' if words else ""
        self.parts.append(
            f'<rect class="{cls}" {text} x="{x + 0.5:.1f}" y="{_FLOOR - high:.1f}" '
            f'width="{_BAR - 1}" height="{high:.1f}"/>'
        )

    @property
    def _widest(self) -> int:
        return max(
            max(block.hidden, block.heads * stage.head_dim)
            for network in (self.architecture, self.largest)
            for stage in network.stages
            for block in stage.kept
        )

    def _percent(self, cost: int) -> str:
        return f"{100 * cost / self._total:.0f} %"

    def _share(self, cost: int) -> str:
        return f"{number(cost)} MACs, {self._percent(cost)}"
