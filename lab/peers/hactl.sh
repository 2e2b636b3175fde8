# shellcheck shell=bash disable=SC2034,SC2154
# hactl: two nodes and a witness, a web site (address and apache2.service) and, beside it, an address alone.
#   default  100 ms, 1 s
#   fast     10 ms, 30 ms
#   ignore   the defaults, two nodes without a witness
units=(ha.service)
[[ $mode = ignore ]] || hosts+=(carol)
two_node() { [[ $mode != ignore ]] || echo 'two_node = "ignore"'; }
file() { # file [ADDED]
  local interval=100ms deadtime=1s name
  [[ $mode != fast ]] || interval=10ms deadtime=30ms
  cat <<END
[cluster]
name = "lab"
$(two_node)
[heartbeat]
interval = "$interval"
deadtime = "$deadtime"
[[link]]
name = "lan"
interface = "eth0"
multicast = "239.192.6.94"
[[link]]
name = "repl"
interface = "eth1"
END
  for name in "${hosts[@]}"; do
    printf '[[node]]\nname = "%s"\n%s\naddress = { lan = "%s", repl = "%s" }\n' "$name" "$([[ $name != carol ]] || echo 'role = "witness"')" \
      "$lan.${number[$name]}" "$repl.${number[$name]}"
  done
  cat <<END
[[group]]
name = "web"
prefer = ["alice"]
[[group.resource]]
type = "vip"
address = "$site"
interface = "eth0"
$([[ ! ${1-} ]] || printf '[[group.resource]]\nname = "added"\ntype = "vip"\naddress = "%s"\ninterface = "eth0"\n' "$1")
[[group.resource]]
type = "httpd"
[[group]]
name = "door"
prefer = ["alice"]
[[group.resource]]
type = "vip"
address = "$door"
interface = "eth0"
END
}
configure() {
  [[ $1 = carol ]] || on "$1" systemctl disable -q --now apache2
  put "$1" /usr/local/sbin/hactl <"$HACTL_LAB/bin/hactl"
  put "$1" /usr/local/sbin/webserver <"$HACTL_LAB/bin/webserver"
  on "$1" chmod 755 /usr/local/sbin/hactl /usr/local/sbin/webserver
  put "$1" /etc/systemd/system/ha.service <"$here/../packaging/ha.service"
  printf '[Service]\nExecStart=/usr/local/sbin/webserver -f /etc/webserver.conf\n[Install]\nWantedBy=multi-user.target\n' |
    put "$1" /etc/systemd/system/webserver.service
  printf 'Listen 8080\nDocumentRoot /var/www/html\n' | put "$1" /etc/webserver.conf
  file | put "$1" /etc/ha.toml
  [[ -e $HACTL_LAB/ha.key ]] || "$HACTL_LAB/bin/hactl" keygen "$HACTL_LAB/ha.key" >/dev/null
  put "$1" /etc/ha.key <"$HACTL_LAB/ha.key"
  on "$1" chmod 600 /etc/ha.key
  on "$1" systemctl daemon-reload
  on "$1" systemctl enable -q webserver ha
}
start() { local name; for name in "${hosts[@]}"; do on "$name" systemctl restart webserver ha; done; }
healthy() { local name; for name in "${hosts[@]}"; do on "$name" hactl status || return; done; }
reset() { on "$1" hactl cleanup web; }
move() { on "$1" hactl move web "$2"; }
unmove() { on "${hosts[0]}" hactl unmove web; }
change() { file "$added" | put "$active" /etc/ha.toml; }
unchange() { file | put "$active" /etc/ha.toml; within 30 gone; }
gone() { ! holds "$active" "$added"; }
daemons() { named "$1" hactl; }

# The address alone, what the cluster knew of a crash when, and what asking costs.
extra() {
  local i target us
  probe_stop client
  client_start "http://$door:8080/who"
  for ((i = 1; i <= RUNS; i++)); do
    ready || continue
    target=$(other "$(holders "$door")")
    begin
    on "$target" hactl move door "$target" >/dev/null || say "the move failed"
    within "$patience" served
    probe_mark client end
    figure move-door "${gap%.*}"
    on "$target" hactl unmove door >/dev/null
    us=$(crash_web "$active")
    figure noticed "$(($(noticed "$us" "$active") / 1000))"
    served "$patience"
    on "$active" hactl cleanup web >/dev/null
    # shellcheck disable=SC2016 # expanded in the host
    figure status "$(on "$active" bash -c 'begin=${EPOCHREALTIME/[.,]/}; for ((i = 0; i < 20; i++)); do hactl status >/dev/null; done
      echo $(((${EPOCHREALTIME/[.,]/} - begin) / 20000))')"
  done
}
