"""Check the links of the built site, and that its pages load nothing from elsewhere.

    mkdocs build && python .ci/links.py [--external]

With `--external`, every link to another site is also requested. That needs a network.
"""

import argparse
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

SITE = Path(__file__).resolve().parents[1] / "site"
EXTERNAL = ("http://", "https://", "//")
# Answers of servers that refuse programs, but not readers.
REFUSED = (403, 405, 429)


class Page(HTMLParser):
    """The anchors, the links, and the loaded files of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what a tag names."""
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon"):
            self.loaded.add(given["href"])
        elif "src" in given:
            self.loaded.add(given["src"])


def broken(pages: dict[Path, Page]) -> list[str]:
    """Return the internal links that lead nowhere, and files from other sites."""
    found = []
    for path, page in pages.items():
        name = path.relative_to(SITE)
        found += [f"{name} loads {x}" for x in page.loaded if x.startswith(EXTERNAL)]
        for link in page.links | page.loaded:
            if link.startswith((*EXTERNAL, "mailto:", "data:")):
                continue
            file, anchor = urldefrag(link)
            target = (path.parent / unquote(file)).resolve() if file else path
            if target.is_dir():
                target /= "index.html"
            known = pages[target].anchors if target in pages else {anchor}
            if not target.exists() or (anchor and unquote(anchor) not in known):
                found.append(f"{name} links to {link}")
    return found


def answer(url: str) -> str:
    """Return why a link does not work, or an empty string."""
    request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0"})
    try:
        with urllib.request.urlopen(request, timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code in REFUSED else f"{url}: {error.code}"
    except OSError as error:
        return f"{url}: {error}"


def main() -> int:
    """Check what the command line names; return 1 if a link is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--external", action="store_true", help="request other sites")
    # Links of the page for unknown addresses begin at the root of a server.
    paths = [path for path in SITE.rglob("*.html") if path.name != "404.html"]
    pages = {path: Page(path) for path in paths}
    if not pages:
        parser.error(f"there is no site in {SITE}")
    found = broken(pages)
    if parser.parse_args().external:
        links = {link for page in pages.values() for link in page.links}
        urls = sorted({urldefrag(x)[0] for x in links if x.startswith(EXTERNAL)})
        with ThreadPoolExecutor(8) as pool:
            found += [problem for problem in pool.map(answer, urls) if problem]
        print(f"{len(urls)} links to other sites")
    print(*found, f"{len(pages)} pages", sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
