"""`healthcheck.py PORT`: ends with 0 where the service on that port of this container can take work."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request


def main(port: int) -> str | None:
    """The reason why it cannot, or None."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=4):
            return None
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
