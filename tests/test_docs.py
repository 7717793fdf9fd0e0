"""The pages of the docs: their code runs, their links lead somewhere, they name everything, and no line is cut."""

import re
from pathlib import Path

import numpy as np
import pytest

import rvtrain

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)
CODE = re.compile(r"^```(?:python|\{code-cell\}[^\n]*)\n((?::\w[^\n]*\n)*)(.*?)^```", re.DOTALL | re.MULTILINE)


def code_of(page):
    """The blocks of Python of a page that need no notebook around them."""
    text = page.read_text(encoding="utf-8")
    return [code for options, code in CODE.findall(text) if "IPython" not in code]


def run(page):
    """What the code of a page has left behind; skips where a package that it imports is missing."""
    blocks = code_of(page)
    for package in ("sklearn", "scipy", "torch", "matplotlib", "mpi4py"):
        if any(re.search(rf"^(from|import) {package}\b", code, re.MULTILINE) for code in blocks):
            pytest.importorskip(package)
    scope: dict = {}
    try:
        for code in blocks:
            exec(code.replace("plt.show()", "plt.close()"), scope)
    finally:
        if "plt" in scope:
            scope["plt"].close("all")
    return scope


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")


def _lines(path):
    return len(Path(path).read_text(encoding="utf-8").splitlines())


# What each page must have found by its end.
EXAMPLES = {
    "retriever": lambda s: (
        s["before"]["recall@10"] < 0.1 < 0.7 < s["after"]["recall@10"] and s["found"].shape == (300, 10)
    ),
    "migrate": lambda s: (
        s["before"]["new queries, old index"] < 0.02
        and 0.25 < s["mapped"]["ridge"] < s["mapped"]["procrustes"]
        and s["before"]["old queries, old index"] + 0.1 < s["mapped"]["trained, documents frozen"]
    ),
    "graph": lambda s: (
        s["smooth"].max() > 1.2 * s["plain"].max() > 0.4 and s["same"] > 0.8 and s["hard"].shape == (320, 5)
    ),
    "labels": lambda s: s["history"]["map@r"].max() > 2.5 * s["history"]["map@r"][0] and s["accuracy"] > s["plain"],
    "callbacks": lambda s: (
        s["trainer"].history["loss"][-1] < s["trainer"].history["loss"][1] and _lines(s["log"]) > 2 * 10
    ),
    "texts": lambda s: s["before"] < 0.35 < 0.6 < s["after"] and any("json" in name for name in s["answers"]),
    "torch": lambda s: s["values"][-1] < 0.5 * s["values"][0] and s["loss"].logit_scale.item() > 2.0,
    "lbfgs": lambda s: s["found"].fun < 0.95 * s["adam"] and s["before"] < 0.5 < s["after"],
    "recommender": lambda s: s["learned"] > 1.4 * s["popular"],
    "export": lambda s: (
        np.allclose(s["embeddings"], s["asking"], atol=1e-5)
        and (s["again"].encode_query(s["queries"]) == s["asking"]).all()
        and s["found"].shape == (500, 10)
    ),
    "cluster": lambda s: (
        s["plans"]["100 Gbit/s"][-1]["seconds per step"] < 0.1 * s["plans"]["100 Gbit/s"][0]["seconds per step"]
        and s["plans"]["10 Gbit/s"][-1]["efficiency"] < s["plans"]["100 Gbit/s"][-1]["efficiency"] <= 1.0
    ),
    "scikit_learn": lambda s: s["plain"] + 0.1 < s["adapted"] < s["from_strings"],
    "report": lambda s: _lines(s["path"]) > 50,
    "negatives": lambda s: (
        not (s["found"][:20] == np.arange(500, 520)[:, np.newaxis]).any() and _lines(s["path"]) == 1000
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example__runs_and_shows_what_it_says(name):
    assert EXAMPLES[name](run(DOCS / "examples" / f"{name}.md"))


def test_examples__are_all_tested_and_all_in_the_gallery():
    names = {page.stem for page in (DOCS / "examples").glob("*.md")} - {"index"}
    index = (DOCS / "examples" / "index.md").read_text(encoding="utf-8").splitlines()
    assert names == set(EXAMPLES)
    assert all(index.count(name) == 2 for name in names), "once as a card, once in the table of contents"


@pytest.mark.parametrize(
    "page", [*sorted((DOCS / "guide").glob("*.md")), DOCS / "quickstart.md"], ids=lambda p: p.stem
)
def test_guide__snippets_run(page):
    run(page)


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if "```python" not in p.read_text("utf-8") or p.parent.stem != "examples"],
    ids=lambda p: str(p.relative_to(DOCS)),
)
def test_code__fits_into_the_column(page):
    long = [line for code in code_of(page) for line in code.splitlines() if len(line) > 88]
    assert not long, "the text column shows 88 characters of code"


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("*.md")], ids=lambda p: str(p.relative_to(ROOT)))
def test_links__lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    files = [target.split("#")[0] for target in targets if not re.match(r"(https?:|#|mailto:)", target)]
    assert not [file for file in files if file and not (page.parent / file).exists()]


def test_api__names_everything_public():
    api = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    names = [name for name in rvtrain.__all__ if not name.startswith("__")]
    assert not [name for name in names if f":: {name}\n" not in api]


def test_version__is_the_same_everywhere():
    assert f"\n## {rvtrain.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {rvtrain.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
