"""What a trace's picture is drawn of: boxes with words and shaded tokens, and edges between their borders."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from sparse_circuits.graph.features import LOGITS
from sparse_circuits.view import feature_marks
from sparse_circuits.view.layout import Box
from sparse_circuits.view.marks import INK
from sparse_circuits.view.trace_layout import TraceLayout
from sparse_circuits.view.trace_look import TraceLook
from sparse_circuits.view.trace_text import Piece, Sheet

_BAR = "#E4E7EB"
_CHIP = 0.13  # height of a token's background


def edges(axes: Axes, placed: TraceLayout, look: TraceLook) -> None:
    """One artist per edge, named after it, and one per arrowhead; the strongest on top, all below the boxes."""
    for i, (edge, points) in enumerate(zip(look.edges, placed.courses, strict=True)):
        pens, effect = look.pens(edge), edge.effect
        feature_marks.arrow(
            axes,
            edge.name,
            points,
            pens.width(effect),
            pens.colour(effect),
            pens.opacity(effect),
            3 - i / (len(look.edges) + 1),
            dashed=effect > 0,
        )


def boxes(axes: Axes, placed: TraceLayout, sheets: Mapping[str, Sheet], look: TraceLook) -> None:
    """A box per node, with the node's name as id; the line that names it is filled by its effect."""
    effects = {node.name: node.effect for node in look.nodes}
    for name, box in placed.boxes.items():
        sheet = sheets[name]
        patch = feature_marks.shape(box, placed.placed.roles[name], "white")
        patch.set_gid(name)
        axes.add_patch(patch)
        header = Rectangle(
            (box.left, box.top - sheet.header),
            box.width,
            sheet.header,
            fc=look.shades.colour(effects[name]),
            lw=0,
            zorder=5.1,
        )
        header.set_gid(f"effect {name}")
        axes.add_artist(header)
        header.set_clip_path(patch)
        outline = feature_marks.shape(box, placed.placed.roles[name], "none")
        outline.set_zorder(5.2)
        axes.add_patch(outline)
        for piece in sheet.pieces:
            _piece(axes, box, piece)
    if LOGITS in placed.layout.nodes:
        bar = placed.layout.nodes[LOGITS]
        axes.add_patch(feature_marks.rounded(bar, _BAR))
        axes.text(bar.x, bar.y, LOGITS, size=8.5, color=INK, ha="center", va="center", zorder=6)


def _piece(axes: Axes, box: Box, piece: Piece) -> None:
    x, y = box.left + piece.x, box.top - piece.y
    if piece.fill is not None:
        axes.add_artist(Rectangle((x, y - _CHIP / 2), piece.width, _CHIP, fc=piece.fill, lw=0, zorder=5.3))
    if piece.marked:
        axes.add_artist(Rectangle((x, y - _CHIP / 2), piece.width, 0.014, fc=INK, lw=0, zorder=5.4))
    if piece.text:
        axes.text(
            x + {"left": 0.0, "center": piece.width / 2, "right": piece.width}[piece.anchor],
            y,
            piece.text,
            size=piece.size,
            color=piece.colour,
            weight=piece.weight,
            style=piece.style,
            ha=piece.anchor,
            va="center_baseline",
            zorder=6,
            parse_math=False,  # a token may be a dollar sign
        )
