# shellcheck shell=bash disable=SC2034
# How does one machine become a small network of hosts? Sourced by demo, bench and systemd. A host is a set of namespaces: its own
# network, processes, mounts and name, with its own /etc, /var, /run and boot id, so that hactl runs there with the paths
# it has on a real one. All hosts live inside namespaces of the script itself, so that they vanish with it, however it
# ends; the folder of their disks is the only thing outside. Nothing of the machine's own is changed.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lan=192.168.10                                     # eth0 of each host
repl=10.0.0                                        # eth1
boot=$here/hosts.sh                                # `boot NAME` of this script is a host's first process
declare -A number=([alice]=11 [bob]=12 [carol]=13 [client]=200)

die() { echo "${0##*/}: $*" >&2; exit 1; }

# enter runs the script again, as the first process of its own namespaces, with its disks in $HACTL_LAB; it returns only
# there.
enter() {
  [[ -n ${HACTL_LAB-} ]] && { inner; return; }
  [[ $EUID = 0 ]] || die "needs root, to make hosts out of network namespaces. Become root first (su, or sudo -s)"
  sweep
  HACTL_LAB=$(mktemp -d "/var/tmp/hactl-lab.$$.XXXXXX")
  export HACTL_LAB
  child=
  trap leave EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  cgroup_make
  install -d "$HACTL_LAB/ram"
  setpriv --pdeathsig KILL unshare --mount --net --uts --ipc --pid --fork --kill-child -- bash "$0" "$@" <&0 &
  child=$!
  local status=0
  wait "$child" || status=$?
  child=
  exit "$status"
}

# leave ends all hosts, which the death of their parent does, and takes their disks and control groups away.
leave() {
  local i
  [[ -z $child ]] || { kill -9 "$child" && wait "$child"; } 2>/dev/null || true
  for ((i = 0; i < 200; i++)); do
    if cgroup_remove && rm -rf "$HACTL_LAB" 2>/dev/null; then return; fi
    sleep 0.05
  done
  echo "${0##*/}: $HACTL_LAB could not be removed" >&2
}

