#!/usr/bin/env bash
# What every machine of the cluster has: containerd, kubelet, kubeadm, kubectl.
#   PREFIX of the machines' network, HOSTS their last octets, INDEX which of them this is
set -euo pipefail
: "${PREFIX:?}" "${HOSTS:?}" "${INDEX:?}"
read -ra hosts <<<"$HOSTS"
version=v1.34 # of Kubernetes
packages=https://pkgs.k8s.io/core:/stable:/$version/deb
export DEBIAN_FRONTEND=noninteractive

apt-get install -y -qq --no-install-recommends ca-certificates containerd curl gpg >/dev/null
mkdir -p /etc/containerd
containerd config default |
  sed -e 's/SystemdCgroup = false/SystemdCgroup = true/' -e 's|bin_dir = .*|bin_dir = "/opt/cni/bin"|' \
    >/etc/containerd/config.toml
systemctl restart containerd

if [ ! -f /etc/apt/keyrings/kubernetes.gpg ]; then
  mkdir -p /etc/apt/keyrings
  curl -fsSL $packages/Release.key | gpg --dearmor -o /etc/apt/keyrings/kubernetes.gpg
fi
echo "deb [signed-by=/etc/apt/keyrings/kubernetes.gpg] $packages/ /" >/etc/apt/sources.list.d/kubernetes.list
apt-get update -qq
apt-get install -y -qq kubelet kubeadm kubectl kubernetes-cni >/dev/null
apt-mark hold kubelet kubeadm kubectl >/dev/null
# The first interface is Vagrant's own, with the same address in every machine.
echo "KUBELET_EXTRA_ARGS=--node-ip=$PREFIX.${hosts[$INDEX]}" >/etc/default/kubelet
systemctl restart kubelet
