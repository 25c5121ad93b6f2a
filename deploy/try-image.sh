#!/bin/sh
# Build the CPU images from the Dockerfile where there is no Docker engine and no registry, and run them.
#
#   sudo sh deploy/try-image.sh            # needs debootstrap, buildah, and 80 GB free: vfs copies every layer whole
#
# The base image is a Debian with its own Python, made by debootstrap; the official one has the same Debian and the same
# Python version. buildah runs the Dockerfile's steps in a chroot, so it needs no daemon and no container runtime, but root.
# WHEELS may name a folder with a wheel of torch for CPUs, for machines that reach PyPI and not PyTorch's own index.
set -eu
cd "$(dirname "$0")/.."
work=${WORK:-$(mktemp -d /var/tmp/solstice-image.XXXXXX)}
mirror=${MIRROR:-http://deb.debian.org/debian}
index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
store="--root $work/store --runroot $work/run --storage-driver vfs"
container=
# shellcheck disable=SC2086
finish() {
  [ -z "$container" ] || buildah $store rm "$container" >/dev/null
  [ -n "${WORK:-}" ] || rm -rf "$work"
}
trap finish EXIT
name() { case $1 in dependencies-*) echo "$1" ;; *) echo "solstice:$1" ;; esac; }
say() { printf '\n== %s\n' "$*"; }

say "base: Debian bookworm and its Python"
packages=python3,python3-venv,python-is-python3,ca-certificates
[ -d "$work/root" ] || debootstrap --variant=minbase --include="$packages" bookworm "$work/root" "$mirror" >"$work/debootstrap.log"
rm -rf "$work/root/var/cache/apt" "$work/root/var/lib/apt/lists"
printf 'FROM scratch\nCOPY root /\n' >"$work/Base"
# shellcheck disable=SC2086
buildah $store bud --quiet --isolation chroot --file "$work/Base" --tag solstice-base "$work" >/dev/null

# The machine's own certificates and, where WHEELS is set, its wheel of torch.
printf '[global]\ncert = /run/ca.crt\nretries = 1\n%s\n' "${WHEELS:+find-links = /run/wheels}" >"$work/pip.conf"
set -- --volume "$work/pip.conf:/etc/pip.conf:ro" --volume /etc/ssl/certs/ca-certificates.crt:/run/ca.crt:ro
[ -z "${WHEELS:-}" ] || set -- "$@" --volume "$WHEELS:/run/wheels:ro"
# Older buildah leaves out a stage whose name is built with a variable, and then looks for an image of that name.
for target in dependencies-cpu runtime compiler; do
  say "image: $target"
  # shellcheck disable=SC2086
  buildah $store bud --layers --isolation chroot --file deploy/Dockerfile --target "$target" "$@" \
    --build-arg BASE=localhost/solstice-base --build-arg TORCH_INDEX="$index" --tag "$(name "$target")" . >"$work/$target.log" 2>&1 || { tail -40 "$work/$target.log"; exit 1; }
done
# shellcheck disable=SC2086
buildah $store images

# in TARGET COMMAND...: run a command as the image's user, with /cache and /data kept between calls.
mkdir -p "$work/cache" "$work/data/photos"
cp samples/*.jpg "$work/data/photos"
chown -R 10001 "$work/cache" "$work/data"
in_image() {
  target=$1
  shift
  # shellcheck disable=SC2086
  container=$(buildah $store from "localhost/solstice:$target")
  # shellcheck disable=SC2086
  buildah $store run --isolation chroot --user 10001 --env HOME=/tmp --volume "$work/cache:/cache" \
    --volume "$work/data:/data" "$container" -- "$@"
  # shellcheck disable=SC2086
  buildah $store rm "$container" >/dev/null
  container=
}

say "runtime: no compiler, not root"
in_image runtime sh -c 'id -u; command -v g++ gcc cc || echo "no compiler"; solstice --version'
if [ -n "${BROKERS:-}" ]; then
  say "runtime: a worker on $BROKERS"
  in_image runtime sh -c "solstice stream --brokers $BROKERS --group try --jobs try-jobs --results try-results \
    --dead-letters try-dead --create-topics 2 --model summer2winter --backend eager --input-root /data/photos \
    --output-root /data/queue --metrics-port 19108 & worker=\$!
    until python -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:19108/readyz\")' 2>/dev/null; do sleep 1; done
    solstice submit /data/photos --brokers $BROKERS --jobs try-jobs
    solstice results --brokers $BROKERS --results try-results --expect 8 --timeout 120
    kill \$worker; wait \$worker"
fi
say "compiler: compile a model into the cache"
in_image compiler solstice compile summer2winter --sizes 256
say "runtime: translate the samples with the compiled package"
in_image runtime solstice convert /data/photos /data/winter --model summer2winter --size 256
ls -l "$work/data/winter"
