"""Check built pages as a reader without a network would meet them.

    python docs/check.py docs/_build/html

Nothing that a page needs is elsewhere, every link within the site leads to a page and a place in it, every formula
is a picture, every example has a picture, and the search knows words that readers look for.
"""

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "object": "data",
    "link": "href",
}
SOUGHT = ["early stopping", "resume", "threads", "float16", "temperature", "ndcg"]


class Page(HTMLParser):
    """What a page loads, what it links to, and the places in it."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links, self.places, self.pictures = [], [], set(), 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.places |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        if LOADED.get(tag) in attrs:
            self.loaded.append(attrs[LOADED[tag]])
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        self.pictures += tag == "img"


def problems(site):
    pages = {
        path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))
    }
    for path, page in pages.items():
        name = path.relative_to(site)
        for uri in page.loaded:
            if urlsplit(uri).scheme in ("http", "https") or uri.startswith("//"):
                yield f"{name} loads {uri}"
            elif not urlsplit(uri).scheme and not target(path, uri).exists():
                yield f"{name} loads {uri}, which is not there"
        for uri in page.links:
            if urlsplit(uri).scheme or uri.startswith("//"):
                continue
            file, place = target(path, uri), unquote(urldefrag(uri).fragment)
            if not file.exists():
                yield f"{name} links to {uri}, which is not there"
            elif place and file in pages and place not in pages[file].places:
                yield f"{name} links to {uri}, where there is no such place"
        text = path.read_text("utf-8")
        if (
            name.parts[0] == "examples"
            and "cell docutils" in text
            and not page.pictures
        ):
            yield f"{name} has no picture"
        if r"\(" in text and "math notranslate" in text:
            yield f"{name} has a formula that is no picture"
    for path in site.rglob("*.css"):
        if "url(http" in path.read_text("utf-8") or "@import" in path.read_text(
            "utf-8"
        ):
            yield f"{path.relative_to(site)} loads from elsewhere"
    index = (site / "searchindex.js").read_text("utf-8")
    index = json.loads(index[index.index("{") : index.rindex("}") + 1])
    words = {**index["terms"], **index["titleterms"]}
    for phrase in SOUGHT:
        if not any(
            phrase in title for title in index["alltitles"].__str__().lower().split(",")
        ) and not all(
            any(term.startswith(word[:5]) for term in words) for word in phrase.split()
        ):
            yield f"a search for {phrase!r} finds nothing"


def target(path, uri):
    """The file that a link from a page leads to."""
    file = unquote(urlsplit(uri).path)
    return path if not file else (path.parent / file).resolve()


def main():
    site = Path(sys.argv[1]).resolve()
    found = list(problems(site))
    for line in found:
        print(line)
    pages = sum(1 for _ in site.rglob("*.html"))
    print(f"{pages} pages, {len(found)} problems")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
