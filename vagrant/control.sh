#!/usr/bin/env bash
# The control plane's machine: Kubernetes is begun, the mesh's image built and offered to the other machines.
#   PREFIX of the machines' network, HOSTS their last octets, INDEX which of them this is
set -euo pipefail
: "${PREFIX:?}" "${HOSTS:?}" "${INDEX:?}"
read -ra hosts <<<"$HOSTS"
here=$PREFIX.${hosts[$INDEX]}
offered=/var/lib/ambient-offered # to whoever is on the machines' own network: how to join, and the image
export KUBECONFIG=/etc/kubernetes/admin.conf

if [ ! -f $KUBECONFIG ]; then
  kubeadm init --apiserver-advertise-address="$here" --skip-token-print >/dev/null
fi
mkdir -p ~vagrant/.kube $offered
install -o vagrant -g vagrant -m 0600 $KUBECONFIG ~vagrant/.kube/config

apt-get install -y -qq --no-install-recommends buildah golang-github-containers-common mmdebstrap >/dev/null
(cd /ambient && hack/image/build.sh ambient Dockerfile . "$(hack/image/reference.sh)")
cp /ambient/build/image/ambient.tar $offered/
ctr -n k8s.io images import $offered/ambient.tar >/dev/null
(umask 077 && kubeadm token create --print-join-command >$offered/join.sh)
cat >/etc/systemd/system/ambient-offered.service <<CONF
[Service]
ExecStart=/usr/bin/python3 -m http.server 8099 --bind $here --directory $offered
[Install]
WantedBy=multi-user.target
CONF
systemctl daemon-reload
systemctl enable -q --now ambient-offered.service
