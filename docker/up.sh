#!/bin/sh
# What `make up` does: keys and passwords, first models where there are none, and `docker compose up`.
#   docker/up.sh [cpu|gpu|embedded]     MODELS, PORT, PUBLISH, DATA, MONITORING=1: see docker/compose.yaml
set -eu
umask 077
cd "$(dirname "$0")/.."

kind=${1:-cpu}
case "$kind $(uname -m)" in
  cpu\ arm64 | cpu\ aarch64) kind=embedded ;; # there is no tensorflow/serving for arm64
esac

MODELS=$(mkdir -p "${MODELS:-models}" && cd "${MODELS:-models}" && pwd)
REPORTS=$(mkdir -p "${REPORTS:-reports}" && cd "${REPORTS:-reports}" && pwd)
OWNER="$(id -u):$(id -g)"
export MODELS REPORTS OWNER
[ -z "${DATA:-${SIGHTLINE_DATA:-}}" ] || export DATA="${DATA:-$SIGHTLINE_DATA}"
chmod a+rx "$MODELS" # the servers run as another user

secret() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'; }
sha256() { if command -v sha256sum > /dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1; }

# Made once; a folder that others cannot enter. The two of the monitoring are read by other users in their containers.
secrets=${SECRETS:-docker/secrets}
mkdir -p "$secrets"
[ -f "$secrets/api-key" ] || secret > "$secrets/api-key"
[ -f "$secrets/metrics-key" ] || secret > "$secrets/metrics-key"
[ -f "$secrets/grafana-password" ] || secret > "$secrets/grafana-password"
chmod 644 "$secrets/metrics-key" "$secrets/grafana-password"
if [ ! -f "$secrets/gateway.env" ]; then
  printf 'SIGHTLINE_API_KEYS=owner:%s:admin,prometheus:%s:metrics\n' \
    "$(sha256 < "$secrets/api-key")" "$(sha256 < "$secrets/metrics-key")" > "$secrets/gateway.env"
fi
# Older versions gave Prometheus's key the scope `predict`, which no longer reads /metrics.
if grep -q 'prometheus:[0-9a-f]*:predict$' "$secrets/gateway.env"; then
  sed 's/\(prometheus:[0-9a-f]*\):predict$/\1:metrics/' "$secrets/gateway.env" > "$secrets/gateway.env.new"
  mv "$secrets/gateway.env.new" "$secrets/gateway.env"
fi
if [ ! -f "$secrets/postgres.env" ]; then
  password=$(secret)
  printf 'POSTGRES_PASSWORD=%s\nPGPASSWORD=%s\n' "$password" "$password" > "$secrets/postgres.env"
fi
[ -z "${SECRETS_ONLY:-}" ] || exit 0

fail() { echo "$1: https://docs.docker.com/$2" >&2; exit 2; }
command -v docker > /dev/null || fail "docker is not installed" engine/install/
docker compose version > /dev/null 2>&1 || fail "docker has no compose plugin" compose/install/

COMPOSE_FILE=docker/compose.yaml
[ "$kind" = cpu ] || COMPOSE_FILE=$COMPOSE_FILE:docker/compose.$kind.yaml
[ -z "${MONITORING:-}" ] || export COMPOSE_PROFILES=monitoring
export COMPOSE_FILE

if ! ls -d "$MODELS"/*/[0-9]* > /dev/null 2>&1; then
  echo "$MODELS is empty: exporting first models, once; it takes minutes."
  docker compose build export
  for family in face-encoder digits fashion; do
    docker compose run --rm export "$family" || [ $? = 2 ] # 2: its data cannot be found; the others will do
  done
fi
[ -f "$MODELS/serving-config/models.config" ] || docker compose run --rm export serving-config

docker compose up --build --detach --wait
url=http://${PUBLISH:-127.0.0.1}:${PORT:-8000}
picture=$(find "$MODELS" -path '*/golden/*.png' | sort | head -n 1)
model=${picture#"$MODELS"/}
cat << TEXT
Sightline is ready at $url; its API key is in $secrets/api-key. Try it:
  curl -H "Authorization: Bearer \$(cat $secrets/api-key)" -F image=@$picture $url/predict/${model%%/*}
\`make down\` stops it; models and the known faces stay.
TEXT
