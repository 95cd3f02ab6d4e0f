"""Check the links of the built site, and that its pages load no files from other sites.

    mkdocs build && python .ci/links.py [--external]

With `--external`, the script also requests every link to another site.
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
# Status codes of servers that reject scripts but not browsers.
REFUSED = (403, 405, 429)


class Page(HTMLParser):
    """The anchors and the links of a page, and the files that it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the anchors, the link or the file of a tag."""
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon"):
            self.loaded.add(given["href"])
        elif "src" in given:
            self.loaded.add(given["src"])


def broken(pages: dict[Path, Page]) -> list[str]:
    """Return the broken internal links, and the files loaded from other sites."""
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
    """Return why a link is broken, or an empty string if it works."""
    request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0"})
    try:
        with urllib.request.urlopen(request, timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code in REFUSED else f"{url}: {error.code}"
    except OSError as error:
        return f"{url}: {error}"


def main() -> int:
    """Check the site, and return 1 if there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--external", action="store_true", help="request other sites")
    # The links of 404.html are relative to the root of the server.
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
