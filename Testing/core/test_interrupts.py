"""Interrupts: deferred to a safe point, or raised once for a burst of them."""

import signal
import sys
import threading
import time

import pytest
from DNetRegistrationLib.core import interrupts
from DNetRegistrationLib.core.interrupts import deferred, held_back, raised_once

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of this kind")
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


@pytest.fixture(params=SIGNALS)
def number(request):
    """The number of a signal that is handled as by default."""
    number = getattr(signal, request.param)
    before = signal.signal(number, signal.default_int_handler)
    yield number
    signal.signal(number, before)


def test_signals_are_noted_and_handlers_come_back(number):
    with deferred() as interrupted:
        assert not interrupted()
        signal.raise_signal(number)
        assert interrupted()
    assert signal.getsignal(number) is signal.default_int_handler
    signal.signal(number, signal.SIG_IGN)
    with deferred() as interrupted:
        signal.raise_signal(number)
        assert not interrupted()


def test_a_second_signal_after_a_while_is_raised_at_once(number, monkeypatch):
    monkeypatch.setattr(interrupts, "BURST", 0.01)
    with pytest.raises(KeyboardInterrupt), deferred() as interrupted:
        signal.raise_signal(number)
        assert interrupted()
        time.sleep(0.02)
        signal.raise_signal(number)


def test_what_is_held_back_comes_after_the_block_to_whom_it_was_for(number):
    done = []
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(number)
        done.append(True)
    assert done and signal.getsignal(number) is signal.default_int_handler
    with deferred() as interrupted:
        with held_back():
            signal.raise_signal(number)
            assert not interrupted()
        assert interrupted()


def test_a_burst_is_raised_once(number):
    cleaned = []
    with pytest.raises(KeyboardInterrupt), raised_once():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # while the first is cleaned up after
            cleaned.append(True)
    assert cleaned and signal.getsignal(number) is signal.default_int_handler


def test_other_threads_get_no_signals():
    answers = []

    def work():
        with deferred() as interrupted, raised_once():
            answers.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
