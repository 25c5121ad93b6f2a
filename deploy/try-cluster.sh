#!/bin/sh
# Run the Helm chart in a real Kubernetes of one node on this machine: no registry, no service of this machine is touched.
#
#   sudo sh deploy/try-cluster.sh --binaries DIR [--image FILE] [--min-free GB]
#
# etcd, the control plane, kubelet and containerd run in namespaces of their own (processes, mounts, network), so that
# nothing of them is left when the script ends. Pods have their own network behind a bridge that ends there. The Kafka
# broker is noida-db, from this project's test tools.
#
# --binaries DIR  folder with etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kubectl, containerd,
#                 containerd-shim-runc-v2 and ctr; `deploy/cluster-binaries.sh DIR` makes one from Debian's packages
# --image FILE    image that compiles and runs models, from `deploy/try-image.sh --save FILE`; without it, that is run first
# --min-free GB   stop before a step when less than this is free on the disk (default: 10)
#
# Environment:
#   WORK           folder for all storage, which stays; by default a new one, removed at the end
#   WHEELS, TORCH_INDEX, MIRROR   as in try-image.sh
set -eu
cd "$(dirname "$0")/.."
refuse() { echo "try-cluster: $*" >&2; exit 2; }
min_free=10 binaries='' image=''
while [ $# -gt 0 ]; do
  case $1 in
    --binaries) binaries=${2:-}; shift $(($# > 1 ? 2 : 1)) ;;
    --image) image=${2:-}; shift $(($# > 1 ? 2 : 1)) ;;
    --min-free) min_free=${2:-}; shift $(($# > 1 ? 2 : 1)) ;;
    --help | -h) sed -n '2,/^set/s/^# \{0,1\}//p' deploy/try-cluster.sh; exit ;;
    *) refuse "$1 is not an option: see --help." ;;
  esac
done
case $min_free in '' | *[!0-9]*) refuse "--min-free takes a whole number of gigabytes, such as 10." ;; esac
[ -d "$binaries" ] || refuse "--binaries takes the folder of the Kubernetes binaries: sh deploy/cluster-binaries.sh DIR makes one."
binaries=$(cd "$binaries" && pwd)
for tool in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl containerd containerd-shim-runc-v2 ctr; do
  [ -x "$binaries/$tool" ] || refuse "$binaries has no $tool: sh deploy/cluster-binaries.sh $binaries makes it."
done
for tool in unshare ip iptables openssl curl runc helm noida-db; do
  command -v $tool >/dev/null || refuse "$tool is missing: apt-get install util-linux iproute2 iptables openssl curl runc; make test brings the others."
done
plugins=/usr/lib/cni
[ -x $plugins/bridge ] || plugins=/opt/cni/bin
[ -x $plugins/bridge ] || refuse "the network plugins are missing: apt-get install containernetworking-plugins."
busybox=$(command -v busybox) && [ -x "$busybox" ] || refuse "busybox is missing: apt-get install busybox-static."
[ -z "$image" ] || [ -f "$image" ] || refuse "$image is not a file: sh deploy/try-image.sh --save $image makes it."
[ "$(id -u)" = 0 ] || refuse "namespaces and mounts need root: sudo sh deploy/try-cluster.sh"

cgroup=solstice-cluster
if [ -z "${SOLSTICE_TRY_CLUSTER:-}" ]; then
  # The outer call: storage, image, and namespaces that end with the inner call.
  [ -d /sys/fs/cgroup/memory ] || echo "try-cluster: has been tried with cgroup v1 only; this machine has v2" >&2
  [ ! -e "${WORK:-/nowhere}/etcd" ] || refuse "$WORK holds an earlier cluster: remove the folder or name another."
  work=${WORK:-$(mktemp -d /var/tmp/solstice-cluster.XXXXXX)}
  mkdir -p "$work"
  # shellcheck disable=SC2329
  finish() {
    code=$?
    trap - EXIT
    [ -z "${inner:-}" ] || kill -KILL "$inner" 2>/dev/null || :
    wait || :
    find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} + 2>/dev/null || :
    [ -n "${WORK:-}" ] || rm -rf --one-file-system "$work"
    exit "$code"
  }
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if [ -z "$image" ]; then
    image=$work/solstice.tar
    WORK=$work/image sh deploy/try-image.sh --min-free "$min_free" --save "$image"
    rm -rf --one-file-system "$work/image"
  fi
  SOLSTICE_TRY_CLUSTER=1 WORK=$work unshare --mount --propagation private --pid --fork --kill-child --mount-proc --net --uts \
    sh deploy/try-cluster.sh --binaries "$binaries" --image "$image" --min-free "$min_free" &
  inner=$!
  wait "$inner" && code=0 || code=$?
  inner=
  exit "$code"
