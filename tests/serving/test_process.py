"""The socket of a service."""

from __future__ import annotations

import socket

import uvicorn

from tutelage.serving.process import listening


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_first_part() -> None:
    config = uvicorn.Config(app="", host="127.0.0.1", port=0, log_config=None)
    with listening(config) as bound:
        bound.listen()
        with socket.create_connection(bound.getsockname()), bound.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
