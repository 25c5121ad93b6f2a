"""`solstice convert`: from arguments to configuration, and the printed summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.archive.config import ArchiveConfig
from engine.archive.convert import Summary
from engine.cli.convert import convert
from engine.config import PipelineConfig
from engine.errors import SetupError
from engine.listing import Inventory, folder
from tests.images import photo, pixels

EAGER = ("--backend", "eager", "--device", "cpu")


@pytest.fixture
def src(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(photo(60, 40))
    return folder


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(convert, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("arguments", "report"),
    [
        (["--report", "SRC", "DST"], "sample"),
        (["SRC", "--report", "DST"], "sample"),
        (["SRC", "DST", "--report"], "sample"),
        (["--report", "all", "SRC", "DST"], "all"),
        (["SRC", "DST", "--report=all"], "all"),
        (["--report", "--", "SRC", "DST"], "sample"),
        (["SRC", "DST"], None),
    ],
)
def test_report_may_be_anywhere_on_the_command_line(
    arguments: list[str], report: str | None, src: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def note(from_: str, to: str, _model: str, _config: PipelineConfig, **settings: Any) -> Summary:
        seen.extend((from_, to, settings["report"]))
        return nothing_done()

    monkeypatch.setattr("engine.archive.convert.convert", note)
    places = {"SRC": str(src), "DST": str(src.parent / "dst")}
    done = invoke("--model", "m", *(places.get(word, word) for word in arguments))
    assert (done.exit_code, seen) == (0, [*places.values(), report]), done.output


def nothing_done() -> Summary:
    return Summary(images=0, converted=0, skipped=0, failed=0, images_per_second=0, seconds=0, backend="")


def config_of(monkeypatch: pytest.MonkeyPatch, src: Path, *options: str) -> PipelineConfig:
    """Return the configuration that the command would run with."""
    seen: list[PipelineConfig] = []

    def note(_src: str, _dst: str, _model: str, config: PipelineConfig, **_: Any) -> Summary:
        seen.append(config)
        return nothing_done()

    monkeypatch.setattr("engine.archive.convert.convert", note)
    assert invoke(src, src.parent / "dst", "--model", "m", *options).exit_code == 0
    return seen[0]


def test_every_option_reaches_its_stage(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(
        monkeypatch, src,
        "--size", "320x200", "--format", "webp", "--detail", "plain", "--quality", "70", "--subsampling", "4:4:4",
        "--progressive", "--lossless", "--strip", "--keep-profile", "--batch", "7", "--backend", "eager",
        "--precision", "bf16", "--device", "cpu", "--memory", "2G", "--max-pixels", "1000", "--allow-damaged",
        "--decode", "cpu", "--gpu-encode-from", "5000000",
    )  # fmt: skip
    assert (str(config.options.size), config.options.format, config.options.detail) == ("320x200", "webp", "plain")
    encode = config.encode
    assert (encode.quality, encode.subsampling) == (70, "4:4:4")
    assert (encode.progressive, encode.lossless, encode.strip, encode.keep_profile) == (True, True, True, True)
    assert encode.gpu_from_pixels == 5_000_000
    assert config.batch.size == 7
    assert (config.decode.max_pixels, config.decode.allow_damaged, config.decode.jpegs) == (1000, True, "cpu")
    generate = config.generate
    assert (generate.backend, generate.precision, generate.device) == ("eager", "bf16", "cpu")
    assert generate.memory_bytes == 2 << 30


def test_without_options_every_stage_has_its_defaults(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, defaults = config_of(monkeypatch, src), PipelineConfig()
    assert (config.decode, config.batch, config.encode) == (defaults.decode, defaults.batch, defaults.encode)
    assert (str(config.options.size), config.options.detail, config.options.format) == ("auto", "guided", "keep")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--size", "big"], "size must be"),
        (["--quality", "0"], "0 is not in the range"),
        (["--format", "bmp"], "'bmp' is not one of"),
        (["--backend", "magic"], "'magic' is not one of"),
        (["--batch", "0"], "0 is not in the range"),
        (["--memory", "much"], "much"),
        (["--colour", "red"], "No such option"),
    ],
)
def test_an_invalid_option_is_a_usage_error(options: list[str], complaint: str, src: Path) -> None:
    result = invoke(src, src.parent / "dst", "--model", "m", *options)
    assert result.exit_code == 2
    assert complaint in result.output


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--devices", "cpu,tpu"], "must be auto, cpu"),
        (["--devices", "cpu,cpu", "--device", "cpu"], "leave one of them out"),
    ],
)
def test_invalid_devices_are_refused(options: list[str], complaint: str, src: Path) -> None:
    result = invoke(src, src.parent / "dst", "--model", "m", *options)
    assert isinstance(result.exception, SetupError)
    assert complaint in str(result.exception)


def test_a_single_entry_of_devices_is_the_device(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_of(monkeypatch, src, "--devices", "cpu").generate.device == "cpu"


def test_the_summary_counts_converted_existing_and_failed_photos(src: Path, model_file: Path) -> None:
    dst = src.parent / "dst"
    (src / "empty.jpg").touch()
    first = invoke(src, dst, "--model", model_file, "--size", "48x32", "--format", "png", *EAGER)
    assert first.exit_code == 1
    assert "1 converted, 0 already done, 1 failed" in first.output
    assert "  empty.jpg: empty file\n" in first.output
    assert f'Results are in "{dst}".' in first.output
    assert pixels((dst / "a.png").read_bytes()).shape == (32, 48, 3)
    (src / "empty.jpg").unlink()
    second = invoke(src, dst, "--model", model_file, "--size", "48x32", "--format", "png", *EAGER)
    assert second.exit_code == 0
    assert "0 converted, 1 already done, 0 failed" in second.output
    assert "Results are in" not in second.output


def test_twenty_failures_are_printed_and_json_has_all(src: Path, model_file: Path) -> None:
    for i in range(25):
        (src / f"bad{i:02}.jpg").touch()
    result = invoke(src, src.parent / "dst", "--model", model_file, *EAGER)
    assert result.output.count("empty file") == 20
    assert "and 5 more" in result.output
    result = invoke(src, src.parent / "dst", "--model", model_file, "--json", *EAGER)
    assert len(json.loads(result.stdout)["failures"]) == 25


def test_output_of_native_libraries_is_in_a_log_beside_the_manifest(src: Path, model_file: Path) -> None:
    (src / "cut.png").write_bytes(photo(200, 150, format="PNG")[:-3000])
    result = invoke(src, src.parent / "dst", "--model", model_file, *EAGER)
    assert result.exit_code == 1
    assert (src.parent / "dst/.solstice/native.log").exists()


def test_the_summary_has_the_absolute_path_of_a_relative_output(
    src: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (src.parent / "dst/here").mkdir(parents=True)
    monkeypatch.chdir(src.parent / "dst/here")
    result = invoke(src, "..", "--model", model_file, *EAGER)
    assert f'Results are in "{src.parent}/dst".\n' in result.output


def test_remarks_and_left_out_files_are_printed(src: Path, model_file: Path) -> None:
    (src / "a.bmp").write_bytes(photo(format="BMP"))
    (src / "film.mov").write_bytes(b"x")
    (src / "@eaDir").mkdir()
    (src / "@eaDir/a.jpg").write_bytes(b"x")
    result = invoke(src, src.parent / "dst", "--model", model_file, "--format", "jpeg", *EAGER)
    assert result.exit_code == 0
    assert "Remarks on converted photos (1):\n  a.bmp: stored as a.bmp.jpg, because a.jpg is" in result.output
    assert "Left out: 1 .mov, 1 @eaDir/.\n" in result.output


def test_an_empty_name_for_the_output_is_refused(src: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(src.parent)
    result = invoke(src, "", "--model", model_file, *EAGER)
    assert result.exit_code == 1
    assert str(result.exception) == "The name of the output is empty; name a folder."
    assert not (src.parent / ".solstice").exists()


def test_every_archive_option_reaches_the_run(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ArchiveConfig] = []

    def note(*_: Any, archive: ArchiveConfig, **__: Any) -> Summary:
        seen.append(archive)
        return nothing_done()

    monkeypatch.setattr("engine.archive.convert.convert", note)
    result = invoke(
        src, src.parent / "dst.tar", "--model", "m", "--include", "*.jpg", "--include", "x", "--exclude", "b*",
        "--pages", "all", "--max-bytes", "5M", "--suffix", "_w", "--name", "{stem}-{suffix}{ext}", "--overwrite",
        "--times", "--sidecars", "--shard-bytes", "1G",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert seen == [
        ArchiveConfig(
            include=("*.jpg", "x"), exclude=("b*",), pages="all", max_bytes=5 << 20, suffix="_w",
            name="{stem}-{suffix}{ext}", overwrite=True, keep_times=True, sidecars=True, shard_bytes=1 << 30,
        )
    ]  # fmt: skip


def test_without_options_the_archive_has_its_defaults(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ArchiveConfig] = []

    def note(*_: Any, archive: ArchiveConfig, **__: Any) -> Summary:
        seen.append(archive)
        return nothing_done()

    monkeypatch.setattr("engine.archive.convert.convert", note)
    assert invoke(src, src.parent / "dst", "--model", "m").exit_code == 0
    assert seen == [ArchiveConfig()]


def test_the_folder_is_listed_once(src: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One listing serves the number of photos, the plan and the run."""
    (src / "deep").mkdir()
    (src / "deep/b.jpg").write_bytes(photo())
    walked: list[str] = []
    list_once = folder.list_folder

    def noted(root: Path, *arguments: Any) -> Inventory:
        walked.append(str(root))
        return list_once(root, *arguments)

    monkeypatch.setattr("engine.listing.list_folder", noted)
    assert invoke(src, src.parent / "dst", "--model", model_file, "--report", *EAGER).exit_code == 0
    assert walked == [str(src)]


@pytest.mark.parametrize(("size", "side"), [("auto", 512), ("native", 2048), ("300", 300), ("301x270", 272)])
def test_backends_are_tuned_for_the_size_of_most_photos(
    monkeypatch: pytest.MonkeyPatch, src: Path, size: str, side: int
) -> None:
    assert config_of(monkeypatch, src, "--size", size).generate.sides == (side,)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--address", "auto"), "--address and --ray-actors are for --on ray"),
        (("--ray-actors", "2"), "--address and --ray-actors are for --on ray"),
        (("--on", "ray", "--devices", "cpu,cpu"), "--devices and --on ray cannot be combined"),
    ],
)
def test_options_of_ray_need_ray(arguments: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=complaint):
        CliRunner().invoke(convert, [str(tmp_path), "out", "--model", "x", *arguments], catch_exceptions=False)
