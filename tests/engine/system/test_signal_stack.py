from __future__ import annotations

import ctypes
import threading
from contextlib import suppress

from engine.system.signal_stack import _libc, _Stack, kept_signal_stack, signal_stack

_NUM_BYTES = 65_536


def replace_stack(memory: ctypes.Array[ctypes.c_char]) -> None:
    """Install another stack, as a native library does."""
    _libc.sigaltstack(ctypes.byref(_Stack(ctypes.addressof(memory), 0, _NUM_BYTES)), None)


def in_thread(work: list[object]) -> None:
    """Replace the stack of this thread inside and outside of `kept_signal_stack`; append what was seen to `work`."""
    memory = ctypes.create_string_buffer(_NUM_BYTES)
    assert signal_stack() == (None, 0)
    with kept_signal_stack():
        replace_stack(memory)
        work.append(signal_stack() == (ctypes.addressof(memory), _NUM_BYTES))
    work.append(signal_stack()[0])
    with suppress(ValueError), kept_signal_stack():
        replace_stack(memory)
        raise ValueError("inside")
    work.append(signal_stack()[0])


def test_a_stack_that_a_library_installs_is_removed_even_after_an_exception() -> None:
    seen: list[object] = []
    thread = threading.Thread(target=in_thread, args=(seen,))
    thread.start()
    thread.join()
    assert seen == [True, None, None]
