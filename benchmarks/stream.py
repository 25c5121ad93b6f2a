"""Everything about the speed of a stream, in one run of some minutes.

- `queue`: jobs a second with a stub for the generator, the worker's processor time for each, and the time to a result
  at half of that rate.
- `beside_slow_source`: the rate while a web server holds back the images of other jobs, against the rate without.
- `against_convert`: the rate with a generator against that of `solstice convert` for the same photos.

What is compared is measured in turn. The worker is a process of its own (`engine.bench.queue`); the broker is the one
that the tests use, in memory, on the same machine. Jobs carry 256x256 JPEGs, and results carry them back.

    python -m benchmarks.stream
    python -m benchmarks.stream --only queue --picture docs/stream.png
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.common import make_model, make_photos, report, run, spread
from engine.bench.queue import MAX_WAIT_S, LoadRun, inline_load, measure_rates, queue_config, queue_worker
from engine.config import BatchConfig, EncodeConfig, GenerateConfig, PipelineConfig
from tests.stream.brokers import tansu

BATCH = 16
QUALITY = 90
SETTINGS: dict[str, Any] = {"fetch_wait_s": 0.025, "session_timeout_s": 6.0}
"""This broker holds a fetch to the end of its wait even when jobs come, and a join for half of the session time-out."""
RARELY_S = 0.2
"""Wait of a fetch where latency is not measured."""
SLOW_JOBS = 100
"""Jobs whose images a web server holds back."""
PARTS = ("queue", "beside_slow_source", "against_convert")

CONFIG = PipelineConfig(
    batch=BatchConfig(size=BATCH),
    generate=GenerateConfig(backend="inductor"),
    encode=EncodeConfig(quality=QUALITY),
)


def main() -> None:
    """Parse, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure only these")
    parser.add_argument("--jobs", type=int, default=4000, help="in each run at full speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="summer2winter", help="generator that is compared with convert")
    parser.add_argument("--picture", type=Path, help="where to draw rate and latency against offered load")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name, tansu(Path(name) / "broker.log") as brokers:
        scratch = Path(name)
        make_photos(scratch / "photos", 200)
        photos = [path.read_bytes() for path in sorted((scratch / "photos").iterdir())]
        if "queue" in arguments.only:
            result["queue"] = queue(scratch, brokers, photos, arguments.jobs, arguments.rounds, arguments.picture)
        if "beside_slow_source" in arguments.only:
            result["beside_slow_source"] = beside_slow_source(
                scratch, brokers, photos, arguments.jobs, arguments.rounds
            )
        if "against_convert" in arguments.only:
            result["against_convert"] = against_convert(scratch, brokers, photos, arguments.model, arguments.rounds)
    report("stream", result)


def queue(
    scratch: Path, brokers: str, photos: Sequence[bytes], jobs: int, rounds: int, picture: Path | None
) -> dict[str, Any]:
    """Measure the highest rate, and the time to a result at half of it; draw more loads into `picture`."""
    config = queue_config(CONFIG, translate=False)
    with (
        queue_worker(brokers, _stub(scratch), config, **SETTINGS) as worker,
        inline_load(brokers, worker.topics, photos) as load,
    ):
        rates = measure_rates(worker, load, jobs, rounds)
        if picture is not None:
            offered = [rates["jobs_per_s"]["median"] * share for share in (0.1, 0.25, 0.5, 0.75, 0.9)]
            draw([(rate, load.run(max(100, int(rate * 10)), rate)) for rate in offered], picture)
    return {"photo_bytes": round(sum(map(len, photos)) / len(photos)), **rates}


def beside_slow_source(scratch: Path, brokers: str, photos: Sequence[bytes], jobs: int, rounds: int) -> dict[str, Any]:
    """Measure the rate of jobs while a web server holds back the images of others, and without them, in turn."""
    config = queue_config(CONFIG, translate=False)
    without, beside = [], []
    with (
        _slow_server(photos[0]) as (url, go_on),
        queue_worker(brokers, _stub(scratch), config, **SETTINGS, input_roots=(url,), read_timeout_s=600.0) as worker,
        inline_load(brokers, worker.topics, photos) as load,
    ):
        load.run(jobs, None)
        for _ in range(rounds):
            without.append(load.run(jobs, None).jobs_per_s)
            go_on.clear()
            load.send_beside([f"{url}/{number}.jpg" for number in range(SLOW_JOBS)])
            load.run(len(photos), None)  # now they have begun
            beside.append(load.run(jobs, None).jobs_per_s)
            go_on.set()
            load.run(jobs // 4, None)  # they end
    return {
        "slow_jobs": SLOW_JOBS,
        "without_jobs_per_s": spread(without),
        "beside_jobs_per_s": spread(beside),
        "ratio": spread([one / other for one, other in zip(beside, without, strict=True)]),
    }


def against_convert(scratch: Path, brokers: str, photos: Sequence[bytes], model: str, rounds: int) -> dict[str, Any]:
    """Send the photos through a warm worker and through `solstice convert`, in turn; both rates leave out the start.

    Worker and load fetch rarely: with 240 requests a second that find nothing, as in the other parts, the stream has a
    fifth less, because the generator's threads wait for each other (LOG.md).
    """
    from engine.model.card import find_model

    options = ("--model", model, "--size", "256x256", "--batch", BATCH, "--quality", QUALITY, "--backend", "inductor")
    streamed, converted = [], []
    config = queue_config(CONFIG, translate=True)
    with (
        queue_worker(
            brokers, find_model(model), config, translate=True, **{**SETTINGS, "fetch_wait_s": RARELY_S}
        ) as worker,
        inline_load(brokers, worker.topics, photos, int(RARELY_S * 1e3)) as load,
    ):
        load.run(len(photos), None)
        for number in range(rounds):
            streamed.append(load.run(len(photos), None).jobs_per_s)
            shown = run("-m", "engine", "convert", scratch / "photos", scratch / f"out{number}", *options, "--json")
            converted.append(json.loads(shown.stdout)["images_per_second"])
    return {
        "photos": len(photos),
        "stream_jobs_per_s": spread(streamed),
        "convert_images_per_s": spread(converted),
        "ratio": spread([one / other for one, other in zip(streamed, converted, strict=True)]),
    }


def _stub(scratch: Path) -> Path:
    return make_model(scratch / "stub.safetensors", ngf=4, blocks=1)


@contextmanager
def _slow_server(photo: bytes) -> Iterator[tuple[str, threading.Event]]:
    """Serve `photo` under every path, its second half once the event is set; yields the URL and the event."""
    go_on = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(photo)))
            self.end_headers()
            self.wfile.write(photo[:1000])
            go_on.wait()
            self.wfile.write(photo[1000:])

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", go_on
    finally:
        go_on.set()
        server.shutdown()
        server.server_close()


def draw(loads: Sequence[tuple[float, LoadRun]], path: Path) -> None:
    """Draw rate and latency against offered load."""
    from matplotlib import pyplot

    offered = [rate for rate, _ in loads]
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 6))
    above.plot(offered, [load.jobs_per_s for _, load in loads], "o-")
    above.set_ylabel("results a second")
    below.plot(offered, [load.median_ms for _, load in loads], "o-", label="median")
    below.plot(offered, [load.p99_ms for _, load in loads], "o-", label="99 %")
    below.axhline(MAX_WAIT_S * 1e3, linestyle=":", color="grey", label="--max-wait")
    below.set_yscale("log")
    below.set_ylabel("ms from send to result")
    below.set_xlabel("jobs offered a second")
    below.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