fi

# The inner call: all that follows is alone with its processes, mounts and network.
work=$WORK
: >"$work/admin.conf"
export PATH="$binaries:$PATH" KUBECONFIG="$work/admin.conf" HOME="$work"
unset SOLSTICE_TRY_CLUSTER WORK
gateway=10.88.0.1
logs=$work/logs
failed() {
  code=$?
  [ $code -eq 0 ] || {
    kubectl get pods --all-namespaces --output wide || :
    kubectl describe pods 2>/dev/null | tail -40 || :
    tail -n 5 "$logs"/*.log || :
  } >&2
  exit "$code"
}
trap failed EXIT
say() {
  printf '\n== %s\n' "$*"
  free=$(df -P -k "$work" | awk 'NR == 2 {print int($4 / 1024 / 1024)}')
  [ "$free" -ge "$min_free" ] ||
    refuse "$free GB are free under $work and --min-free asks for $min_free: set WORK to a folder on a larger disk, or lower --min-free."
}
# within SECONDS COMMAND...: repeat until it succeeds.
within() {
  seconds=$1
  shift
  until "$@" >"$work/within" 2>&1; do
    seconds=$((seconds - 1))
    [ $seconds -gt 0 ] || { cat "$work/within" >&2; echo "try-cluster: not in time: $*" >&2; return 1; }
    sleep 1
  done
}
# daemon NAME COMMAND...: start in the background.
daemon() {
  name=$1
  shift
  "$@" >"$logs/$name.log" 2>&1 &
}

say "node: network, mounts, certificates"
mkdir -p "$logs" "$work/lib" "$work/lib-work" "$work/pod-logs" "$work/tls" "$work/volumes" "$work/photos"
hostname node
mount -t tmpfs tmpfs /run
mount -t overlay overlay -o "lowerdir=/var/lib,upperdir=$work/lib,workdir=$work/lib-work" /var/lib
mount --bind "$work/pod-logs" /var/log
# The values that kubelet asks for, seen by itself only, so that it does not set those of the machine.
tunable() {
  echo "$2" >"$work/tls/tunable"
  cp "$work/tls/tunable" "$work/$(basename "$1")"
  mount --bind "$work/$(basename "$1")" "/proc/sys/$1"
}
tunable vm/overcommit_memory 1
tunable vm/panic_on_oom 0
tunable kernel/panic 10
tunable kernel/panic_on_oops 1
tunable kernel/keys/root_maxkeys 1000000
tunable kernel/keys/root_maxbytes 25000000
ip link set lo up
ip link add cni0 type bridge
ip address add $gateway/16 dev cni0
ip link set cni0 up
ip route add default dev cni0
for hierarchy in /sys/fs/cgroup/*/; do
  [ ! -e "$hierarchy/tasks" ] || mkdir -p "$hierarchy/$cgroup"
done
for file in cpuset.cpus cpuset.mems; do
  [ ! -e /sys/fs/cgroup/cpuset/$file ] || cat /sys/fs/cgroup/cpuset/$file >/sys/fs/cgroup/cpuset/$cgroup/$file
done
cd "$work/tls"
{
  openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=try-cluster -days 2
  openssl genrsa -out account.key 2048
  printf 'subjectAltName=IP:127.0.0.1,IP:%s,IP:10.96.0.1,DNS:kubernetes.default.svc\n' $gateway >server.ext
  openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=kube-apiserver
  openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile server.ext
  openssl req -newkey rsa:2048 -nodes -keyout admin.key -out admin.csr -subj /O=system:masters/CN=admin
  openssl x509 -req -in admin.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out admin.crt -days 2
} >"$logs/openssl.log" 2>&1
cd "$OLDPWD"
tls=$work/tls
kubectl config set-cluster here --server=https://127.0.0.1:6443 --certificate-authority="$tls/ca.crt" --embed-certs >/dev/null
kubectl config set-credentials admin --client-certificate="$tls/admin.crt" --client-key="$tls/admin.key" --embed-certs >/dev/null
kubectl config set-context here --cluster=here --user=admin >/dev/null
kubectl config use-context here >/dev/null

say "control plane: $(kube-apiserver --version), $(etcd --version | head -n 1)"
daemon etcd etcd --data-dir "$work/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
daemon kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address=$gateway --secure-port=6443 \
  --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC --allow-privileged=false --client-ca-file="$tls/ca.crt" \
  --tls-cert-file="$tls/server.crt" --tls-private-key-file="$tls/server.key" --kubelet-client-certificate="$tls/admin.crt" \
  --kubelet-client-key="$tls/admin.key" --kubelet-preferred-address-types=InternalIP --service-account-issuer=https://kubernetes.default.svc \
  --service-account-key-file="$tls/account.key" --service-account-signing-key-file="$tls/account.key"
within 120 kubectl get --raw /readyz
daemon kube-controller-manager kube-controller-manager --kubeconfig="$KUBECONFIG" --leader-elect=false --root-ca-file="$tls/ca.crt" \
  --service-account-private-key-file="$tls/account.key" --flex-volume-plugin-dir="$work/kubelet/plugins"
daemon kube-scheduler kube-scheduler --kubeconfig="$KUBECONFIG" --leader-elect=false

say "node: $(containerd --version)"
mkdir -p "$work/cni"
cat >"$work/cni/10-bridge.conflist" <<CNI
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local", "dataDir": "$work/addresses",
    "ranges": [[{"subnet": "10.88.0.0/16", "gateway": "$gateway"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "loopback"}]}
CNI
cat >"$work/containerd.toml" <<TOML
version = 2
root = "$work/containerd"
state = "/run/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Root may lack the right to lower this value, as in a virtual machine.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$plugins"
    conf_dir = "$work/cni"
TOML
daemon containerd containerd --config "$work/containerd.toml"
within 60 ctr version
# What holds a pod's namespaces: an image of one static program.
mkdir -p "$work/pause"
cp "$busybox" "$work/pause/busybox"
tar -C "$work/pause" -cf "$work/pause/layer.tar" busybox
printf '{"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/busybox", "sleep", "infinity"]},
  "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' "$(sha256sum <"$work/pause/layer.tar" | cut -c-64)" >"$work/pause/config.json"
echo '[{"Config": "config.json", "RepoTags": ["localhost/pause:1"], "Layers": ["layer.tar"]}]' >"$work/pause/manifest.json"
tar -C "$work/pause" -cf "$work/pause.tar" manifest.json config.json layer.tar
ctr --namespace k8s.io images import "$work/pause.tar"
ctr --namespace k8s.io images import "$image"
cat >"$work/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {x509: {clientCAFile: $tls/ca.crt}, anonymous: {enabled: false}}
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
protectKernelDefaults: true
failSwapOn: false
# The disk is shared with others, and images cannot be pulled again.
evictionHard: {memory.available: 100Mi, nodefs.available: 1%}
imageGCHighThresholdPercent: 100
YAML
runtime=--container-runtime-endpoint=unix:///run/containerd/containerd.sock
# Up to 1.26 the runtime that has an endpoint is one of two kinds.
! kubelet --help | grep -q -- '--container-runtime string' || runtime="--container-runtime=remote $runtime"
# shellcheck disable=SC2086
daemon kubelet kubelet --kubeconfig="$KUBECONFIG" --config="$work/kubelet.yaml" --root-dir="$work/kubelet" --cert-dir="$work/kubelet/pki" \
  --volume-plugin-dir="$work/kubelet/plugins" --hostname-override=node --node-ip=$gateway $runtime
within 120 kubectl wait --for=condition=Ready node/node --timeout=1s
kubectl get node node --output wide

say "broker and volumes"
start_broker() {
  daemon broker setsid noida-db start --only kafka --kafka-port 9092 --host $gateway --data-dir "$work/broker"
  broker=$!
}
start_broker
kubectl apply --filename - >/dev/null <<YAML
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
YAML
for volume in 0 1 2 3; do
  mkdir -p "$work/volumes/$volume"
  # A local volume belongs to root, and gets the pod's group from kubelet, as a volume of a storage driver does.
  kubectl apply --filename - >/dev/null <<YAML
apiVersion: v1
kind: PersistentVolume
metadata: {name: local-$volume}
spec:
  capacity: {storage: 5Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: local
  persistentVolumeReclaimPolicy: Retain
  local: {path: "$work/volumes/$volume"}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node]}]}]}}
