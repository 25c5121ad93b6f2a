"""The Helm chart renders, its objects fit their schemas, and it names nothing that the worker does not have."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from engine.cli.convert import convert
from engine.cli.stream import stream
from engine.observe.health import Health, HealthServer
from tests import ROOT

pytestmark = pytest.mark.needs_helm

CHART = ROOT / "deploy/helm/solstice"
VALUES = sorted((ROOT / "deploy/helm/values").glob("*.yaml"))
SCHEMAS = {
    json.loads(path.read_text())["properties"]["kind"]["const"]: json.loads(path.read_text())
    for path in (ROOT / "deploy/schemas").glob("*.json")
}


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def rendered(*arguments: str | Path) -> dict[str, dict[str, Any]]:
    """Render the chart and return its objects: by kind, or by kind and name where the name is not the release's."""
    shown = helm("template", "rel", CHART, *arguments)
    assert shown.returncode == 0, shown.stderr
    documents = [document for document in yaml.safe_load_all(shown.stdout) if document]
    names = [document["metadata"]["name"] for document in documents]
    return {
        document["kind"] if name == "rel" else f"{document['kind']} {name}": document
        for document, name in zip(documents, names, strict=True)
    }


@pytest.fixture(scope="module", params=VALUES, ids=lambda path: path.stem)
def objects(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    return rendered("-f", request.param)


def settings(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return tomllib.loads(objects["ConfigMap"]["data"]["stream.toml"])


def options() -> dict[str, click.Option]:
    found = [p for p in stream.params if isinstance(p, click.Option)]
    return {name.removeprefix("--"): option for option in found for name in option.opts}


def test_the_chart_passes_lint() -> None:
    shown = helm("lint", "--strict", CHART, *[word for path in VALUES[:1] for word in ("-f", path)])
    assert shown.returncode == 0, shown.stdout + shown.stderr


def test_the_objects_of_kubernetes_fit_their_schemas(objects: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "objects.yaml"
    own = [document for kind, document in objects.items() if kind.split()[0] not in SCHEMAS]
    path.write_text(yaml.safe_dump_all(own))
    shown = subprocess.run(["kubernetes-validate", "--strict", path], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stderr.count(" passed ") + shown.stdout.count(" passed ") == len(own)


def test_the_objects_of_operators_fit_their_schemas(objects: dict[str, dict[str, Any]]) -> None:
    for kind, document in objects.items():
        if kind in SCHEMAS:
            jsonschema.validate(document, SCHEMAS[kind])


def test_everything_is_rendered_by_the_values_for_production() -> None:
    values = ROOT / "deploy/helm/values/production-gpu.yaml"
    kinds = {document["kind"] for document in rendered("-f", values).values()}
    assert kinds >= {*SCHEMAS} - {"RayJob"}
    assert kinds >= {"StatefulSet", "Service", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"}


def test_every_setting_of_the_chart_is_an_option_of_the_worker(objects: dict[str, dict[str, Any]]) -> None:
    known = options()
    for name, value in settings(objects).items():
        assert name in known, f"solstice stream has no --{name}"
        assert isinstance(value, list) <= known[name].multiple, name


def test_every_default_of_the_chart_is_taken_by_the_command_line(objects: dict[str, dict[str, Any]]) -> None:
    """A value that the worker would refuse at start is refused here."""
    known = options()
    for name, value in settings(objects).items():
        if isinstance(known[name].type, click.Path):
            continue  # mounted in the cluster
        for one in value if isinstance(value, list) else [value]:
            known[name].type.convert(one, known[name], None)


def test_the_model_of_the_canary_is_compiled_too() -> None:
    objects = rendered("-f", ROOT / "deploy/helm/values/canary.yaml")
    pod = objects["StatefulSet"]["spec"]["template"]["spec"]
    compiled = [container["args"][:2] for container in pod["initContainers"]]
    assert compiled == [["compile", "summer2winter"], ["compile", "/models/summer2winter-2.safetensors"]]
    assert settings(objects)["canary"] == "/models/summer2winter-2.safetensors=5%"


def test_the_network_policy_lets_spans_reach_their_collector() -> None:
    values = ROOT / "deploy/helm/values/production-gpu.yaml"
    rules = rendered("-f", values)["NetworkPolicy"]["spec"]["egress"]
    assert {"protocol": "TCP", "port": 4318} in rules[1]["ports"]


def test_the_probes_are_those_of_the_worker_and_the_pod_outlives_the_drain(objects: dict[str, dict[str, Any]]) -> None:
    pod = objects["StatefulSet"]["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    port = settings(objects)["metrics-port"]
    assert [p["containerPort"] for p in worker["ports"] if p["name"] == "metrics"] == [port]
    assert objects["Service"]["spec"]["ports"][0]["port"] == port
    paths = {probe: worker[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert pod["terminationGracePeriodSeconds"] > settings(objects)["grace"]


def test_ports_and_quantities_are_as_server_side_apply_compares_them(objects: dict[str, dict[str, Any]]) -> None:
    """A port is found by number and protocol, which older API servers do not fill in; a quantity is a string."""

    def check(value: object) -> None:
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, dict):
                continue
            for port in item.get("ports", []):
                assert "protocol" in port, port
            for quantities in (item.get(name) or {} for name in ("requests", "limits")):
                assert all(isinstance(quantity, str) for quantity in quantities.values()), quantities
            for inner in item.values():
                check(inner)

    check([objects[kind]["spec"] for kind in ("Service", "StatefulSet", "RayJob rel-convert") if kind in objects])


def test_the_modes_of_files_on_a_volume_are_kept(objects: dict[str, dict[str, Any]]) -> None:
    """By default kubelet lets a volume's group write to all that is on it, and the worker refuses such a cache."""
    pods = [
        document["spec"]["template"]["spec"]
        for document in objects.values()
        if document["kind"] in ("StatefulSet", "Job")
    ]
    assert pods
    for pod in pods:
        assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_the_last_words_of_a_container_that_fails_are_in_the_state_of_its_pod(
    objects: dict[str, dict[str, Any]],
) -> None:
    """Kubernetes then shows the one sentence of a wrong setting in `kubectl describe pod`."""
    for kind, document in objects.items():
        if kind.split()[0] in ("StatefulSet", "Job"):
            pod = document["spec"]["template"]["spec"]
            for container in pod["containers"] + pod.get("initContainers", []):
                assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_notes_show_why_a_worker_is_not_ready() -> None:
    shown = helm("install", "rel", CHART, "--dry-run=client").stdout
    found = re.search(r'-- python -c "(.+)"$', shown, re.MULTILINE)
    assert found is not None
    health = Health()
    health.require("broker", False, "no broker answers")
    server = HealthServer("127.0.0.1", 0, health, lambda *_: [])
    try:
        code = found[1].replace("9108", str(server.port))
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    finally:
        server.close()
    assert "no broker answers" in said.stdout, said.stderr


def test_every_environment_variable_is_one_that_the_worker_reads(objects: dict[str, dict[str, Any]]) -> None:
    pod = objects["StatefulSet"]["spec"]["template"]["spec"]
    named = {entry["name"] for entry in pod["containers"][0]["env"]}
    read = {name for option in options().values() for name in (option.envvar,) if isinstance(name, str)}
    assert named <= {*read, "SOLSTICE_CACHE", "SOLSTICE_MODELS"}


def test_no_container_may_write_to_its_image_or_gain_rights(objects: dict[str, dict[str, Any]]) -> None:
    pods = [
        document["spec"]["template"]["spec"]
        for kind, document in objects.items()
        if kind.split()[0] in ("StatefulSet", "Job")
    ]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_a_bucket_is_converted_on_a_ray_cluster_by_the_command_that_the_worker_has(tmp_path: Path) -> None:
    objects = rendered("-f", ROOT / "deploy/helm/values/convert-on-ray.yaml")
    spec = objects["RayJob rel-convert"]["spec"]
    assert not [kind for kind in objects if kind.split()[0] == "Job"], "one of the two"
    # The entry point is a line for a shell, whatever the names
    words = shlex.split(spec["entrypoint"])
    assert words[:4] == ["solstice", "convert", "s3://photos/archive", "s3://photos/it's winter"]
    context = convert.make_context("convert", words[2:])
    assert (context.params["engine"], context.params["address"]) == ("ray", "auto")
    # The nodes are pods that Kubernetes takes, without rights, and run the version of Ray that images have
    cluster = spec["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']} " in (ROOT / "deploy/requirements-ray.lock").read_text()
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert groups[0]["rayStartParams"]["num-cpus"] == "0"
    pods = tmp_path / "pods.yaml"
    pods.write_text(
        yaml.safe_dump_all(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node"}, "spec": group["template"]["spec"]}
            for group in groups
        )
    )
    shown = subprocess.run(["kubernetes-validate", "--strict", pods], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for group in groups:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    limits = groups[1]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("kafka.brokers=nowhere", "brokers"),
        ("worker.detail=sharp", "detail"),
        ("worker.size=huge", "size"),
        ("worker.canary=new", "canary"),
        ("worker.traceEndpoint=collector:4317", "traceEndpoint"),
        ("worker.canary=new=120%", "canary"),
        ("replicas=-1", "replicas"),
        ("kafka.sasl.mechanism=PLAIN", "secret"),
        ("kafka.tls.clientCertificate=true", "tls"),
        ("gpus=2", "gpus"),
        ("worker.grace=30", "grace"),
        ("convertJob.enabled=true", "source"),
        ("image.digest=sha256:12", "digest"),
        ("convertJob.onRay.workers=0", "workers"),
        ("convertJob.onRay.version=newest", "version"),
    ],
)
def test_nonsense_is_refused_with_a_sentence_that_names_it(setting: str, word: str) -> None:
    shown = helm("template", "rel", CHART, "--set", setting)
    assert shown.returncode != 0
    assert word in shown.stderr


def test_the_rules_and_the_dashboard_in_the_chart_are_those_of_the_folder() -> None:
    assert (CHART / "files/rules.yml").read_bytes() == (ROOT / "deploy/rules.yml").read_bytes()
    assert (CHART / "files/dashboard.json").read_bytes() == (
        ROOT / "deploy/grafana/dashboards/solstice.json"
    ).read_bytes()


def test_helm_is_really_there() -> None:
    assert shutil.which("helm") is not None
