# shellcheck shell=bash disable=SC2034,SC2154
# ucarp: moves an address and knows no services; the web server runs on both hosts.
#   default  advertises each second, dead after 3 (its defaults)
#   fast     dead after 1 (its smallest)
packages=(ucarp)
units=(ucarp.service)
moves=door
configure() { # configure HOST [ADDED]
  local skew=0 verb
  [[ $1 = "${hosts[0]}" ]] || skew=10
  for verb in up down; do
    # shellcheck disable=SC2016 # expanded when ucarp runs it
    printf '#!/bin/sh\nip address %s %s/24 dev "$1"\n%s\n' "$([[ $verb = up ]] && echo add || echo delete)" "$site" \
      "${2:+ip address $([[ $verb = up ]] && echo add || echo delete) $2/24 dev \$1}" | put "$1" "/etc/ucarp/$verb"
    on "$1" chmod 755 "/etc/ucarp/$verb"
  done
  put "$1" /etc/systemd/system/ucarp.service <<END
[Service]
ExecStart=/usr/sbin/ucarp -i eth0 -s $lan.${number[$1]} -v 42 -p secret -a $site -u /etc/ucarp/up -d /etc/ucarp/down -z -n $([[ $mode = default ]] || echo -r 1) -k $skew
[Install]
WantedBy=multi-user.target
END
  printf '[Service]\nRestart=no\n' | put "$1" /etc/systemd/system/apache2.service.d/lab.conf
  on "$1" systemctl daemon-reload
  on "$1" systemctl enable -q apache2 ucarp
}
start() { local name; for name in "${hosts[@]}"; do on "$name" systemctl restart apache2 ucarp; done; }
healthy() { local name; for name in "${hosts[@]}"; do on "$name" systemctl is-active -q ucarp apache2 || return; done; }
reset() { on "$1" systemctl reset-failed apache2; on "$1" systemctl start apache2; }
move() { on "$1" systemctl kill -s USR2 ucarp; }
change() { local name; for name in "${hosts[@]}"; do configure "$name" "$added"; on "$name" systemctl restart ucarp; done; }
unchange() {
  local name
  for name in "${hosts[@]}"; do
    configure "$name"
    on "$name" systemctl restart ucarp
    on "$name" ip address delete "$added/24" dev eth0
  done
}
daemons() { named "$1" ucarp; }
