#!/usr/bin/env bash
# Does the mesh of a cluster work? Installed and idle before, the same after; takes about a minute.
#   hack/smoke.sh            of the cluster that kubectl talks to
# KUBECTL says how to call kubectl. With AMBIENT (how to call the CLI) it ends with `ambient verify`. Its pods run a few
# lines of the Python in the mesh's own image, which every node has.
set -euo pipefail
read -ra kubectl <<<"${KUBECTL:-kubectl}"
read -ra ambient <<<"${AMBIENT:-}"
mesh=ambient-system inside=ambient-smoke outside=ambient-smoke-outside

k() { "${kubectl[@]}" "$@"; }
step() { echo "smoke: $*"; }
fail() {
  echo "smoke: FAILED: $*" >&2
  exit 1
}
# $1: seconds; then a command that is to succeed at last
eventually() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 1
  done
}
away() { k delete namespace "$inside" "$outside" --ignore-not-found >/dev/null; }
trap away EXIT

step "every part of the mesh runs"
nodes=$(k get nodes -o name | wc -l)
k -n $mesh rollout status deployment/ambient-control --timeout=180s >/dev/null || fail "the control plane is not there"
k -n $mesh rollout status daemonset/ambient-agent --timeout=180s >/dev/null || fail "not every agent is there"
k -n $mesh wait --for=jsonpath='{.status.numberReady}'="$nodes" daemonset/ambient-engine --timeout=180s >/dev/null ||
  fail "not every one of $nodes nodes has an engine"
image=$(k -n $mesh get daemonset ambient-agent -o jsonpath='{.spec.template.spec.containers[0].image}')

step "two servers on two nodes where there are two, a client, and a stranger outside the mesh"
away
k create namespace $inside >/dev/null
k create namespace $outside >/dev/null
pod() { # NAMESPACE NAME LABEL
  cat <<YAML
---
apiVersion: v1
kind: Pod
metadata: {namespace: $1, name: $2, labels: {app: $3}}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector: {matchLabels: {app: $3}}
  containers:
    - name: main
      image: $image
      imagePullPolicy: IfNotPresent
      command: [python, -m, http.server, "8080", --directory, /opt/ambient/bin]
      readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 2}
      securityContext: {runAsNonRoot: true, runAsUser: 65532, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
YAML
}
{
  pod $inside web-1 web
  pod $inside web-2 web
  pod $inside client client
  pod $outside stranger stranger
  cat <<YAML
---
apiVersion: v1
kind: Service
metadata: {namespace: $inside, name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
YAML
} | k apply -f - >/dev/null
k -n $inside wait --for=condition=Ready pod --all --timeout=120s >/dev/null || fail "the test's pods do not start"
k -n $outside wait --for=condition=Ready pod --all --timeout=120s >/dev/null || fail "the test's pods do not start"

fetch="import sys, urllib.request as r; print(r.urlopen('http://' + sys.argv[1], timeout=5).status)"
ask() { k -n "$1" exec "$2" -- python -c "$fetch" "web.$inside.svc.cluster.local" >/dev/null 2>&1; }
eventually 30 ask $inside client || fail "the client is not answered before the mesh: the cluster's own network is not well"
eventually 30 ask $outside stranger || fail "the stranger is not answered before the mesh"

step "a label, and running pods are captured"
k label namespace $inside ambient.dev/mode=enabled >/dev/null
captured() {
  [ "$(k -n $inside get pods -o jsonpath='{.items[*].metadata.annotations.ambient\.dev/captured}')" = "true true true" ]
}
eventually 60 captured || fail "not every pod bears ambient.dev/captured: kubectl -n $inside describe pods"
eventually 10 ask $inside client || fail "the client is not answered in the mesh"

step "mutual TLS only: the client is answered, the stranger is not"
k apply -f - >/dev/null <<YAML
apiVersion: ambient.dev/v1alpha1
kind: PeerAuthentication
metadata: {namespace: $inside, name: strict}
spec: {mtls: {mode: STRICT}}
YAML
refused() { ! ask $outside stranger; }
eventually 30 refused || fail "the stranger is still answered in plaintext"
for _ in 1 2 3 4 5 6; do ask $inside client || fail "the client is not answered under STRICT"; done
recorded() {
  local records
  records=$(k -n $mesh logs -l app.kubernetes.io/name=ambient-agent --tail=-1 --since=2m |
    grep "\"destination_workload_namespace\":\"$inside\"")
  [[ $records == *'"connection_security_policy":"mutual_tls"'* ]]
}
eventually 20 recorded || fail "no agent recorded a connection with mutual TLS"

step "a policy refuses by name, and says that it is in force"
k apply -f - >/dev/null <<YAML
apiVersion: ambient.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {namespace: $inside, name: nobody}
spec: {selector: {matchLabels: {app: web}}}
YAML
k -n $inside wait --for=condition=Accepted authorizationpolicies.ambient.dev/nobody --timeout=30s >/dev/null ||
  fail "the control plane does not say Accepted"
unanswered() { ! ask $inside client; }
eventually 30 unanswered || fail "an AuthorizationPolicy that allows nobody refuses nobody"
k -n $inside delete authorizationpolicies.ambient.dev/nobody >/dev/null
eventually 30 ask $inside client || fail "the client is not answered after the policy is gone"

if [ ${#ambient[@]} -gt 0 ]; then
  step "ambient verify proves it"
  AMBIENT_KUBECTL="${kubectl[*]}" "${ambient[@]}" verify $inside --cluster || fail "mutual TLS is not proven"
fi
step "all is well"
