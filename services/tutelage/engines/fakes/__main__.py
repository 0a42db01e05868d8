"""`python -m tutelage.engines.fakes vllm`: one of the servers on a loopback port, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from fastapi import FastAPI

from tutelage.engines.fakes import APPS, ToyServer, listening, write_tokenizer
from tutelage.engines.fakes.toy import TRAPS
from tutelage.engines.options import FakeOptions, HfOptions


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tutelage.engines.fakes", description=__doc__)
    parser.add_argument("server", choices=sorted(APPS))
    parser.add_argument("--tokenizer", type=Path, help="write the toy model's tokenizer into this directory")
    parser.add_argument("--trap", action="append", default=[], choices=TRAPS, help="what goes wrong; may be repeated")
    parser.add_argument("--model", type=Path, help="a model directory that writes and judges behind the server chat")
    parser.add_argument("--vocabulary-size", type=int, default=97)
    asked = parser.parse_args()
    if asked.tokenizer is not None:
        write_tokenizer(asked.tokenizer, asked.vocabulary_size)
    if asked.model is not None and asked.server != "chat":
        parser.error("--model goes with the server chat alone; leave it out")
    toy = ToyServer(FakeOptions(vocabulary_size=asked.vocabulary_size), asked.trap)
    app = APPS[asked.server](toy) if asked.model is None else _hosted(toy, asked.model)
    asyncio.run(_serve(app))


def _hosted(toy: ToyServer, model: Path) -> FastAPI:
    from tutelage.engines.fakes.hosted import hosted_app
    from tutelage.engines.hf import open_hf

    return hosted_app(toy, open_hf(HfOptions(model=str(model)), toy.name))


async def _serve(app: FastAPI) -> None:
    async with listening(app) as url:
        sys.stdout.write(f"listening on {url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
