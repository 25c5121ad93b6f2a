#!/bin/sh
# Check what is in this folder with the tools that will read it; `make check-deploy` calls this.
set -eu
cd "$(dirname "$0")"

docker-compose -f compose.yaml config -q
SOLSTICE_VARIANT=cuda docker-compose -f compose.yaml config -q
hadolint --failure-threshold style Dockerfile
promtool check config --syntax-only prometheus.yml
promtool check rules rules.yml
promtool test rules rules_test.yml
python - <<'PYTHON'
"""Every metric that the dashboard and the rules name must be one that workers have."""
import json
import re
import sys

sys.path.insert(0, "..")
from engine.observe.metrics import METRICS

known = {f"solstice_{metric.name}" for metric in METRICS}
texts = [json.dumps(json.load(open("grafana/dashboards/solstice.json"))), open("rules.yml").read()]
named = {re.sub(r"_(bucket|sum|count)$", "", name) for text in texts for name in re.findall(r"solstice_[a-z_]+", text)}
assert named, "no metric is named at all"
assert named <= known, f"unknown metrics: {named - known}"
print(f"dashboard and rules name {len(named)} metrics, all known")
PYTHON
