#!/bin/sh
# Build the CPU images from the Dockerfile where there is no Docker engine and no registry, and run them.
#
#   sudo sh deploy/try-image.sh [--min-free GB] [--save FILE]  # needs debootstrap, podman and runc; 6 GB of disk, 15 minutes
#
# The base image is a Debian with its own Python, made by debootstrap; the official one has the same Debian and the same
# Python version. podman needs no daemon. Each step of the Dockerfile runs in a chroot; the images then run in containers
# with the settings of compose.yaml: read-only, without capabilities, as the image's user.
#
# --min-free GB  stop before a step when less than this is free on the disk (default: 10)
# --save FILE    only build the image that compiles and runs models, and write it to FILE for `ctr image import`
#
# Environment:
#   BROKERS      HOST:PORT of a Kafka that this machine reaches: also run a worker on jobs of its own topics
#   WHEELS       folder with a wheel of torch for CPUs, for machines that reach PyPI and not PyTorch's own index
#   TORCH_INDEX  package index with torch (default: PyTorch's own, for CPUs)
#   MIRROR       Debian mirror
#   WORK         folder for the base, the images and the results, which stays; by default a new one, removed at the end
set -eu
cd "$(dirname "$0")/.."
refuse() { echo "try-image: $*" >&2; exit 2; }
min_free=10 save=
while [ $# -gt 0 ]; do
  case $1 in
    --min-free) min_free=${2:-}; shift $(($# > 1 ? 2 : 1)) ;;
    --save) save=${2:-}; [ -n "$save" ] || refuse "--save takes a file name."; shift 2 ;;
    --help | -h) sed -n '2,/^set/s/^# \{0,1\}//p' deploy/try-image.sh; exit ;;
    *) refuse "$1 is not an option: see --help." ;;
  esac
done
case $min_free in '' | *[!0-9]*) refuse "--min-free takes a whole number of gigabytes, such as 10." ;; esac
for tool in debootstrap podman runc; do
  command -v $tool >/dev/null || refuse "$tool is missing: apt-get install debootstrap podman runc."
done
[ "$(id -u)" = 0 ] || refuse "debootstrap and mounts need root: sudo sh deploy/try-image.sh"

