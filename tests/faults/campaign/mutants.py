"""Decode damaged images of every format and load damaged model files: no crash, no hang, neighbours unharmed.

The work runs in a process of its own. When that crashes or hangs, the number of the mutant is known, and
`--only NUMBER` makes it again.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import random
import resource
import tempfile
import time
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engine.codec.decode import Decoder
from engine.codec.header import inspect_record
from engine.config import DecodeConfig
from engine.errors import SetupError
from engine.model.weights import load_file
from engine.options import Options, Size
from engine.records import Failed, Record
from tests.faults.campaign.checks import Broken, Counts, require
from tests.images import photo, picture
from tests.stream.stream import tiny_model

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "AVIF")
LIMIT_S = 20.0
"""A mutant that takes longer than this counts as a hang."""
LIMIT_BYTES = 1 << 30
"""Memory by which the process may grow."""


def mutants(seed: int, count: int, only: int | None = None) -> Counts:
    """Read `count` mutants, or the one with the number `only`, in a child process."""
    numbers = range(count) if only is None else [only]
    context = multiprocessing.get_context("spawn")
    number = context.Value("q", -1)
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_read_all, args=(seed, numbers, number, theirs))
    child.start()
    theirs.close()
    answer = _answer(ours, number)
    if answer is None and child.is_alive():
        child.kill()
    child.join()
    again = f"; again with --seed {seed} --only {number.value}"
    require(answer is not None, f"mutant {number.value} hung or crashed (exit code {child.exitcode}){again}")
    if isinstance(answer, str):
        raise Broken(f"mutant {number.value}: {answer}{again}")
    assert answer is not None
    return answer


def _answer(ours: Connection, number: Any) -> Counts | str | None:
    """Wait for the child's answer; None when it crashes, or takes too long over one mutant."""
    before, since_s = number.value, time.monotonic()
    while True:
        try:
            if ours.poll(0.5):
                answer: Counts | str = ours.recv()
                return answer
        except EOFError:
            return None
        if number.value != before:
            before, since_s = number.value, time.monotonic()
        elif time.monotonic() - since_s > LIMIT_S + (60.0 if before < 0 else 0.0):  # the first follows the imports
            return None


def _read_all(seed: int, numbers: Sequence[int], number: Any, answer: Connection) -> None:
    logging.disable()  # what decoders remark about damaged files
    warnings.simplefilter("ignore")
    try:
        answer.send(_counts(seed, numbers, number))
    except Broken as error:
        answer.send(str(error))


def _counts(seed: int, numbers: Sequence[int], number: Any) -> Counts:
    counts = Counts()
    originals = [_encoded(format) for format in FORMATS]
    neighbour = photo(40, 30, seed=1)
    decoder, config = Decoder(DecodeConfig()), DecodeConfig(max_pixels=4_000_000)
    with tempfile.TemporaryDirectory() as name:
        model = tiny_model(Path(name) / "tiny.safetensors")
        whole = model.read_bytes()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in numbers:
            number.value = i
            moods = random.Random(f"{seed}-{i}")
            if i % 5 == 4:
                counts[_load(model, mutant(moods, whole))] += 1
            else:
                counts[_decode(decoder, config, mutant(moods, moods.choice(originals)), neighbour)] += 1
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
            require(grown < LIMIT_BYTES, f"memory grew by {grown / 1e6:.0f} MB")
    return counts


def mutant(moods: random.Random, data: bytes) -> bytes:
    """Return `data` with a few bytes changed, or a piece cut out, repeated, or swapped, mostly near the header."""
    changed = bytearray(data)
    reach = len(changed) if moods.random() < 0.5 else min(len(changed), 300)
    for _ in range(moods.choice((1, 1, 2, 5, 20))):
        at = moods.randrange(max(1, reach))
        kind = moods.randrange(5)
        if kind == 0:
            changed[at : at + 1] = bytes([moods.randrange(256)])
        elif kind == 1:
            changed[at : at + 4] = moods.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
        elif kind == 2:
            del changed[at : at + moods.randrange(1, 200)]
        elif kind == 3:
            changed[at:at] = changed[at : at + moods.randrange(1, 200)]
        else:
            del changed[max(1, at) :]
    return bytes(changed)


def _encoded(format: str) -> bytes:
    buffer = io.BytesIO()
    picture(60, 44).save(buffer, format)
    return buffer.getvalue()


def _decode(decoder: Decoder, config: DecodeConfig, data: bytes, neighbour: bytes) -> str:
    options = Options(size=Size.parse("32x32"))
    chunk = [
        inspect_record(Record(key=key, payload=d, options=options), config)
        for key, d in (("m", data), ("n", neighbour))
    ]
    answers = decoder(chunk)
    require(isinstance(answers[1], Record), f"a mutant harmed its neighbour: {answers[1]}")
    return "images refused" if isinstance(answers[0], Failed) else "images that decode all the same"


def _load(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    try:
        load_file(path)
    except SetupError as error:
        require("\n" not in str(error), f"more than one line: {error}")
        return "models refused"
    return "models that load all the same"
