# shellcheck shell=bash disable=SC2154,SC2034
# Which cluster do demo and bench run? Two nodes, a witness and a client; a web site behind an address, and an address
# alone in front of a server that runs on both nodes. Sourced after hosts.sh; says what it does nowhere, its callers do.

site=$lan.100                                      # the web site: moves with its web server
door=$lan.101                                      # the address alone

# cluster_write writes what an administrator would: the file, the key, a web server's configuration and a page.
cluster_write() {
  local name
  install -D -t "$HACTL_LAB/bin" "$here/../build/"{hactl,probe,webserver}
  for name in alice bob carol client; do host_disk "$name"; done
  cluster_file >"$HACTL_LAB/ha.toml"
  "$HACTL_LAB/bin/hactl" config check "$HACTL_LAB/ha.toml" >/dev/null
  rm -f "$HACTL_LAB/ha.key"
  "$HACTL_LAB/bin/hactl" keygen "$HACTL_LAB/ha.key" >/dev/null
  for name in alice bob carol; do
    install -m 644 "$HACTL_LAB/ha.toml" "$HACTL_LAB/$name/etc/ha.toml"
    install -m 600 "$HACTL_LAB/ha.key" "$HACTL_LAB/$name/etc/ha.key"
  done
  for name in alice bob; do web_write "$name"; done
  rm -f "$HACTL_LAB/carol/etc/rc.local.lab" "$HACTL_LAB/client/etc/"{ha.toml,ha.key,rc.local.lab}
}

cluster_file() {
  cat <<END
[cluster]
name = "demo"

[heartbeat]
interval = "${HACTL_INTERVAL:-100ms}"
deadtime = "${HACTL_DEADTIME:-1s}"

[[link]]
name = "lan"
interface = "eth0"
multicast = "239.192.6.94"

[[link]]
name = "repl"
interface = "eth1"

[[node]]
name = "alice"
address = { lan = "$lan.${number[alice]}", repl = "$repl.${number[alice]}" }

[[node]]
name = "bob"
address = { lan = "$lan.${number[bob]}", repl = "$repl.${number[bob]}" }

[[node]]
name = "carol"
role = "witness"
address = { lan = "$lan.${number[carol]}", repl = "$repl.${number[carol]}" }

[[group]]
name = "web"
prefer = ["alice"]

[[group.resource]]
type = "vip"
address = "$site"
interface = "eth0"

[[group.resource]]
type = "httpd"
unit = "none"
program = "$(web_program)"
config_file = "/etc/apache2/apache2.conf"

[[group]]
name = "door"
prefer = ["alice"]

[[group.resource]]
type = "vip"
address = "$door"
interface = "eth0"
END
}

# web_program is apache2 where it is installed.
web_program() {
  if [[ ${HACTL_WEB:-apache2} = apache2 && -x /usr/sbin/apache2 && -e /usr/lib/apache2/modules/mod_status.so ]]; then
    echo /usr/sbin/apache2
  else
    echo /usr/local/sbin/webserver
  fi
}

# web_write NAME: the site's server, which the cluster runs, and the one behind the door, which runs on its own.
web_write() {
  local etc=$HACTL_LAB/$1/etc
  echo "$1" >"$HACTL_LAB/$1/html/who"
  mkdir -p "$etc/apache2"
  cat >"$etc/apache2/apache2.conf" <<'END'
ServerRoot "/etc/apache2"
ServerName localhost
Listen 80
PidFile "/run/apache2.pid"
DocumentRoot "/var/www/html"
ErrorLog "/var/log/apache2/error.log"
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule authz_host_module /usr/lib/apache2/modules/mod_authz_host.so
LoadModule status_module /usr/lib/apache2/modules/mod_status.so
User www-data
Group www-data
<Directory "/var/www/html">
  Require all granted
</Directory>
<Location "/server-status">
  SetHandler server-status
  Require local
</Location>
END
  printf 'Listen 8080\nDocumentRoot /var/www/html\n' >"$etc/webserver.conf"
  printf '#!/bin/sh\nwebserver -f /etc/webserver.conf &\n' >"$etc/rc.local.lab"
  chmod 755 "$etc/rc.local.lab"
  [[ $(web_program) = */apache2 ]] || rm -f "$etc/apache2/envvars"
}