YAML
done

chart=$work/chart
cp -RL deploy/helm/solstice "$chart"
minor=$(kube-apiserver --version | sed 's/^Kubernetes v1[.]\([0-9]*\)[.].*/\1/')
if [ "$minor" -lt 29 ]; then
  say "chart: without what Kubernetes 1.$minor has not"
  sed -i '/^kubeVersion:/d' "$chart/Chart.yaml"
  sed -i 's|^apiVersion: policy/v1$|apiVersion: policy/v1beta1|' "$chart/templates/poddisruptionbudget.yaml"
  sed -i '/^  podFailurePolicy:/,/onExitCodes/d' "$chart/templates/convert-job.yaml"
  sed -i '/persistentVolumeClaimRetentionPolicy:/d' "$chart/templates/statefulset.yaml"
  diff -r deploy/helm/solstice "$chart" || :
fi

mkdir -p "$work/photos/in" "$work/photos/more"
cp samples/*.jpg "$work/photos/in"
for copy in 1 2 3 4; do
  for photo in samples/*.jpg; do cp "$photo" "$work/photos/more/$copy-$(basename "$photo")"; done
done
chown -R 10001 "$work/photos"
cat >"$work/values.yaml" <<YAML
image: {repository: localhost/solstice, tag: cpu-compiler, pullPolicy: Never}
kafka: {brokers: "$gateway:9092", createTopics: 4}
worker: {inputRoots: [/data/in, /data/more], outputRoot: /data/done, size: "64"}
compile: {sizes: "64"}
cache: {storageClass: local}
volumes: [{name: photos, hostPath: {path: $work/photos}}]
volumeMounts: [{name: photos, mountPath: /data}]
resources: {requests: {cpu: 100m, memory: 512Mi}, limits: {memory: 4Gi}}
networkPolicy: {enabled: true}
monitoring: {dashboard: true}
YAML
inside() {
  pod=$1
  shift
  kubectl exec "$pod" --container worker -- "$@"
}
state() { kubectl get pod "$1" --output "jsonpath={$2}"; }
is() { [ "$(state "$1" "$2")" = "$3" ]; }
ready='.status.conditions[?(@.type=="Ready")].status'
restarts='.status.containerStatuses[0].restartCount'
pods() { kubectl get pods --selector app.kubernetes.io/instance=seasons --output "jsonpath={.items[*]$1}"; }
assigned() { kubectl logs "$1" --container worker | grep -o 'Assigned partitions \[[0-9, ]*\]' | tail -n 1; }
# Both workers have the partitions that they had.
kept() { [ "$(assigned seasons-0)" = "$had" ] && [ "$(assigned seasons-1)" = "$others" ]; }
rolled_out() { kubectl rollout status statefulset/seasons --timeout="$1"; }
signal() {
  container=$(state "$1" '.status.containerStatuses[0].containerID')
  ctr --namespace k8s.io task kill --signal "$2" "${container#containerd://}"
}
test_gone() { found=$(kubectl get pod "$@" --ignore-not-found --output name) && [ -z "$found" ]; }
containers() { pods '.status.containerStatuses[0].containerID' | sed 's|containerd://||g'; }
# ended_with_0 CONTAINER...: containerd leaves out an exit status of 0.
ended_with_0() {
  for container in "$@"; do
    event=$(grep ' /tasks/exit ' "$work/events" | grep "\"id\":\"$container\"") || { echo "$container has not ended"; return 1; }
    case $event in *'"exit_status"'*) echo "$event"; return 1 ;; esac
  done
  echo "$# containers ended with exit code 0"
}
# translated COUNT FOLDER
translated() {
  count=$(find "$2" -name '*.jpg' | wc -l)
  [ "$count" -eq "$1" ] || { echo "$2 has $count of $1 results"; return 1; }
}

say "install: two workers, each compiles its model into its volume"
helm install seasons "$chart" --values "$work/values.yaml"
rolled_out 900s
kubectl get statefulset,pods,pvc,pdb,service,networkpolicy,configmap --output wide
inside seasons-0 id
inside seasons-0 ls -ld /cache /cache/solstice /tmp
before=$(pods .metadata.uid)
helm upgrade seasons "$chart" --values "$work/values.yaml" >/dev/null
rolled_out 60s
[ "$(pods .metadata.uid)" = "$before" ] || { echo "the same values replaced pods"; exit 1; }
helm get manifest seasons >"$work/manifest.yaml"
kubectl diff --filename "$work/manifest.yaml"
echo "the same values change nothing"

say "jobs: 8 photos"
inside seasons-0 solstice submit /data/in --brokers "$gateway:9092" --jobs jobs
inside seasons-0 solstice results --brokers "$gateway:9092" --results results --expect 8 --timeout 300
translated 8 "$work/photos/done"
inside seasons-0 sh -c 'ls -l /cache/solstice/packages' | head -5
kubectl logs seasons-0 --container compile-0 | tail -n 2

say "SIGKILL: the container starts again under its name, with its partitions"
for pod in seasons-0 seasons-1; do echo "$pod: $(assigned $pod)"; done
had=$(assigned seasons-0) others=$(assigned seasons-1)
signal seasons-0 SIGKILL
within 60 is seasons-0 "$restarts" 1
within 120 is seasons-0 "$ready" True
is seasons-0 '.status.containerStatuses[0].lastState.terminated.exitCode' 137
sleep 5  # a rebalance may follow
within 60 kept

say "the pod is deleted by force: it comes back under its name, with its volume and its partitions"
kubectl delete pod seasons-0 --force --grace-period=0 2>/dev/null
rolled_out 300s
sleep 5
within 60 kept
inside seasons-0 solstice submit /data/in --again --brokers "$gateway:9092" --jobs jobs

say "liveness: a worker that stands still is started again"
was=$(state seasons-1 "$restarts")
signal seasons-1 SIGSTOP
within 60 is seasons-1 "$ready" False
within 180 is seasons-1 "$restarts" $((was + 1))
within 120 is seasons-1 "$ready" True
kubectl get events --field-selector involvedObject.name=seasons-1,reason=Killing --output 'jsonpath={.items[-1:].message}{"\n"}'

say "readiness: without its broker a worker is not ready, and is not started again"
was=$(pods "$restarts")
kill -KILL -"$broker"
within 180 is seasons-0 "$ready" False
within 180 is seasons-1 "$ready" False
# The command in the chart's notes.
eval "$(helm get notes seasons | sed -n 's/^Why one is not ready: *//p')"
start_broker
within 300 is seasons-0 "$ready" True
within 300 is seasons-1 "$ready" True
[ "$(pods "$restarts")" = "$was" ] || { echo "restarts: $was before, now $(pods "$restarts")"; exit 1; }

