#!/usr/bin/env bash
# On the control plane's machine, when every machine has joined: the mesh is applied and tried.
set -euo pipefail
cd /ambient
export KUBECONFIG=/etc/kubernetes/admin.conf

kubectl wait --for=condition=Ready node --all --timeout=300s
kubectl apply --server-side -f daemonset.yaml
hack/smoke.sh
