# shellcheck shell=bash disable=SC2034,SC2154
# Heartbeat in its classic mode (haresources): broadcasts on both links, IPaddr2 and the web server's init script. It
# monitors no services.
#   default  no times in ha.cf
#   fast     keepalive 100 ms, deadtime 1 s
packages=(heartbeat procps)
units=(heartbeat.service)
heal=40
[[ $mode != default ]] || patience=45
configure() { # configure HOST [ADDED]
  on "$1" systemctl disable -q --now apache2
  printf '[Service]\nRestart=no\n' | put "$1" /etc/systemd/system/apache2.service.d/lab.conf
  put "$1" /etc/ha.d/ha.cf <<END
logfile /var/log/ha-log
$([[ $mode = default ]] || printf '%s\n' 'keepalive 100ms' 'warntime 500ms' 'deadtime 1' 'initdead 10')
bcast eth0 eth1
auto_failback off
node ${hosts[*]}
crm no
END
  echo "${hosts[0]} IPaddr2::$site/24/eth0 ${2:+IPaddr2::$2/24/eth0} apache2" | put "$1" /etc/ha.d/haresources
  printf 'auth 1\n1 sha1 secret\n' | put "$1" /etc/ha.d/authkeys
  on "$1" chmod 600 /etc/ha.d/authkeys
  on "$1" systemctl daemon-reload
  on "$1" systemctl enable -q heartbeat
}
start() {
  local name waiting=()
  for name in "${hosts[@]}"; do
    on "$name" systemctl restart heartbeat &
    waiting+=($!)
  done
  wait "${waiting[@]}"
}
healthy() {
  local name peer_name
  for name in "${hosts[@]}"; do
    for peer_name in "${hosts[@]}"; do [[ $(on "$name" cl_status nodestatus "$peer_name") = active ]] || return; done
    [[ $(on "$name" cl_status rscstatus) =~ ^(all|local|foreign|none)$ ]] || return
  done
}
reset() { on "$1" systemctl reset-failed apache2; on "$1" systemctl start apache2; }
move() { on "$1" /usr/share/heartbeat/hb_standby all; }
# A reload takes the new line in and starts nothing: standby and back does.
change() {
  local name
  for name in "${hosts[@]}"; do
    configure "$name" "$added"
    on "$name" /usr/libexec/heartbeat/heartbeat -r
  done
  sleep 2
  on "$active" /usr/share/heartbeat/hb_standby all
}
unchange() { rebuild; }
daemons() { named "$1" heartbeat; }