say "rolling update with jobs in progress: each worker drains and ends with exit code 0"
ctr --namespace k8s.io events >"$work/events" &
watch=$!
before=$(containers)
inside seasons-0 solstice submit /data/more --brokers "$gateway:9092" --jobs jobs
helm upgrade seasons "$chart" --values "$work/values.yaml" --set-json worker.maxWaitS=0.1 >/dev/null
rolled_out 600s
inside seasons-0 solstice results --brokers "$gateway:9092" --results results --expect 40 --timeout 300
translated 40 "$work/photos/done"
# shellcheck disable=SC2086
ended_with_0 $before
before=$(containers)
helm rollback seasons >/dev/null
rolled_out 600s
# shellcheck disable=SC2086
ended_with_0 $before
kill "$watch"

say "drain: the disruption budget keeps one of two workers"
if kubectl drain node --ignore-daemonsets --delete-emptydir-data --timeout=30s >"$work/drain" 2>&1; then
  echo "both workers were evicted"
  exit 1
fi
grep "disruption budget" "$work/drain" | tail -n 1
echo "$(pods .metadata.name): $(pods .status.phase)"
[ "$(pods .status.phase | tr ' ' '\n' | grep -c Running)" = 1 ] || { echo "not one worker is left"; exit 1; }
kubectl uncordon node
rolled_out 300s

