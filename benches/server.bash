# For the benchmarks in bash: a redis-server of their own in the folder $dir, which goes with it when they end.
# shellcheck shell=bash

need() { # PROGRAM...
  for program; do
    command -v "$program" >/dev/null || { echo "$0: $program is needed" >&2; exit 1; }
  done
}

dir=$(mktemp -d)
server=
# shellcheck disable=SC2329 # the trap calls it
clean_up() {
  [ -z "$server" ] || kill "$server" || true
  wait
  rm -rf "$dir"
}
trap clean_up EXIT

new_key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

# A private CA, and a certificate of it for localhost and 127.0.0.1.
make_certificates() {
  new_key "$dir/ca.key"
  openssl req -x509 -key "$dir/ca.key" -subj "/CN=CA of a benchmark" -days 2 -out "$dir/ca.pem"
  new_key "$dir/server.key"
  openssl req -new -key "$dir/server.key" -subj /CN=localhost |
    openssl x509 -req -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 2 -out "$dir/server.pem" \
      -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") 2>/dev/null
}

ask() { redis-cli -s "$dir/socket" "$@"; }

# How many it has accepted, this question's among them.
connections() { ask info stats | tr -d '\r' | sed -n 's/^total_connections_received://p'; }

# Starts it on the first ports that are free: $port, and $tls_port for TLS with the certificates made before.
start_server() {
  for _ in $(seq 20); do
    port=$((10000 + RANDOM % 20000)) tls_port=$((30000 + RANDOM % 2000))
    redis-server --port $port --tls-port $tls_port --bind 127.0.0.1 --unixsocket "$dir/socket" --save "" \
      --dir "$dir" --tls-cert-file "$dir/server.pem" --tls-key-file "$dir/server.key" --tls-auth-clients no \
      --tls-ca-cert-file "$dir/ca.pem" >"$dir/log" &
    server=$!
    for _ in $(seq 200); do
      kill -0 $server 2>/dev/null || break
      [ "$(ask ping 2>/dev/null)" != PONG ] || return 0
      sleep 0.05
    done
    kill $server 2>/dev/null || true
    wait $server || true
    server=
  done
  echo "$0: redis-server does not start:" >&2
  cat "$dir/log" >&2
  exit 1
}