work=${WORK:-$(mktemp -d /var/tmp/solstice-image.XXXXXX)}
mkdir -p "$work"
mirror=${MIRROR:-http://deb.debian.org/debian}
index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
# The overlay driver stores what a layer changes; vfs stores a whole copy of the image for each layer.
pod() {
  podman --root "$work/store" --runroot "$work/run" --tmpdir "$work/tmp" --storage-driver overlay --runtime runc \
    --cgroup-manager cgroupfs --events-backend none "$@"
}
finish() {
  code=$?
  trap - EXIT
  pod rm --all --force --time 0 >/dev/null 2>&1 || :
  # What a signal left mounted: layers, and /proc and /sys in the base.
  awk -v below="$work/" 'index($2, below) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount || :
  find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} + 2>/dev/null || :
  [ -n "${WORK:-}" ] || rm -rf --one-file-system "$work"
  exit $code
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
say() {
  printf '\n== %s\n' "$*"
  free=$(df -P -k "$work" | awk 'NR == 2 {print int($4 / 1024 / 1024)}')
  [ "$free" -ge "$min_free" ] ||
    refuse "$free GB are free under $work and --min-free asks for $min_free: set WORK to a folder on a larger disk, or lower --min-free."
}

say "base: Debian bookworm and its Python"
packages=python3,python3-venv,python-is-python3,ca-certificates
[ -d "$work/root" ] || {
  rm -rf "$work/root.part"
  debootstrap --variant=minbase --include="$packages" bookworm "$work/root.part" "$mirror" >"$work/debootstrap.log" ||
    { tail -20 "$work/debootstrap.log"; refuse "debootstrap failed: set MIRROR to a Debian mirror that this machine reaches."; }
  rm -rf "$work/root.part/var/cache/apt" "$work/root.part/var/lib/apt/lists"
  mv "$work/root.part" "$work/root"
}
printf 'FROM scratch\nCOPY root /\n' >"$work/Base"
pod build --quiet --isolation chroot --file "$work/Base" --tag solstice-base "$work" >"$work/base.log" 2>&1 ||
  { tail -20 "$work/base.log"; refuse "no image can be stored under $work: set WORK to a folder on ext4 or xfs, where overlay mounts work."; }

# The machine's own certificates and, where WHEELS is set, its wheel of torch.
printf '[global]\ncert = /run/ca.crt\nretries = 1\n%s\n' "${WHEELS:+find-links = /run/wheels}" >"$work/pip.conf"
set -- --volume "$work/pip.conf:/etc/pip.conf:ro" --volume /etc/ssl/certs/ca-certificates.crt:/run/ca.crt:ro
[ -z "${WHEELS:-}" ] || set -- "$@" --volume "$WHEELS:/run/wheels:ro"
# All images are built from one copy, since a compiled package is used only by the source that compiled it.
rm -rf "$work/source"
mkdir -p "$work/source"
tar -c pyproject.toml README.md LICENSE .dockerignore engine solstice trainer deploy | tar -x -C "$work/source"
# build TARGET TAG [OPTION...]: `docker` is the format that keeps the health check.
build() {
  target=$1 tag=$2
  shift 2
  say "image: $tag"
  pod build --layers --format docker --isolation chroot --file "$work/source/deploy/Dockerfile" --target "$target" "$@" \
    --build-arg BASE=localhost/solstice-base --build-arg TORCH_INDEX="$index" --tag "$tag" "$work/source" >"$work/build.log" 2>&1 ||
    { tail -40 "$work/build.log"; exit 1; }
}

mkdir -p "$work/cache" "$work/data/photos"
cp samples/*.jpg "$work/data/photos"
chown -R 10001 "$work/cache" "$work/data"
# container [OPTION...] IMAGE ARGUMENT...: run an image as compose.yaml does, with /cache and /data kept between calls.
# Limits on processes and files are named, since podman's own may be above what this machine lets root set.
container() {
  pod run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --env HOME=/tmp --network host \
    --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 --no-healthcheck \
    --volume "$work/cache:/cache" --volume "$work/data:/data" --log-driver k8s-file "$@"
}
converted() {
  count=$(find "$1" -name '*.jpg' | wc -l)
  [ "$count" -eq 8 ] || { echo "$1 has $count of 8 results"; exit 1; }
}

# Older podman leaves out a stage whose name is built with a variable, and then looks for an image of that name.
build dependencies-cpu dependencies-cpu "$@"
if [ -n "$save" ]; then
  build compiler solstice:cpu-compiler "$@"
  say "image: write $save"
  pod save --quiet --format docker-archive --output "$save" solstice:cpu-compiler
  exit
fi
build runtime solstice:cpu "$@"
say "runtime: not root, nothing to write but /cache, /data and /tmp, no compiler"
# shellcheck disable=SC2016
container --entrypoint sh solstice:cpu -c 'id
  for folder in / /opt/solstice /home/solstice; do ! touch $folder/x 2>/dev/null || exit 1; done
  ! command -v g++ gcc cc
  solstice --version'
say "runtime: translate the samples"
container solstice:cpu convert /data/photos /data/eager --model summer2winter --size 256 --backend eager
converted "$work/data/eager"

if [ -n "${BROKERS:-}" ]; then
  say "runtime: a worker on $BROKERS"
  run=try-$(date +%s)  # topics of an earlier run may still be there
  container --rm=false --no-healthcheck=false --detach --name worker solstice:cpu stream --brokers "$BROKERS" --group "$run" --jobs "$run-jobs" \
    --results "$run-results" --dead-letters "$run-dead" --create-topics 2 --model summer2winter --backend eager \
    --input-root /data/photos --output-root /data/queue --metrics-port 9108 >/dev/null
  until pod exec worker python -c 'import urllib.request as u; u.urlopen("http://127.0.0.1:9108/readyz")' 2>/dev/null; do
    [ "$(pod inspect --format '{{.State.Running}}' worker)" = true ] || { pod logs worker; exit 1; }
    sleep 1
  done
  pod healthcheck run worker && echo "health check passed"
  container solstice:cpu submit /data/photos --brokers "$BROKERS" --jobs "$run-jobs"
  container solstice:cpu results --brokers "$BROKERS" --results "$run-results" --expect 8 --timeout 120
  converted "$work/data/queue"
  pod kill --signal TERM worker >/dev/null
  [ "$(pod wait worker)" = 0 ] || { pod logs worker; exit 1; }
  echo "the worker drained with exit code 0"
  pod rm worker >/dev/null
fi

build compiler solstice:cpu-compiler "$@"
say "compiler: compile a model into the cache"
container solstice:cpu-compiler compile summer2winter --sizes 256
say "runtime: translate the samples with the compiled package"
container solstice:cpu convert /data/photos /data/compiled --model summer2winter --size 256 | tee "$work/compiled.log"
grep -q '(inductor' "$work/compiled.log" || { echo "the compiled package was not used"; exit 1; }
converted "$work/data/compiled"
pod images
pod rmi --force solstice:cpu-compiler solstice:cpu >/dev/null
pod image prune --force >/dev/null

build runtime solstice:cpu-ray --build-arg RAY=1 "$@"
pod images solstice
say "Ray: translate the samples by an actor on a cluster of this machine"
container --shm-size 512m --env RAY_USAGE_STATS_ENABLED=0 solstice:cpu-ray convert /data/photos /data/ray \
  --model summer2winter --size 256 --backend eager --on ray
converted "$work/data/ray"
say "disk used under $work"
du -sh "$work"
