#!/bin/sh
# A CNI plugin, the first of the chain: the pod's IPv6 address is usable at once. Nobody else can have it (one pod network
# per node, one pod per address), so that there are no duplicates to detect; looking for them takes up to two seconds a pod.
set -e
[ "$CNI_COMMAND" != ADD ] ||
  nsenter --net="$CNI_NETNS" -- sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'
echo '{"cniVersion": "0.4.0"}'
