"""The scripts that run images and chart refuse wrong options with a sentence."""

from __future__ import annotations

import subprocess

import pytest

from tests import ROOT


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["try-image.sh", "--min-free", "much"], "--min-free takes a whole number of gigabytes"),
        (["try-image.sh", "--save"], "--save takes a file name"),
        (["try-image.sh", "--sav"], "--sav is not an option"),
        (["try-cluster.sh"], "--binaries takes the folder of the Kubernetes binaries"),
        (["try-cluster.sh", "--binaries", "/nowhere"], "--binaries takes the folder of the Kubernetes binaries"),
        (["try-cluster.sh", "--binaries", "/"], "/ has no etcd"),
        (["try-cluster.sh", "--binaries", "/", "--min-free", "-1"], "--min-free takes a whole number of gigabytes"),
        (["cluster-binaries.sh"], "Make the folder of Kubernetes binaries"),
    ],
)
def test_a_wrong_call_is_refused_with_a_sentence(command: list[str], sentence: str) -> None:
    shown = subprocess.run(["sh", *command], cwd=ROOT / "deploy", capture_output=True, text=True, timeout=60)
    assert shown.returncode == 2
    assert sentence in shown.stdout + shown.stderr
