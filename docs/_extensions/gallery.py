"""``.. gallery::`` shows pages as cards: the first picture that each has made, its title and its first sentence.

The directive's body names the pages, one a line, relative to the folder of the page that it stands in.
"""

import posixpath
import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class gallery(nodes.General, nodes.Element):
    """Place of the cards, until all pages have been read."""


class Gallery(SphinxDirective):
    has_content = True

    def run(self) -> list[nodes.Node]:
        folder = posixpath.dirname(self.env.docname)
        pages = [
            posixpath.normpath(posixpath.join(folder, line.strip()))
            for line in self.content
            if line.strip()
        ]
        return [gallery("", pages=pages)]


def first_picture(app: Sphinx, page: str) -> str | None:
    """The picture that comes first among the images of a page, as they are read from top to bottom."""
    for image in app.env.get_doctree(page).findall(nodes.image):
        for uri in image.get("candidates", {}).values():
            if uri in app.env.images:
                return str(uri)
    return None


def card(app: Sphinx, page: str, here: str) -> nodes.Node:
    doctree = app.env.get_doctree(page)
    paragraphs = (
        p
        for p in doctree.findall(nodes.paragraph)
        if not list(p.findall(download_reference))
    )
    paragraph = next(paragraphs).astext()
    sentence = (
        re.split(r"(?<=[.:])\s", " ".join(paragraph.split()), maxsplit=1)[0].rstrip(
            ":."
        )
        + "."
    )
    link = nodes.reference(
        "",
        "",
        refuri=app.builder.get_relative_uri(here, page),
        classes=["gallery-card"],
    )
    picture = first_picture(app, page)
    if picture is not None:
        link += nodes.image(
            uri=picture, candidates={"*": picture}, alt="", classes=["no-scaled-link"]
        )
    link += nodes.strong("", app.env.titles[page].astext())
    link += nodes.inline("", sentence)
    return link


def fill(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for place in list(doctree.findall(gallery)):
        if app.builder.format != "html":
            place.replace_self([])
            continue
        cards = nodes.container("", classes=["gallery"], is_div=True)
        for page in place["pages"]:
            paragraph = nodes.paragraph()
            paragraph += card(app, page, docname)
            cards += paragraph
        place.replace_self(cards)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(gallery)
    app.add_directive("gallery", Gallery)
    app.connect("doctree-resolved", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
