"""Print the README's shell command that ends with the given word."""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def command(last: str) -> str:
    """Return the one-line shell command of the README that ends with `last`."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", README.read_text(), re.S)
    found = [b.strip() for b in blocks if b.strip().split()[-1] == last]
    if len(found) != 1:
        raise SystemExit(f"README.md has {len(found)} commands that end with {last!r}.")
    return found[0]


if __name__ == "__main__":
    print(command(sys.argv[1]))
