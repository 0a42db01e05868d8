"""`python -m tutelage.sampler`: flags first, the model library only when the engine needs it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

from pydantic import ValidationError
from pydantic_settings import CliApp

from tutelage.engines.snapshots import Current
from tutelage.sampler.settings import Settings
from tutelage.sampler.work import Work
from tutelage.telemetry import configure_logging
from tutelage.tracing.export import exported
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import explain


def main() -> None:
    """Write until told to stop; what cannot be used ends it with status 2 and a sentence."""
    try:
        settings = CliApp.run(Settings)
        configure_logging("sampler", settings.log_level)
        with exported("sampler"):
            asyncio.run(serve(settings))
    except ValidationError as error:
        sys.exit(_refused(explain(error)[0]))
    except InvalidInput as error:
        sys.exit(_refused(error.message))


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    queue, worker = settings.open_queue(), f"{settings.name}-{socket.gethostname()}-{os.getpid()}"
    student = _student(settings, worker)
    try:
        await Work(queue, student, settings, worker, stopping).run()
    finally:
        await student.close()
        await queue.close()


def _student(settings: Settings, worker: str) -> Current:
    if settings.engine == "vllm":
        from tutelage.engines.snapshots.served import ServedStudent
        from tutelage.engines.upstream.calls import Calls
        from tutelage.engines.upstream.http import UpstreamHttp, read_key

        assert settings.upstream is not None
        calls = Calls(settings.upstream.rstrip("/"), settings.upstream_deadline_s, settings.max_texts)
        http = UpstreamHttp(calls, read_key(settings.api_key_file))
        return ServedStudent(http, worker, settings.most_off, settings.snapshot_patience_s)
    from tutelage.engines.snapshots.local import LocalStudent

    return LocalStudent(settings.device, settings.most_off, settings.snapshot_patience_s)


def _refused(sentence: str) -> int:
    sys.stderr.write(f"tutelage.sampler: {sentence}\n")
    return 2


if __name__ == "__main__":
    main()
