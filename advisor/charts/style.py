"""How pictures look: colors and letters, for a light and a dark page, for print, and where the reader sets the colors.

Everything lies below `.advisor-chart` and `.advisor-answer`, so that it leaks into no page or notebook.

Parts of a bar take dark and light colors in turn: neighbors differ by a contrast of 3:1, as each does from the page,
and a line of the page's color keeps them apart where one is missing between them. A test computes the contrasts.
"""

from __future__ import annotations

from typing import NamedTuple


class Shades(NamedTuple):
    """A color on a light and on a dark page."""

    light: str
    dark: str


INK, PAGE, RULE = Shades("#1b1b1b", "#e6e6e6"), Shades("#ffffff", "#161616"), Shades("#767676", "#8a8a8a")

PARTS = {
    "weights": Shades("#023b77", "#366cae"),
    "adapters": Shades("#d27d2a", "#febe8a"),
    "optimizer": Shades("#552672", "#8656a6"),
    "gradients": Shades("#3ca374", "#7bdfac"),
    "activations": Shades("#761619", "#ae4b47"),
    "logits": Shades("#d36fb4", "#feb6e5"),
    "temporaries": Shades("#303d4b", "#5d6c7b"),
    "outside": Shades("#9a917d", "#d5cbb6"),
}
"""Of the groups of a memory peak, in the order in which bars stack them."""

METHOD_COLORS = {
    "full": Shades("#6f6f6f", "#aaaaaa"),
    "lora": Shades("#2770c5", "#6bacff"),
    "dora": Shades("#bc4858", "#fe8691"),
    "qlora": Shades("#047f62", "#44bd9a"),
    "qdora": Shades("#a26000", "#e8983f"),
}
"""Of points and lines."""

_COLORS = {"ink": INK, "page": PAGE, "rule": RULE, **PARTS, **METHOD_COLORS}


def _properties(dark: bool) -> str:
    return "".join(f"--advisor-{name}:{one.dark if dark else one.light};" for name, one in _COLORS.items())


def _filled(names: dict[str, Shades]) -> str:
    return "".join(f".advisor-chart .{name}{{fill:var(--advisor-{name})}}" for name in names)


_SCOPE = ":is(.advisor-chart,.advisor-answer)"
_MARKS = """
.advisor-chart svg{display:block;width:100%;height:auto}
.advisor-chart text{font:12px system-ui,sans-serif;fill:var(--advisor-ink);stroke:none}
.advisor-chart .middle{text-anchor:middle}.advisor-chart .end{text-anchor:end}
.advisor-chart text.strong{font-weight:700}.advisor-chart text.small{font-size:11px}
.advisor-chart text.halo{paint-order:stroke;stroke:var(--advisor-page);stroke-width:4px;stroke-linejoin:round}
.advisor-chart .frame{fill:none;stroke:var(--advisor-rule)}
.advisor-chart .tick,.advisor-chart .equal{stroke:var(--advisor-rule)}
.advisor-chart .gap{stroke:var(--advisor-page);stroke-width:1.4;fill:none}
.advisor-chart .hatch{fill:none;stroke:var(--advisor-page);stroke-width:1.6}
.advisor-chart .card{stroke:var(--advisor-ink);stroke-width:2;stroke-dasharray:6 3}
.advisor-chart .halo-line{stroke:var(--advisor-page);stroke-width:4.5}
.advisor-chart .whisker{stroke:var(--advisor-ink);stroke-width:1.8}
.advisor-chart .mark{fill:var(--advisor-ink);stroke:var(--advisor-page)}
.advisor-chart .ring{fill:none;stroke:var(--advisor-ink);stroke-width:2}
.advisor-chart .joined{fill:none;stroke:var(--advisor-rule);stroke-width:1.5}
.advisor-chart circle{stroke:var(--advisor-page);stroke-width:.8}
.advisor-chart polyline{fill:none;stroke-width:1.5}.advisor-chart .dashed{stroke-dasharray:5 4}
.advisor-chart [role=button]{cursor:pointer}
.advisor-chart [role=button]:focus-visible .ring,.advisor-chart [role=button]:hover .ring{stroke-width:4}
.advisor-chart .target{fill:transparent;stroke:none}
"""
_FRAME = """
.advisor-chart{margin:0 0 1.5rem;max-width:34rem;break-inside:avoid;font:15px/1.45 system-ui,sans-serif}
.advisor-chart figcaption{margin:0 0 .4rem;font-size:14px}
.advisor-chart summary{cursor:pointer;font-size:13px}
.advisor-chart .scrolled,.advisor-answer .scrolled{overflow-x:auto}
.advisor-chart table,.advisor-answer table{border-collapse:collapse;font-size:13px;color:inherit}
.advisor-chart :is(td,th),.advisor-answer :is(td,th){padding:.15rem .6rem;text-align:right;font-weight:400;
border-bottom:1px solid var(--advisor-rule)}
.advisor-chart th:first-child,.advisor-answer th:first-child{text-align:left}
.advisor-chart thead th,.advisor-answer thead th{font-weight:700}
.advisor-answer{font:15px/1.45 system-ui,sans-serif;padding:.5rem;max-width:72rem}
.advisor-answer p{margin:0 0 .8rem}.advisor-answer .verdict{font-weight:700}
.advisor-answer .charts{display:flex;flex-wrap:wrap;gap:1rem 2rem;margin-top:1rem}
.advisor-answer .charts>*{flex:1 1 20rem}
"""

STYLE = (
    f"{_SCOPE}{{color-scheme:light dark;{_properties(False)}color:var(--advisor-ink);background:var(--advisor-page)}}"
    f"@media (prefers-color-scheme:dark){{{_SCOPE}{{{_properties(True)}}}}}"
    + _FRAME
    + _MARKS
    + _filled(PARTS)
    + _filled(METHOD_COLORS)
    + "".join(f".advisor-chart polyline.{name}{{fill:none;stroke:var(--advisor-{name})}}" for name in METHOD_COLORS)
    + f"@media print{{{_SCOPE}{{color-scheme:light;{_properties(False)}}}"
    ".advisor-chart details::details-content{content-visibility:visible;height:auto}}"
    f"@media (forced-colors:active){{{_SCOPE}{{"
    "--advisor-ink:CanvasText;--advisor-page:Canvas;--advisor-rule:CanvasText}"
    ".advisor-chart .part{stroke:CanvasText}}"
)
"""The style sheet of all pictures and of an answer's frame, for a `<style>` element or a file."""
