#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two "hosts" on this machine: two network namespaces joined by a virtual cable, each with its own host name, shared
# memory and temporary folder. They share the other file systems, as the nodes of a cluster do.
#   two_hosts.sh up FOLDER            makes them; FOLDER keeps their state. Exit status 77: not permitted here
#   two_hosts.sh mpirun FOLDER ARG..  mpirun on the first host, with two ranks on each
#   two_hosts.sh kill FOLDER b        every process of a host dies at once
#   two_hosts.sh boot FOLDER b        and it is there again
#   two_hosts.sh down FOLDER
set -euo pipefail
command=$1 folder=$2
shift 2
tag=$(basename "$folder" | tr -cd '[:alnum:]' | tail -c 6)
address() { [ "$1" = a ] && echo 10.231.77.1 || echo 10.231.77.2; }

# Names of interfaces may have 15 letters.
connect_host() {
  local name="amalgam-$tag-$1" cable="amc$tag$1"
  ip link set "$cable" netns "$name"
  ip netns exec "$name" ip address add "$(address "$1")/24" dev "$cable"
  ip netns exec "$name" ip link set "$cable" up
  ip netns exec "$name" ip link set lo up
}

# The first process of a host keeps its namespaces; it ends with the host.
boot_host() {
  rm -f "$folder/$1.ready"
  setsid ip netns exec "amalgam-$tag-$1" unshare --uts --ipc --mount bash -c "
    hostname host-$1 && mount -t tmpfs tmpfs /dev/shm && touch '$folder/$1.ready' && exec sleep infinity" \
    < /dev/null > "$folder/$1.log" 2>&1 &
  echo $! > "$folder/$1.pid"
  for _ in $(seq 200); do [ -e "$folder/$1.ready" ] && return; sleep 0.05; done
  cat "$folder/$1.log"
  return 1
}

# Stopped first, so that none sees another one die and reacts.
kill_host() {
  local processes
  processes=$(ip netns pids "amalgam-$tag-$1" 2> /dev/null) || return 0
  [ -z "$processes" ] && return 0
  kill -STOP $processes 2> /dev/null || true
  kill -KILL $processes 2> /dev/null || true
}

remove() {
  for host in a b; do
    kill_host $host
    ip netns delete "amalgam-$tag-$host" 2> /dev/null || true
  done
}

case $command in
  up)
    [ "$(id -u)" = 0 ] || { echo "two hosts need root for network namespaces"; exit 77; }
    for program in ip unshare nsenter; do
      command -v $program > /dev/null || { echo "two hosts need the program $program (iproute2, util-linux)"; exit 77; }
    done
    ip netns add "amalgam-$tag-a" || { echo "network namespaces are not permitted here"; exit 77; }
    ip netns add "amalgam-$tag-b"
    ip link add "amc${tag}a" type veth peer name "amc${tag}b" || { echo "no virtual network here"; remove; exit 77; }
    for host in a b; do
      connect_host $host && boot_host $host || { echo "hosts cannot be made here"; remove; exit 77; }
    done
    # What Open MPI calls instead of ssh: AGENT ADDRESS COMMAND...
    cat > "$folder/agent" << AGENT
#!/usr/bin/env bash
[ "\$1" = $(address a) ] && host=a || host=b
shift
exec "$(realpath "$0")" enter "$folder" "\$host" bash -c "\$*"
AGENT
    chmod +x "$folder/agent"
    ;;
  enter)
    host=$1
    shift
    export TMPDIR=/dev/shm  # of the host alone
    exec nsenter --target "$(cat "$folder/$host.pid")" --net --uts --ipc --mount --wd="$PWD" -- "$@"
    ;;
  mpirun)
    exec "$(realpath "$0")" enter "$folder" a mpirun --host "$(address a):2,$(address b):2" -np 4 --bind-to none \
      --mca plm rsh --mca plm_rsh_agent "$folder/agent" --mca pml ob1 --mca btl tcp,vader,self \
      --mca btl_tcp_if_include 10.231.77.0/24 --mca oob_tcp_if_include 10.231.77.0/24 "$@"
    ;;
  kill) kill_host "$1" ;;
  boot) boot_host "$1" ;;
  down) remove ;;
esac
