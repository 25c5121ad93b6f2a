#!/bin/sh
# Make the folder of Kubernetes binaries that try-cluster.sh takes, from Debian's packages alone.
#
#   sh deploy/cluster-binaries.sh DIR      # needs apt, 2 GB of disk and 15 minutes on 2 cores
#
# Debian has one source package that contains a whole Kubernetes: 1.20.2, in bookworm. Later ones contain kubectl only. It is
# compiled with Go 1.15 from bullseye: compiled with 1.18 or newer, its JSON library crashes, and so does bookworm's kubectl.
# etcd and containerd are bookworm's binary packages, kubectl is trixie's. Nothing is installed on this machine.
#
# Environment:
#   MIRROR  Debian mirror
#   WORK    folder for packages and objects, which stays; by default a new one, removed at the end
set -eu
refuse() { echo "cluster-binaries: $*" >&2; exit 2; }
case ${1:-} in
  '' | -*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
for tool in apt-get dpkg-deb; do
  command -v $tool >/dev/null || refuse "$tool is missing: run this on a Debian or in a container of one."
done
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r $keys ] || refuse "$keys is missing: apt-get install debian-archive-keyring."
mkdir -p "$1"
binaries=$(cd "$1" && pwd)
work=${WORK:-$(mktemp -d /var/tmp/solstice-binaries.XXXXXX)}
mkdir -p "$work"
finish() {
  code=$?
  trap - EXIT
  [ -n "${WORK:-}" ] || rm -rf --one-file-system "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$work"

# Packages come from an apt of their own, with its own lists, beside the machine's.
mkdir -p apt/lists/partial apt/cache/archives/partial debs root
touch apt/status
mirror=${MIRROR:-http://deb.debian.org/debian}
for suite in bookworm bullseye trixie; do
  printf 'deb [signed-by=%s] %s %s main\ndeb-src [signed-by=%s] %s %s main\n' $keys "$mirror" $suite $keys "$mirror" $suite
done >apt/sources.list
cat >apt/apt.conf <<CONF
Dir::State::lists "$work/apt/lists";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt/cache";
Dir::Etc::sourcelist "$work/apt/sources.list";
Dir::Etc::sourceparts "/nonexistent";
Acquire::Languages "none";
APT::Sandbox::User "";
CONF
export APT_CONFIG="$work/apt/apt.conf"
apt-get update --quiet=2
(
  cd debs
  apt-get download --quiet=2 etcd-server/bookworm containerd/bookworm kubectl/trixie golang-1.15-go golang-1.15-src
  apt-get source --quiet=2 --download-only kubernetes/bookworm
)
for package in debs/*.deb; do dpkg-deb -x "$package" root; done
for tool in etcd kubectl containerd containerd-shim-runc-v2 ctr; do cp "root/usr/bin/$tool" "$binaries/"; done

# The source where Go of that time expects it.
export GOROOT="$work/root/usr/lib/go-1.15" GOPATH="$work/gopath" GOCACHE="$work/objects" GOTMPDIR="$work/temporary"
export GO111MODULE=off GOPROXY=off GOFLAGS='' CGO_ENABLED=0 PATH="$work/root/usr/lib/go-1.15/bin:$PATH"
source=$GOPATH/src/k8s.io/kubernetes
mkdir -p "$source" "$GOTMPDIR"
tar -xzf debs/kubernetes_1.20*.orig.tar.gz -C "$source" --strip-components=1
cd "$source"
# The one generated file that the source leaves out: the schemas that the API server publishes.
folders=$(find -L pkg cmd vendor/k8s.io -path vendor/k8s.io/code-generator -prune -o -path vendor/k8s.io/sample-apiserver -prune \
  -o -name '*.go' -exec grep -l '+k8s:openapi-gen=' {} + | sed 's|/[^/]*$||; s|^|k8s.io/kubernetes/|' | LC_ALL=C sort -u | paste -s -d,)
go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
"$work/openapi-gen" --logtostderr -i "$folders" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
  -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations"
# No cloud providers and no dockershim, which are half of the code.
set_version=
for package in k8s.io/component-base/version k8s.io/kubernetes/vendor/k8s.io/component-base/version; do
  set_version="$set_version -X $package.gitVersion=v1.20.2 -X $package.gitMajor=1 -X $package.gitMinor=20"
done
go build -p "$(nproc)" -tags providerless,dockerless -ldflags "-s -w$set_version" -o "$binaries/" \
  ./cmd/kube-apiserver ./cmd/kube-controller-manager ./cmd/kube-scheduler ./cmd/kubelet
ls -l "$binaries"
