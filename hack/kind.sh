#!/usr/bin/env bash
# `make kind`: a cluster of kind with the mesh in it, tried by the smoke test. Needs docker, kind and kubectl.
#   hack/kind.sh             make it, or renew the mesh in it
#   hack/kind.sh down        remove it
set -euo pipefail
cd "$(dirname "$0")/.."
cluster=ambient # as hack/kind.yaml calls it

for program in docker kind kubectl; do
  command -v $program >/dev/null || {
    echo "make kind: there is no $program; docs/install.md says what is needed" >&2
    exit 1
  }
done
if [ "${1:-}" = down ]; then exec kind delete cluster --name $cluster; fi

if ! kind get clusters | grep -qx $cluster; then
  kind create cluster --config hack/kind.yaml --wait 120s
fi
kubectl config use-context kind-$cluster >/dev/null
# A container's /sys has no bpffs of its own, and what is pinned on a node must outlive the agent's pod.
for node in $(kind get nodes --name $cluster); do
  docker exec "$node" sh -c 'mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf'
done

image=$(hack/image/reference.sh)
docker build -q -t "$image" .
kind load docker-image --name $cluster "$image"
kubectl apply --server-side -f daemonset.yaml
# of an older image, perhaps
kubectl -n ambient-system rollout restart deployment/ambient-control daemonset/ambient-engine daemonset/ambient-agent
hack/smoke.sh
echo "The cluster is there: kubectl --context kind-$cluster get pods -A; remove it with: hack/kind.sh down"
