#!/bin/sh
# Check the files of this folder with the tools that will read them; `make check-deploy` calls this.
# tests/deploy goes on from here: object schemas, and that no file names what the worker does not have.
set -eu
cd "$(dirname "$0")"
bin=$(dirname "$(command -v python)")

sh helm.sh "$bin"
docker-compose -f compose.yaml config -q
docker-compose -f compose.yaml -f compose.gpu.yaml config -q
hadolint --failure-threshold style Dockerfile
promtool check config --syntax-only prometheus.yml
promtool check rules rules.yml
promtool test rules rules_test.yml
for values in helm/values/*.yaml; do
  helm lint --quiet --strict helm/solstice -f "$values"
done
yamllint --strict -c .yamllint .
shellcheck ./*.sh