# well NAME: what that node says of the cluster is "all is well".
well() { on "$1" hactl status >/dev/null 2>&1; }

# settle NAME: waits for that, and shows what NAME says and logged if it does not come.
settle() {
  local i
  for ((i = 0; i < 600; i++)); do
    if well "$1"; then return; fi
    sleep 0.05
  done
  on "$1" hactl status >&2 || true
  tail -n 30 "$HACTL_LAB/$1/log" >&2
  die "the cluster is not well after 30 s"
}

# owner GROUP, as carol knows it.
owner() { on carol hactl status --json | sed -n '/"groups"/,$p' | sed -n "/\"name\": \"$1\"/,/\"owner\"/s/.*\"owner\": \"\(.*\)\".*/\1/p" | head -n1; }

# The client's probes answer each mark with what came since the one before.
declare -A ask answer prober
probe_start() { # probe_start NAME URL
  local in out
  mkfifo "$HACTL_LAB/ram/$1.in" "$HACTL_LAB/ram/$1.out"
  exec {in}<>"$HACTL_LAB/ram/$1.in" {out}<>"$HACTL_LAB/ram/$1.out"
  on client probe "$2" <&"$in" >&"$out" 2>&1 &
  prober[$1]=$!
  disown
  ask[$1]=$in answer[$1]=$out
}
probe_stop() { # probe_stop NAME
  local in=${ask[$1]} out=${answer[$1]}
  kill "${prober[$1]}" 2>/dev/null || true
  exec {in}>&- {out}>&-
  rm -f "$HACTL_LAB/ram/$1."{in,out}
}
probe_mark() { # probe_mark NAME STEP: ends a step; sets gap (ms), lost, from, to
  local line word
  echo "$2" >&"${ask[$1]}"
  read -r -t 60 line <&"${answer[$1]}" || die "the client's probe does not answer"
  [[ $line = step=* ]] || die "the client's probe says: $line"
  for word in $line; do
    case $word in
      gap_ms=*) gap=${word#*=} ;;
      lost=*) lost=${word#*=} ;;
      from=*) from=${word#*=} ;;
      to=*) to=${word#*=} ;;
    esac
  done
}

# answers: waits until the client has an answer from the site and through the door.
answers() {
  if ! on client probe -wait 30s "http://$site/who" || ! on client probe -wait 30s "http://$door:8080/who"; then
    die "the client has no answer after 30 s"
  fi
}

# crash NAME: kills every process of the web server there with SIGKILL; prints when, in microseconds of the wall clock.
crash() {
  # shellcheck disable=SC2016 # expanded in the host
  on "$1" bash -c '
    for exe in /proc/[0-9]*/exe; do
      pid=${exe#/proc/} pid=${pid%/exe}
      [[ $(readlink "$exe") = "$1" && $(tr "\0" " " <"/proc/$pid/cmdline") = *"/etc/apache2/apache2.conf"* ]] && pids+=("$pid")
    done
    echo "${EPOCHREALTIME/[.,]/}"
    kill -9 "${pids[@]}" 2>/dev/null || true # the daemon may have collected some already' _ "$(web_program)"
}

# noticed SINCE [NODE]: microseconds from SINCE, of the wall clock, to the failure of a resource that the cluster has recorded
# after it, as NODE (carol) knows.
noticed() {
  local wall i
  for ((i = 0; i < 200; i++)); do
    wall=$(on "${2:-carol}" hactl history --json | sed -n '/"resource-failed"/s/.*"wall":\([0-9]*\).*/\1/p' | tail -n1)
    if [[ -n $wall ]] && ((wall / 1000 >= $1)); then
      echo $((wall / 1000 - $1))
      return
    fi
    sleep 0.05
  done
  die "the crash was not noticed within 10 s"
}
