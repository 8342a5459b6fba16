"""Being one of several processes, as far as one process shows it: words, the port, the filter of standard error."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import threading

import pytest

from dbwjax.experiments.config import RunOptions
from dbwjax.runtime import processes, stderr_filter
from tests.readme import ROOT

NATIVE = (
    b"E1125 00:41:59.599992   20294 coordination_service_agent.cc:289] Polled an error from coordination service\n"
    b"F1125 00:41:59.600143   20294 client.h:80] Terminating process because the JAX distributed service detected "
    b"fatal errors.\nRPC: /xla.coordination.CoordinationService/PollForError\n"
    b"*** Check failure stack trace: ***\n    @     0x7f33f9e40634  absl::LogMessage::Flush()\n"
)


def full(**given):
    return RunOptions(**{"distributed": True, "coordinator": "a:1", "processes": 2, "process_id": 0, **given})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (full(distributed=False), "--coordinator says nothing without --distributed"),
        (full(processes=None), "--coordinator needs --processes too"),
        (full(coordinator=None, processes=None), "--process-id needs --coordinator and --processes too"),
        (full(processes=0), "--processes 0 is out of range"),
        (full(process_id=2), "--process-id 2 is out of range; use 0 to 1"),
        (full(process_id=-1), "--process-id -1 is out of range; use 0 to 1"),
        (full(patience=0), "--patience 0 is out of range"),
        *[(full(coordinator=word), f"--coordinator {word} is no address") for word in ("a", ":1", "a:x", "a:65536")],
    ],
)
def test_words_are_checked(options, said):
    with pytest.raises(ValueError, match=said):
        processes.check(options)


def test_a_port_is_free_unless_somebody_listens():
    with socket.socket(socket.AF_INET6) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as the coordinator's server does
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("::", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of this machine is in use"):
            processes._require_free(f"127.0.0.1:{port}")
        with socket.create_connection(("::1", port)), server.accept()[0] as accepted:
            accepted.close()  # the server's end closes first, so its port is left waiting
    processes._require_free(f"127.0.0.1:{port}")


def filtered(data: bytes) -> bytes:
    done = subprocess.run([sys.executable, "-S", stderr_filter.__file__], input=data, capture_output=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_the_filter_drops_the_native_log_and_says_one_line():
    others = b"W1125 00:41:59.6 7 other.cc:1] kept\n\r10%|#\r20%|##\nTraceback:\n  no end of line"
    assert filtered(others) == others
    assert filtered(others + b"\n" + NATIVE) == others + b"\n" + stderr_filter.LOST
    assert filtered(NATIVE + b"error: mine\n") == b"error: mine\n"  # one line, whoever is first
    assert filtered(b"error: mine\n" + NATIVE) == b"error: mine\n"
    # A warning or an error that ends nothing is no loss.
    assert filtered(b"ours\n" + NATIVE.partition(b"\n")[0] + b"\n") == b"ours\n"


def test_a_progress_bar_is_shown_at_once():
    """Before its line has ended: the filter is still reading."""
    command = [sys.executable, "-S", stderr_filter.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as running:
        running.stdin.write(b"\r10%|#")
        assert running.stdout.read(6) == b"\r10%|#"
        running.stdin.close()


def test_standard_error_stays_a_terminal_and_a_killed_process_leaves_no_filter():
    code = (
        "import os, sys; from dbwjax.runtime import stderr_filter; stderr_filter.stand_between();"
        "print(sys.stderr.isatty(), os.isatty(2), file=sys.stderr); os.write(2, b'native\\n');"
        "print('error: last', file=stderr_filter.last_words(), flush=True); os.kill(os.getpid(), 9)"
    )
    ours, theirs = pty.openpty()
    running = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, cwd=ROOT)
    os.close(theirs)
    running.wait(20)
    text = b""
    try:
        while block := os.read(ours, 4096):  # ends when the filter, too, has closed it
            text += block
    except OSError:  # how Linux says that the other side of a terminal is gone
        pass
    os.close(ours)
    assert text.split() == b"True False native error: last".split()


def test_watched_work_is_done_or_raises():
    done = []
    processes.watched(lambda: done.append(1))
    assert done == [1]

    def fails():
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        processes.watched(fails)


def test_work_that_waits_for_a_lost_process_is_not_waited_for(monkeypatch):
    """The collective fails; what Orbax waits for never comes."""
    asked, never = [], threading.Event()

    def any_process(flag):
        asked.append(flag)
        if len(asked) == 3:
            raise ValueError("Gloo: Connection closed by peer")
        return True

    monkeypatch.setattr(processes, "any_process", any_process)
    with pytest.raises(ValueError, match="Gloo"):
        processes.watched(never.wait)
    assert asked == [True] * 3
    never.set()


def test_one_that_is_done_goes_on_asking_and_one_that_failed_leaves(monkeypatch):
    answers = iter([True, True, False])
    monkeypatch.setattr(processes, "any_process", lambda flag: flag or next(answers))
    processes.watched(lambda: None)
    assert next(answers, None) is None

    def fails():
        raise OSError("no space")

    monkeypatch.setattr(processes, "any_process", lambda flag: True)
    with pytest.raises(OSError, match="no space"):
        processes.watched(fails)
