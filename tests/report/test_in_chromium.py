"""Reports in a browser: no sideways scrolling on a phone, and letters large enough to read."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

import rvtrain as rt
from rvtrain.report import rank_queries, write_report

WIDTHS = (320, 390, 1280)
MEASURE = """
onload = () => { document.body.dataset.found = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {
  const page = frame.contentDocument, root = page.documentElement;
  const wide = root.scrollWidth, view = root.clientWidth;
  const texts = [...page.querySelectorAll("svg text")].map(x => x.getBoundingClientRect());
  const inside = [...page.querySelectorAll("svg")].every(svg => {
    const box = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text,circle")].every(x => {
      const its = x.getBoundingClientRect();
      return its.left >= box.left - 1 && its.right <= box.right + 1 && its.top >= box.top - 1;
    });
  });
  return {wide, view, letters: Math.min(...texts.map(box => box.height)), pictures: texts.length, inside};
})); };
"""


@pytest.fixture(scope="module")
def chromium():
    """The path of a browser."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs chromium")
    return found


def stress(path):
    """A page with long words, many metrics, large numbers, every section."""
    rng = np.random.default_rng(0)
    queries, documents = rng.normal(size=(2, 150, 6))
    names = ["recall@1", "recall@10", "recall@100", "mrr@10", "ndcg@10", "map@100", "accuracy@100", "precision@10"]
    before, after = (rank_queries(None, q, documents, metrics=names) for q in (queries, queries + documents / 2))
    trainer = rt.Trainer(
        rt.LinearAdapter(6), mining=rt.HardNegativeMiner.hardest(relative_margin=0.05, range_min=1), epochs=2,
        metrics=names, batch_size=50,
    )  # fmt: skip
    trainer.fit(queries, documents, validation=np.stack([np.arange(150)] * 2, axis=1))
    texts = ["W" * 900 if i % 2 else "‏كيف أفتح ملفا‏ " * 9 for i in range(150)]
    write_report(
        path, trainer, before, after, query_texts=texts, document_texts=texts, title="W" * 200,
        command="rvtrain train " + "x" * 400, settings={"a" * 100: "b" * 400},
    )  # fmt: skip


def test_page__fits_screens_of_all_sizes(chromium, tmp_path):
    stress(tmp_path / "report.html")
    page = html.escape((tmp_path / "report.html").read_text(encoding="utf-8").replace("<details>", "<details open>"))
    views = "".join(f'<iframe width="{w}" height="700" style="border:0" srcdoc="{page}"></iframe>' for w in WIDTHS)
    frame = tmp_path / "frame.html"
    frame.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{views}<script>{MEASURE}</script>", encoding="utf-8")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1400,2400", "--virtual-time-budget=10000", "--dump-dom", frame.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False)
    measured = re.search(r'data-found="([^"]*)"', done.stdout)
    assert measured, done.stderr[-2000:]
    for width, found in zip(WIDTHS, json.loads(html.unescape(measured[1])), strict=True):
        assert found["view"] <= width and found["wide"] <= found["view"], (width, found)
        assert found["letters"] >= 9 and found["pictures"] > 50 and found["inside"], (width, found)
