"""The images install what the worker needs, in the versions of the lock."""

from __future__ import annotations

import re
import tomllib

from tests import ROOT

LOCK = (ROOT / "deploy/requirements.lock").read_text()
RAY_LOCK = (ROOT / "deploy/requirements-ray.lock").read_text()


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;~! ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def test_the_lock_has_every_dependency_and_those_of_the_images_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.search(r"'\.\[([\w,]+)\]'", (ROOT / "deploy/lock.sh").read_text())
    assert extras is not None
    needed = [*project["dependencies"]]
    for extra in extras[1].split(","):
        needed += project["optional-dependencies"][extra]
    locked = {line.split("==")[0] for line in LOCK.splitlines() if not line.startswith("#")}
    assert names(needed) - {"torch"} <= locked


def test_the_lock_of_ray_has_what_the_extra_and_job_submission_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {line.split("==")[0] for line in RAY_LOCK.splitlines() if not line.startswith("#")}
    assert names(project["optional-dependencies"]["ray"]) <= locked
    assert {"aiohttp-cors", "pyarrow"} <= locked, "ray[default] serves job submission, ray[data] datasets"
    assert not {line for line in LOCK.splitlines() if "==" in line} & set(RAY_LOCK.splitlines())


def test_every_line_of_the_lock_has_a_version_and_a_hash() -> None:
    lines = [line for line in (LOCK + RAY_LOCK).splitlines() if not line.startswith("#")]
    assert len(lines) > 40
    for line in lines:
        assert re.fullmatch(r"[a-z0-9.-]+==\S+ --hash=sha256:[0-9a-f]{64}", line), line


def test_the_dockerfile_and_the_lock_agree_on_torch() -> None:
    """Torch is installed from its own index, beside the lock."""
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    assert set(re.findall(r"torch==([\d.]+)", dockerfile)) == set(
        re.findall(r"torch==([\d.]+)", (ROOT / "deploy/lock.sh").read_text())
    )
