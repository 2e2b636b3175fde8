# shellcheck shell=bash disable=SC2034,SC2154
# keepalived: VRRP on eth0; the web server runs on both hosts and is watched by a script, so that what moves is an address alone.
#   default  VRRPv2, an advertisement each second, the script each second: all its defaults
#   fast     VRRPv3, 0.1 s
#   extreme  VRRPv3, 0.01 s, real-time priority
packages=(keepalived curl)
units=(keepalived.service)
moves=door
file() { # file HOST PRIORITY [ADDED]
  local every=1 version=2 priority=
  case $mode in
    fast) every=0.1 version=3 ;;
    extreme) every=0.01 version=3 priority="vrrp_rt_priority 50" ;;
  esac
  put "$1" /etc/keepalived/keepalived.conf <<END
global_defs {
    router_id $1
    vrrp_version $version
    enable_script_security
    script_user root
    $priority
}
vrrp_script httpd {
    script "/usr/bin/curl -fs -m 1 -o /dev/null http://127.0.0.1/server-status?auto"
    interval 1
}
vrrp_instance web {
    state $([[ $1 = "${hosts[0]}" ]] && echo MASTER || echo BACKUP)
    interface eth0
    virtual_router_id 51
    priority $2
    advert_int $every
    virtual_ipaddress {
        $site/24
        ${3:+$3/24}
    }
    track_script {
        httpd
    }
}
END
}
priority() { [[ $1 = "${hosts[0]}" ]] && echo 101 || echo 100; }
configure() {
  file "$1" "$(priority "$1")"
  # Debian's unit would bring apache2 back by itself; this is about what keepalived does.
  printf '[Service]\nRestart=no\n' | put "$1" /etc/systemd/system/apache2.service.d/lab.conf
  on "$1" systemctl daemon-reload
  on "$1" systemctl enable -q apache2 keepalived
}
reload() { on "$1" systemctl reload keepalived; }
start() { local name; for name in "${hosts[@]}"; do on "$name" systemctl restart apache2 keepalived; done; }
healthy() {
  local name
  for name in "${hosts[@]}"; do on "$name" systemctl is-active -q keepalived apache2 || return; done
  [[ $(holders) = "${hosts[0]}" ]]
}
reset() { on "$1" systemctl reset-failed apache2; on "$1" systemctl start apache2; }
move() { file "$1" 99; reload "$1"; }
unmove() { file "${hosts[0]}" 101; reload "${hosts[0]}"; }
change() { local name; for name in "${hosts[@]}"; do file "$name" "$(priority "$name")" "$added"; reload "$name"; done; }
unchange() { local name; for name in "${hosts[@]}"; do file "$name" "$(priority "$name")"; reload "$name"; done; }
daemons() { named "$1" keepalived; }
