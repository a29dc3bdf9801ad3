"""`rawmosaic broker` as a program: it says where it is, answers, logs, and ends when told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from rawmosaic.net.protocol import Request, reply_from, request_frames

ANY = "tcp://127.0.0.1:*"
LONG_S = 30


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen, str, str]]:
    """(process, front, back) of a broker in a process of its own."""
    script = "import sys; from rawmosaic.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "broker", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            words = process.stdout.readline().split()
            assert words[0::2] == ["viewers:", "servers:"], process.stderr.read()
            yield process, words[1], words[3]
        finally:
            process.kill()


def ask(address: str, op: str) -> dict:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(address)
        socket.send_multipart(request_frames(Request(1, op)))
        assert socket.poll(1e3 * LONG_S)
        return dict(reply_from(socket.recv_multipart()).body)


def test_a_broker_answers_until_it_is_told_to_end():
    with running("--front", ANY, "--back", ANY) as (process, front, back):
        assert ask(front, "hello")["protocol"] == 1
        assert ask(front, "slides") == {"slides": [], "rest": False}
        if os.name == "posix":
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=LONG_S)
            assert process.returncode == 0
            assert front in log
            assert back in log


def test_an_address_for_others_needs_a_key(rawmosaic, tmp_path):
    outcome = rawmosaic("broker", "--front", "tcp://0.0.0.0:*", "--back", ANY, "--keys", tmp_path)
    assert outcome.complains_once_about("key pair", "rawmosaic keys new")


@pytest.mark.parametrize("option", ["--front", "--back"])
def test_an_address_that_is_none_is_one_line(rawmosaic, option):
    assert rawmosaic("broker", option, "here").complains_once_about("here", "tcp://HOST:PORT")


def test_an_address_in_use_is_one_line(rawmosaic):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        outcome = rawmosaic("broker", "--front", f"tcp://127.0.0.1:{port}", "--back", ANY)
        assert outcome.code == 2
        assert f"rawmosaic: tcp://127.0.0.1:{port}: the address cannot be bound" in outcome.err


def test_whoever_insists_does_without_keys():
    with running("--front", "tcp://0.0.0.0:*", "--back", ANY, "--insecure") as (_, front, _back):
        assert ask(front.replace("0.0.0.0", "127.0.0.1"), "ping") == {}
