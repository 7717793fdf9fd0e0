"""Formulas as SVG pictures made when the pages are built, so that a reader needs neither scripts nor a network.

`ziamath` sets TeX in STIX Two Math. Its outlines take the colour of the text around them, in light and dark pages.
"""

import html
import re
from functools import cache
from typing import Any

import ziamath
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

ziamath.config.svg2 = False  # paths in place, not symbols by reference, whose ids would be repeated within a page
SIZE = 20.0  # units of ziamath for one em


@cache
def picture(tex: str, inline: bool) -> str:
    """One line of TeX as an <svg> whose sizes are in em."""
    label = html.escape(" ".join(tex.split()))
    tex = tex.replace("<", r"\lt ").replace(
        ">", r"\gt "
    )  # not escaped by ziamath within environments
    latex = ziamath.Latex(tex, size=SIZE, color="currentColor", inline=inline)
    svg = latex.svg()
    opening, rest = svg.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', opening)
    assert box is not None, opening
    width, height = (float(number) / SIZE for number in box[1].split()[2:])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" viewBox="{box[1]}"'
        f' style="width:{width:.3f}em;height:{height:.3f}em;vertical-align:{latex.getyofst() / SIZE:.3f}em">{rest}'
    )


def lines(tex: str) -> list[str]:
    """Lines of a displayed formula: parted by blank lines, and by line breaks outside of environments."""
    parts, depth = [""], 0
    for token in re.split(r"(\\begin\{|\\end\{|\\\\|&|\n\s*\n)", tex):
        depth += {r"\begin{": 1, r"\end{": -1}.get(token, 0)
        if depth == 0 and (token == r"\\" or (token and not token.strip())):
            parts.append("")
        elif depth > 0 or token != "&":  # lines are not aligned
            parts[-1] += token
    return [" ".join(part.split()) for part in parts if part.strip()]


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(
        f'<span class="formula">{picture(" ".join(node.astext().split()), True)}</span>'
    )
    raise nodes.SkipNode


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    for line in lines(node.astext()):
        self.body.append(f'<div class="formula">{picture(line, False)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer(
        "svg",
        inline_renderers=(visit_math, None),
        block_renderers=(visit_math_block, None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
