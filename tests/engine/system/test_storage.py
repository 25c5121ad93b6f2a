"""Archives in object stores and on web servers, with a real S3 server on the loopback address."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import torch
from moto.server import ThreadedMotoServer
from PIL import Image
from torch import Tensor

from engine.archive.convert import Summary, convert
from engine.config import PipelineConfig
from engine.errors import SetupError
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import Generator
from engine.options import Options, Size
from engine.system.storage import Login, connect, split_login
from tests.images import photo

CONFIG = PipelineConfig(options=Options(size=Size.parse("native"), format="png"))
INVERT = Generator(ResnetGenerator(Architecture(ngf=4, blocks=1)), Card(name="invert"), "invert")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"bucket-{abs(hash(request.node.name))}"
    return boto3.resource("s3").create_bucket(Bucket=name)


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 24, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def invert(pixels_NHWC: Tensor) -> Tensor:
    return torch.from_numpy(255 - pixels_NHWC.numpy())


def run(src: str | Path, dst: str | Path, **options: Any) -> Summary:
    return convert(src, dst, INVERT, CONFIG, translate=lambda _: options.get("translate", invert))


def put(bucket: Any, **objects: bytes) -> None:
    for key, data in objects.items():
        bucket.put_object(Key=key.replace("__", "/") + ".png", Body=data)


def keys(bucket: Any, prefix: str = "") -> set[str]:
    return {item.key for item in bucket.objects.filter(Prefix=prefix) if "/.solstice/" not in item.key}


def value(data: bytes) -> int:
    return int(np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0])


def test_an_archive_in_a_bucket_is_mirrored_into_another_prefix(bucket: Any) -> None:
    put(bucket, src__a=png(10), src__deep__b=png(20))
    summary = run(f"s3://{bucket.name}/src", f"s3://{bucket.name}/dst")
    assert (summary.converted, summary.failed) == (2, 0)
    assert keys(bucket, "dst/") == {"dst/a.png", "dst/deep/b.png"}
    assert value(bucket.Object("dst/deep/b.png").get()["Body"].read()) == 235


def test_a_second_run_converts_only_new_and_changed_photos(bucket: Any) -> None:
    put(bucket, src__a=png(10), src__b=png(20))
    run(f"s3://{bucket.name}/src", f"s3://{bucket.name}/dst")
    put(bucket, src__b=png(21), src__c=png(30))
    summary = run(f"s3://{bucket.name}/src", f"s3://{bucket.name}/dst")
    assert (summary.converted, summary.skipped) == (2, 1)
    assert value(bucket.Object("dst/b.png").get()["Body"].read()) == 234


def test_a_deleted_result_is_created_again(bucket: Any) -> None:
    put(bucket, src__a=png(10), src__b=png(20))
    run(f"s3://{bucket.name}/src", f"s3://{bucket.name}/dst")
    bucket.Object("dst/a.png").delete()
    assert run(f"s3://{bucket.name}/src", f"s3://{bucket.name}/dst").converted == 1
    assert "dst/a.png" in keys(bucket)


def test_an_object_deleted_during_the_run_fails_alone(bucket: Any, tmp_path: Path) -> None:
    put(bucket, **{f"src__{i:03d}": png(i) for i in range(60)})

    def vanish(pixels_NHWC: Tensor) -> Tensor:
        bucket.Object("src/059.png").delete()
        return invert(pixels_NHWC)

    summary = run(f"s3://{bucket.name}/src", tmp_path / "dst", translate=vanish)
    assert (summary.converted, summary.failed) == (59, 1)
    assert summary.failures == [{"path": "059.png", "stage": "read", "error": "is gone since the archive was listed"}]


def test_a_folder_is_converted_into_a_bucket_and_back(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.png").write_bytes(png(1))
    assert run(tmp_path / "src", f"s3://{bucket.name}/out").converted == 1
    assert run(f"s3://{bucket.name}/out", tmp_path / "back").converted == 1
    assert value((tmp_path / "back/a.png").read_bytes()) == 1


def test_a_second_run_on_the_same_prefix_is_refused_during_the_first(bucket: Any) -> None:
    put(bucket, src__a=png(10))
    refusals: list[str] = []

    def start_another(pixels_NHWC: Tensor) -> Tensor:
        with pytest.raises(SetupError) as refusal:
            run(f"s3://{bucket.name}/src", f"s3://{bucket.name}/dst")
        refusals.append(str(refusal.value))
        return invert(pixels_NHWC)

    run(f"s3://{bucket.name}/src", f"s3://{bucket.name}/dst", translate=start_another)
    assert "Another run (process" in refusals[0]
    assert run(f"s3://{bucket.name}/src", f"s3://{bucket.name}/dst").skipped == 1, "the lock is gone with its run"


@pytest.mark.parametrize("place", ["src", "dst"])
def test_a_missing_bucket_is_an_error_that_names_it(bucket: Any, tmp_path: Path, place: str) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.jpg").write_bytes(photo())
    missing = f"s3://{bucket.name}-not-there/x"
    with pytest.raises(SetupError, match="not-there"):
        run(missing if place == "src" else tmp_path / "src", missing if place == "dst" else tmp_path / "dst")


def test_photos_are_read_from_a_web_server_but_cannot_be_written_to_one(tmp_path: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    (tmp_path / "web").mkdir()
    (tmp_path / "web/a.png").write_bytes(png(10))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "web")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        assert run(f"{url}/", tmp_path / "dst").converted == 1
        with pytest.raises(SetupError, match="cannot be written"):
            run(tmp_path / "web", url)
    finally:
        server.shutdown()
        server.server_close()


def test_an_unknown_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="gopher"):
        run("gopher://hole/photos", tmp_path)


@pytest.mark.parametrize(
    ("url", "public", "user", "password"),
    [
        ("https://user:p%40ss@host/a", "https://host/a", "user", "p@ss"),
        ("sftp://user:pass@host:22/a@b:c", "sftp://host:22/a@b:c", "user", "pass"),
        ("https://a:b@c:d@host", "https://host", "a", "b@c:d"),
        ("https://user:@host/", "https://host/", "user", ""),
    ],
)
def test_a_login_is_separated_from_its_url(url: str, public: str, user: str, password: str) -> None:
    assert split_login(url) == (public, Login(user, password))
    assert password == "" or password not in repr(split_login(url))


@pytest.mark.parametrize("url", ["https://host/a:b@c", "abfs://container@account.dfs.core.windows.net/a", "s3://b/k"])
def test_a_url_without_a_login_is_unchanged(url: str) -> None:
    assert split_login(url) == (url, None)


def test_error_messages_do_not_show_the_password() -> None:
    storage = connect("http://user:s3cret@127.0.0.1:1/p")
    assert storage.url == "http://127.0.0.1:1/p"
    with pytest.raises(SetupError) as caught:
        list(storage.find())
    assert "s3cret" not in str(caught.value)


def test_an_unreadable_netrc_file_is_an_error_without_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(SetupError, match=r"that NETRC names cannot be read: No such file"):
        connect("http://127.0.0.1:1/photos")
    (tmp_path / "none").write_text("password s3cret")
    with pytest.raises(SetupError, match=r"format of netrc") as caught:
        connect("http://127.0.0.1:1/photos")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("place", ["src", "dst"])
@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1:1/photos",
        "nosuch://photos",
        "sftp://127.0.0.1:1/x",
        "hdfs://127.0.0.1:1/x",
        "github://x",
        "://x",
    ],
)
def test_an_unusable_url_is_refused_in_one_sentence(url: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.jpg").write_bytes(photo())
    with pytest.raises(SetupError) as caught:
        run(url if place == "src" else tmp_path / "src", url if place == "dst" else tmp_path / "dst")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
