# shellcheck shell=bash disable=SC2034,SC2154
# Pacemaker on corosync with two links, steered by crmsh: a group of IPaddr2 and apache.
#   default  corosync's token (3 s for two nodes), monitors every 10 s, as the agents advise
#   fast     token 1 s (consensus follows: 1.2 s), monitors every second
packages=(pacemaker corosync crmsh resource-agents curl procps)
units=(corosync.service pacemaker.service)
heal=25
file() {
  cat <<END
totem {
    version: 2
    cluster_name: lab
    transport: knet
    $([[ $mode = default ]] || echo "token: 1000")
}
quorum {
    provider: corosync_votequorum
    two_node: 1
}
logging {
    to_logfile: no
    to_syslog: yes
}
nodelist {
END
  local name
  for name in "${hosts[@]}"; do
    printf '    node {\n        name: %s\n        nodeid: %d\n        ring0_addr: %s\n        ring1_addr: %s\n    }\n' \
      "$name" "${number[$name]}" "$lan.${number[$name]}" "$repl.${number[$name]}"
  done
  echo "}"
}
configure() {
  on "$1" systemctl disable -q --now apache2
  file | put "$1" /etc/corosync/corosync.conf
  on "$1" systemctl enable -q corosync pacemaker
}
resources() {
  local every=10s
  [[ $mode = default ]] || every=1s
  cat <<END
property stonith-enabled=false
rsc_defaults resource-stickiness=100
primitive vip IPaddr2 params ip=$site cidr_netmask=24 nic=eth0 op monitor interval=$every timeout=20s
primitive web apache params configfile=/etc/apache2/apache2.conf statusurl=http://127.0.0.1/server-status op monitor interval=$every timeout=20s
group service vip web
commit
END
}
start() {
  local name waiting=()
  for name in "${hosts[@]}"; do
    on "$name" systemctl restart corosync pacemaker &
    waiting+=($!)
  done
  wait "${waiting[@]}"
  within 120 online || return
  resources | on "${hosts[0]}" crm configure
}
online() { [[ $(on "${hosts[0]}" crm_mon -1 2>/dev/null) == *"Online: [ ${hosts[*]} ]"* && $(on "${hosts[1]}" crm_mon -1 2>/dev/null) == *"Online: [ ${hosts[*]} ]"* ]]; }
healthy() {
  local here_now chief
  here_now=$(holders)
  chief=$(on "$here_now" crmadmin -q -D 2>/dev/null)
  online && [[ $(on "$here_now" crm_mon -1 2>/dev/null | grep -c Started) = 2 && $(on "$here_now" crmadmin -q -S "$chief" 2>/dev/null) = S_IDLE ]]
}
reset() { on "$1" crm resource cleanup service; }
move() { on "$1" crm resource move service "$2"; }
unmove() { on "${hosts[0]}" crm resource clear service; }
change() {
  printf '%s\n' "primitive vip2 IPaddr2 params ip=$added cidr_netmask=24 nic=eth0 op monitor interval=10s" \
    "colocation vip2-with-vip inf: vip2 vip" commit | on "$active" crm configure
}
unchange() { on "$active" crm resource stop vip2; sleep 2; on "$active" crm configure delete vip2-with-vip vip2; }
daemons() { named "$1" corosync pacemakerd pacemaker-based pacemaker-fence pacemaker-execd pacemaker-attrd pacemaker-sched pacemaker-contr; }