say "scale: down and up again"
kubectl scale statefulset seasons --replicas=1
within 120 test_gone seasons-1
kubectl scale statefulset seasons --replicas=2
rolled_out 300s

say "a wrong setting: its sentence is in the pod's state"
helm install wrong "$chart" --values "$work/values.yaml" --set-json 'worker.models=["nowhere"]' --set replicas=1,cache.persistent=false >/dev/null
sentence() { kubectl get pod wrong-0 --output 'jsonpath={.status.initContainerStatuses[0]..message}' | grep -F 'solstice: '; }
within 180 sentence
sentence
helm uninstall wrong

say "convert: one job for an archive"
cat >"$work/convert.yaml" <<YAML
replicas: 0
compile: {enabled: false}
cache: {persistent: false}
podDisruptionBudget: {enabled: false}
convertJob: {enabled: true, source: /data/in, destination: /data/archive, args: [--size, "64", --backend, eager]}
YAML
helm install archive "$chart" --values "$work/values.yaml" --values "$work/convert.yaml" >/dev/null
kubectl wait --for=condition=Complete job/archive-convert --timeout=600s
kubectl logs job/archive-convert | tail -n 2
translated 8 "$work/photos/archive"
helm uninstall archive

say "every file of helm/values: the API server takes the objects, but for those of operators"
for values in deploy/helm/values/*.yaml; do
  helm template rel "$chart" --values "$values" |
    awk 'BEGIN {RS = "(^|\n)---\n"} NF && !/\napiVersion: (keda.sh|monitoring.coreos.com|ray.io)/ {printf "---\n%s\n", $0}' |
    kubectl apply --server-side --dry-run=server --filename - | sed "s|^|$(basename "$values" .yaml): |"
done

say "uninstall"
helm uninstall seasons
within 120 test_gone seasons-0 seasons-1
kubectl get all,pdb,networkpolicy,configmap,pvc
say "disk used under $work"
du -sh "$work" 2>/dev/null