# sweep takes away what a run left whose script was killed with SIGKILL: its hosts died with it.
sweep() {
  local old pid
  for old in /var/tmp/hactl-lab.*; do
    pid=${old#*hactl-lab.} pid=${pid%%.*}
    [[ -d $old && ! -d /proc/$pid ]] || continue
    HACTL_LAB=$old
    cgroup_find
    if cgroup_remove; then rm -rf "$old"; fi
  done
}

# The daemons make control groups below the one that they run in; so that none is left, they get one to themselves.
cgroup_find() {
  local mount path
  HACTL_CGROUP=
  mount=$(findmnt -rnt cgroup2 -o TARGET | head -n1)
  path=$(sed -n 's/^0:://p' /proc/self/cgroup)
  [[ -z $mount || ! -d $mount$path ]] || HACTL_CGROUP=${mount}${path%/}/${HACTL_LAB##*/}
}
cgroup_make() {
  cgroup_find
  [[ -z $HACTL_CGROUP ]] || mkdir "$HACTL_CGROUP" 2>/dev/null || HACTL_CGROUP=
  export HACTL_CGROUP
}
cgroup_remove() { [[ ! -d ${HACTL_CGROUP-} ]] || find "$HACTL_CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null; }

# inner makes the two switches.
inner() {
  local net
  trap 'exit 130' INT
  trap 'exit 143' TERM
  [[ -z $HACTL_CGROUP ]] || echo 0 >"$HACTL_CGROUP/cgroup.procs"
  mount --make-rprivate /
  mkdir "$HACTL_LAB/proc"
  mount --bind /proc "$HACTL_LAB/proc"             # the processes under the numbers that the machine knows them by
  mount -t proc proc /proc
  mount -t tmpfs -o mode=755,size=512m tmpfs "$HACTL_LAB/ram"
  for net in lan repl; do
    ip link add "$net" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    ip link set "$net" up
  done
}

# host_disk NAME: a new disk, with a copy of this machine's /etc.
host_disk() {
  local disk=$HACTL_LAB/$1
  mkdir -p "$disk"/{etc,lib-ha,html}
  chmod 700 "$disk/lib-ha"
  cp -a /etc/. "$disk/etc/"
  echo "$1" >"$disk/etc/hostname"
}

# host_up NAME: power on. What is on its disk stays as it is.
host_up() {
  local name=$1 ram=$HACTL_LAB/ram/$1 net device subnet ready
  rm -rf "$ram"
  mkdir "$ram"
  mkfifo "$ram/ready" "$ram/go"
  exec {ready}<>"$ram/ready"                       # for writing too: opening it waits for nobody
  unshare --mount --net --uts --ipc --pid --fork --kill-child -- \
    bash "$boot" boot "$name" </dev/null >>"$HACTL_LAB/$name/log" 2>&1 {ready}>&- &
  disown
  read -r -t 20 -u "$ready" "pid_$name" || { cat "$HACTL_LAB/$name/log" >&2; die "$name does not boot"; }
  exec {ready}>&-
  for net in lan repl; do
    [[ $net = lan ]] && device=eth0 subnet=$lan || device=eth1 subnet=$repl
    ip link add "$name-$net" type veth peer name "$device" netns "$(pid "$name")"
    ip link set "$name-$net" master "$net" up
    on "$name" ip address add "$subnet.${number[$name]}/24" brd + dev "$device"
    on "$name" ip link set "$device" up
  done
  echo go >"$ram/go"
}

# host_off NAME: the plug is pulled. The switch stops passing its frames first, or the last words of dying processes
# would get out; its links go when all is dead, so the host never sees them go. One that has ended by itself is as good.
host_off() {
  local net i
  for net in lan repl; do bridge link set dev "$1-$net" state 0 2>/dev/null || true; done
  kill -9 "$(pid "$1")" 2>/dev/null || true
  for ((i = 0; i < 1000; i++)); do
    [[ -d /proc/$(pid "$1") ]] || break
    sleep 0.01
  done
  for net in lan repl; do ip link delete "$1-$net" 2>/dev/null || true; done
}

pid() { local p=pid_$1; echo "${!p}"; }
on() { # on NAME COMMAND...
  local p; p=$(pid "$1"); shift
  nsenter -t "$p" -m -n -u -i -p -- env -i HOME=/root TERM="${TERM:-dumb}" LC_ALL=C.UTF-8 "PATH=$hostpath" "$@"
}
hostpath=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# boot is the first process of a host: it mounts what is the host's own, waits until the switch has wired it, and then
# does an init's work, which is to keep the daemon running and to collect orphans.
boot() {
  local name=$1 disk=$HACTL_LAB/$1 ram=$HACTL_LAB/ram/$1 self
  read -r self _ </proc/self/stat                  # its number as the switch sees it
  mount --make-rprivate /
  mount -t proc proc /proc
  cat /proc/sys/kernel/random/uuid >"$ram/boot_id"
  mount --bind "$ram/boot_id" /proc/sys/kernel/random/boot_id
  mount --bind "$HACTL_LAB/bin" /usr/local/sbin
  mount --bind "$disk/etc" /etc
  mkdir -p "$ram/var"/{lib/ha,log/apache2,www/html,cache,tmp} "$ram/run/lock"
  ln -s /run "$ram/var/run"
  ln -s /run/lock "$ram/var/lock"
  chmod 1777 "$ram/var/tmp" "$ram/run/lock"
  mount --bind "$disk/lib-ha" "$ram/var/lib/ha"    # what must outlive a power cut is on the machine's disk
  mount --bind "$disk/html" "$ram/var/www/html"
  cd /
  exec 3>"$ram/ready" 4<>"$ram/go" 5>>"$disk/log"
  mount --bind "$ram/run" /run
  mount --rbind "$ram/var" /var                    # last: it covers the lab's own folder
  hostname "$name"
  ip link set lo up
  echo "$self" >&3
  read -r _ <&4
  exec 3>&- 4>&-
  export "PATH=$hostpath"
  [[ ! -x /etc/rc.local.lab ]] || /etc/rc.local.lab </dev/null >&5 2>&1 5>&-
  while [[ -e /etc/ha.toml ]]; do                  # as Restart=always does
    hactl daemon --log-format text >&5 2>&1 5>&- &
    wait "$!" || true
    sleep 0.1
  done
  while :; do sleep 3600 & wait "$!"; done
}

if [[ ${1-} = boot && ${BASH_SOURCE[0]} = "$0" ]]; then
  set -euo pipefail
  boot "$2"
fi
