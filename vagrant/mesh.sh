#!/usr/bin/env bash
# On the control plane's machine, when every machine has joined: the mesh is applied and tried.
set -euo pipefail
cd /ambient
export KUBECONFIG=/etc/kubernetes/admin.conf

kubectl wait --for=condition=Ready node --all --timeout=300s
sed 's|image: ambient:latest|image: localhost/ambient:dev|' daemonset.yaml | kubectl apply --server-side -f -
hack/smoke.sh
