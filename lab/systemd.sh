# shellcheck shell=bash
# How does a host get a real systemd? Sourced by systemd and peer, instead of hosts.sh: the same hosts, booted from the image that
# lab/image builds, which is in $HACTL_IMAGE, with systemd as their first process.
# shellcheck source=lab/hosts.sh
. "${BASH_SOURCE[0]%/*}/hosts.sh"
boot=$here/systemd.sh
reach=-sys_time,-sys_module,-sys_rawio             # what no process of a host may: clock, modules, devices are the machine's

# boot_systemd NAME turns this process into the first one of a host.
boot_systemd() {
  local name=$1 disk=$HACTL_LAB/ram/$1.disk ram=$HACTL_LAB/ram/$1 root=$HACTL_LAB/ram/$1/root self outside device node
  read -r self _ </proc/self/stat                  # its number as the switch sees it
  read -r outside _ <"$HACTL_LAB/proc/self/stat"   # and as the machine does
  echo "$outside" >"$ram/outside"
  mkdir -p "$HACTL_CGROUP/$name"
  echo 0 >"$HACTL_CGROUP/$name/cgroup.procs"
  exec 3>"$ram/ready" 4<>"$ram/go"
  mkdir "$root"
  mount --make-rprivate /
  mount -t overlay -o "lowerdir=$HACTL_IMAGE,upperdir=$disk/upper,workdir=$disk/work" overlay "$root"
  mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs "$root/run"
  mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
  mount -t sysfs -o nosuid,nodev,noexec,ro sysfs "$root/sys"
  unshare --cgroup mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
  mount -o remount,bind,ro "$root/proc/sys"
  cat /proc/sys/kernel/random/uuid >"$root/run/boot_id"
  mount --bind "$root/run/boot_id" "$root/proc/sys/kernel/random/boot_id"
  [[ ! -e $root/proc/sysrq-trigger ]] || mount --bind /dev/null "$root/proc/sysrq-trigger"
  mount -t tmpfs -o nosuid,mode=755,size=1m tmpfs "$root/dev"
  for device in null:3 zero:5 full:7 random:8 urandom:9 console:3; do
    node=${device%:*}
    mknod -m 666 "$root/dev/$node" c 1 "${device#*:}"
  done
  mkdir "$root/dev/shm"
  mount -t tmpfs -o nosuid,nodev tmpfs "$root/dev/shm"
  ln -s /proc/self/fd "$root/dev/fd"
  hostname "$name"
  ip link set lo up
  echo "$self" >&3
  read -r _ <&4
  exec 3>&- 4>&-
  cd "$root"
  mkdir -p .old
  pivot_root . .old
  umount -l /.old
  exec env -i container=hactl-lab PATH="$hostpath" LC_ALL=C.UTF-8 \
    unshare --cgroup setpriv --bounding-set="$reach" /lib/systemd/systemd --log-target=journal
}

on() { # on NAME COMMAND...
  local p; p=$(pid "$1"); shift
  nsenter -t "$p" -m -n -u -i -p -C -- env -i HOME=/root LC_ALL=C.UTF-8 "PATH=$hostpath" \
    setpriv --bounding-set="$reach" -- "$@"
}

up() {
  local name i state
  for name; do
    [[ -n ${number[$name]-} ]] || die "no host $name"
    mkdir -p "$HACTL_LAB/$name" "$HACTL_LAB/ram/$name.disk/"{upper/etc,work}
    echo "$name" >"$HACTL_LAB/ram/$name.disk/upper/etc/hostname"
    [[ -s $HACTL_LAB/ram/$name.disk/upper/etc/machine-id ]] ||
      tr -d - </proc/sys/kernel/random/uuid >"$HACTL_LAB/ram/$name.disk/upper/etc/machine-id"
    host_up "$name"
  done
  for name; do
    for ((i = 0; ; i++)); do
      # Until systemd has taken over, the root is still the machine's: nobody enters before.
      state=off
      [[ $(cat "/proc/$(pid "$name")/comm" 2>/dev/null) != systemd ]] ||
        state=$(on "$name" systemctl is-system-running 2>/dev/null) || true
      [[ $state != running && $state != degraded ]] || break
      ((i < 600)) || die "systemd of $name is $state after a minute: $(cat "$HACTL_LAB/$name/log")"
      sleep 0.1
    done
    echo "$name $(<"$HACTL_LAB/ram/$name/outside")"
  done
}

# switch_up makes the switch the client, too. After enter.
switch_up() {
  local net subnet
  [[ -n $HACTL_CGROUP ]] || die "no control group (version 2) can be made here"
  for net in lan repl; do
    [[ $net = lan ]] && subnet=$lan || subnet=$repl
    ip address add "$subnet.${number[client]}/24" dev "$net"
  done
}

if [[ ${1-} = boot && ${BASH_SOURCE[0]} = "$0" ]]; then
  set -euo pipefail
  boot_systemd "$2"
fi
