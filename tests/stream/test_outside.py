"""Interfaces of a worker to its surroundings: TLS, metrics, probes, JSON logs."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from engine.errors import SetupError
from engine.stream.client import make_consumer
from engine.stream.connection import Connection
from tests.stream.brokers import free_port, tansu, wait_for_port
from tests.stream.stream import Stream, eventually, photo


def fetched(url: str) -> tuple[int, str]:
    """Return status and text of a page; error statuses do not raise."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        return int(error.code), error.read().decode()


def test_metrics_and_probes_after_some_jobs(stream: Stream) -> None:
    port = free_port()
    worker = stream.worker(metrics_port=port)
    url = f"http://127.0.0.1:{port}"
    eventually(lambda: fetched(f"{url}/readyz")[0] == 200)
    stream.submit_photos(10)
    stream.send(b"{", key=b"bad")
    stream.flush()
    stream.results(11)
    eventually(lambda: 'solstice_commits_total{result="done"}' in fetched(f"{url}/metrics")[1])
    _, text = fetched(f"{url}/metrics")
    assert 'solstice_jobs_total{outcome="done",reason=""} 10.0' in text
    assert 'solstice_jobs_total{outcome="failed",reason="job"} 1.0' in text
    assert 'solstice_dead_letters_total{stage="job"} 1.0' in text
    assert "solstice_in_flight_jobs 0.0" in text
    assert 'solstice_job_seconds_count{model="tiny",outcome="done"} 10.0' in text
    assert 'solstice_job_seconds_count{model="",outcome="failed"} 1.0' in text
    assert 'solstice_stage_images_total{stage="generate"} 10.0' in text
    assert fetched(f"{url}/healthz")[0] == 200
    worker.health.require("sink", False)
    status, body = fetched(f"{url}/readyz")
    assert (status, json.loads(body)) == (503, {"ok": False, "waiting_for": ["sink"]})


def test_every_line_of_a_json_log_is_an_object(stream: Stream) -> None:
    # Given photos for which decoding libraries write warnings
    process = stream.process("--log-format", "json")
    for i in range(3):
        stream.submit(id=f"cut {i}", source=stream.add_photo(f"cut {i}.jpg", photo(i, 400, 300)[:-500]))
    stream.submit(id="good", source=stream.add_photo("good.jpg", photo()))
    stream.flush()
    stream.results(4)
    # When it is drained
    process.terminate()
    assert process.wait(30) == 0
    # Then every line that it wrote is a JSON log record
    lines = [json.loads(line) for line in stream.log().read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(line) for line in lines))
    assert any("has left" in line["message"] for line in lines)


@pytest.mark.usefixtures("impatient")
@pytest.mark.needs_stunnel
def test_tls_with_certificates_on_both_sides(tmp_path: Path, model: Path) -> None:
    # Given a broker behind stunnel, which requires a client certificate
    authority = certificates(tmp_path)
    plain, secure = free_port(), free_port()
    config = tmp_path / "stunnel.conf"
    config.write_text(
        f"foreground = yes\npid =\n[kafka]\naccept = 127.0.0.1:{secure}\nconnect = 127.0.0.1:{plain}\n"
        f"cert = {tmp_path / 'server.pem'}\nkey = {tmp_path / 'server.key'}\n"
        f"CAfile = {authority}\nverifyChain = yes\n"
    )
    with tansu(tmp_path / "tansu.log", plain, secure), (tmp_path / "stunnel.log").open("wb") as log:
        proxy = subprocess.Popen(["stunnel4", str(config)], stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for_port(secure, proxy)
            trusted = Connection(
                brokers=f"localhost:{secure}",
                tls_ca=authority,
                tls_cert=tmp_path / "client.pem",
                tls_key=tmp_path / "client.key",
            )
            # Then a client without the authority's certificate gets a sentence about it
            with pytest.raises(SetupError, match="is not trusted"):
                make_consumer(Connection(brokers=f"localhost:{secure}", tls=True))
            # And one without TLS is pointed to --tls
            with pytest.raises(SetupError, match="--tls"):
                make_consumer(Connection(brokers=f"localhost:{secure}"))
            # And one with the authority's and its own certificate connects
            consumer = make_consumer(trusted)
            assert isinstance(consumer.topics(), set)
            consumer.close(timeout_ms=1000)
        finally:
            proxy.terminate()
            proxy.wait(10)


def certificates(folder: Path) -> Path:
    """Write a certificate authority and certificates for `localhost` and a client; return the authority's path."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    openssl(*new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    for name in ("server", "client"):
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        openssl(*new, *signed, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    return folder / "ca.pem"
