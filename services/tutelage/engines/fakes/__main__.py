"""`python -m tutelage.engines.fakes vllm`: one of the servers on a loopback port, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from tutelage.engines.fakes import APPS, ToyServer, listening, write_tokenizer
from tutelage.engines.fakes.toy import TRAPS
from tutelage.engines.options import FakeOptions


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tutelage.engines.fakes", description=__doc__)
    parser.add_argument("server", choices=sorted(APPS))
    parser.add_argument("--tokenizer", type=Path, help="write the toy model's tokenizer into this directory")
    parser.add_argument("--trap", action="append", default=[], choices=TRAPS, help="what goes wrong; may be repeated")
    parser.add_argument("--vocabulary-size", type=int, default=97)
    asked = parser.parse_args()
    if asked.tokenizer is not None:
        write_tokenizer(asked.tokenizer, asked.vocabulary_size)
    toy = ToyServer(FakeOptions(vocabulary_size=asked.vocabulary_size), asked.trap)
    asyncio.run(_serve(asked.server, toy))


async def _serve(server: str, toy: ToyServer) -> None:
    async with listening(APPS[server](toy)) as url:
        sys.stdout.write(f"listening on {url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
