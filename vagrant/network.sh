#!/usr/bin/env bash
# The pods' network: on each machine a bridge with addresses of its own, and routes to the others'. No overlay; what leaves
# the cluster is masqueraded, what stays inside keeps its address, which the mesh compares with the certificate.
#   PREFIX of the machines' network, HOSTS their last octets, INDEX which of them this is
set -euo pipefail
: "${PREFIX:?}" "${HOSTS:?}" "${INDEX:?}"
read -ra hosts <<<"$HOSTS"

cat >/etc/modules-load.d/kubernetes.conf <<'CONF'
overlay
br_netfilter
CONF
modprobe -a overlay br_netfilter
cat >/etc/sysctl.d/90-kubernetes.conf <<'CONF'
net.ipv4.ip_forward = 1
net.bridge.bridge-nf-call-iptables = 1
net.bridge.bridge-nf-call-ip6tables = 1
CONF
sysctl -q --system
swapoff -a
sed -i '/\sswap\s/d' /etc/fstab

mkdir -p /etc/cni/net.d
cat >/etc/cni/net.d/10-bridge.conflist <<CONF
{
  "cniVersion": "1.0.0",
  "name": "bridge",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.244.$INDEX.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
CONF

{
  echo '#!/bin/sh -e'
  for index in "${!hosts[@]}"; do
    [ "$index" = "$INDEX" ] || echo "ip route replace 10.244.$index.0/24 via $PREFIX.${hosts[$index]}"
  done
  rule='-s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE'
  echo "iptables -t nat -C POSTROUTING $rule 2>/dev/null || iptables -t nat -A POSTROUTING $rule"
} >/usr/local/sbin/pod-network
chmod +x /usr/local/sbin/pod-network
cat >/etc/systemd/system/pod-network.service <<'CONF'
[Unit]
Description=Routes between the nodes' pods
Wants=network-online.target
After=network-online.target
Before=kubelet.service

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/pod-network

[Install]
WantedBy=multi-user.target
CONF
DEBIAN_FRONTEND=noninteractive apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq iptables >/dev/null
systemctl enable -q --now pod-network.service
