#!/usr/bin/env bash
# On the control plane's machine, when every machine has joined: the mesh is applied and tried.
set -euo pipefail
cd /ambient
export KUBECONFIG=/etc/kubernetes/admin.conf

kubectl wait --for=condition=Ready node --all --timeout=300s
kubectl apply --server-side -f daemonset.yaml
# Of an older image of the same name, perhaps: what was changed since is not in the file.
kubectl -n ambient-system rollout restart deployment/ambient-control daemonset/ambient-engine daemonset/ambient-agent
hack/smoke.sh
