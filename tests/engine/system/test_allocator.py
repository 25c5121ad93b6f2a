from __future__ import annotations

import os
import subprocess
import sys

import pytest

from engine.system import allocator

SCRIPT = """
import ctypes, threading
from pathlib import Path
from engine.system.allocator import keep_freed_memory

kept = keep_freed_memory()
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p
blocks = []
thread = threading.Thread(target=lambda: blocks.append(malloc(1 << 20)))
thread.start()
thread.join()
(heap,) = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]")]
start, end = (int(edge, 16) for edge in heap.split("-"))
print(kept, start <= blocks[0] < end)
"""


@pytest.mark.parametrize(("given", "kept"), [({}, "True True"), ({"MALLOC_ARENA_MAX": "2"}, "False False")])
def test_large_blocks_of_every_thread_come_from_one_heap_unless_the_user_has_settings(
    given: dict[str, str], kept: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment.pop("GLIBC_TUNABLES", None)
    shown = subprocess.run([sys.executable, "-c", SCRIPT], env=environment | given, capture_output=True, text=True)
    assert shown.stdout.strip() == kept, shown.stderr


def test_a_c_library_without_these_settings_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not allocator.keep_freed_memory()
