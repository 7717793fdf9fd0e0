"""Names of the package link to their entry in the API: in the text of a page, as ``Trainer.fit``, and in its code,
as ``rt.Trainer``. A page needs no markup for it.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

IN_CODE = re.compile(
    r'<span class="n">(rt|rtt)</span><span class="o">\.</span><span class="n">(\w+)</span>'
)
MODULES = {"rt": "rvtrain", "rtt": "rvtrain.torch"}


def address(app: Sphinx, name: str, here: str) -> str | None:
    """Where the entry of a public name is, seen from a page."""
    for full in (f"rvtrain.{name}", name):
        entry = app.env.domains.python_domain.objects.get(full)
        if entry is not None and not (
            entry.docname == here and here.startswith("api/")
        ):
            return (
                f"{app.builder.get_relative_uri(here, entry.docname)}#{entry.node_id}"
            )
    return None


def link_text(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn `Trainer`, `rt.Trainer(…)` and `Trainer.fit` in code type into references."""
    if app.builder.format != "html" or docname.startswith("api/"):
        return
    for literal in list(doctree.findall(nodes.literal)):
        if isinstance(literal.parent, nodes.reference):
            continue
        name = re.fullmatch(r"(?:rt\.)?([A-Za-z_][\w.]*)(?:\(.*\))?", literal.astext())
        uri = name and address(app, name[1], docname)
        if uri:
            literal.replace_self(
                nodes.reference("", "", literal.deepcopy(), internal=True, refuri=uri)
            )


def link_code(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    def linked(match: re.Match[str]) -> str:
        uri = address(app, f"{MODULES[match[1]]}.{match[2]}", pagename)
        return f'<a class="code-link" href="{uri}">{match[0]}</a>' if uri else match[0]

    if "body" in context:
        context["body"] = IN_CODE.sub(linked, context["body"])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-resolved", link_text)
    app.connect("html-page-context", link_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
