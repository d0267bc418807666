#!/bin/bash
# Checks a running compose stack from outside, as a user would; takes three to four minutes and leaves the stack as it was:
#
#     docker compose -f docker/docker-compose.yml up -d --wait
#     bash docker/smoke-test.sh
#
# Needs bash, curl and jq. After `export COMPOSE_PROFILES=nodes` the same two commands run more nodes behind the gateway, and
# check them as well.
set -euo pipefail
cd "$(dirname "$0")/.."

DC=${DC:-docker compose -f docker/docker-compose.yml}
EXCHANGES=(exchange1 exchange2 exchange3)

step() { printf '\n-- %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# within SECONDS COMMAND...: repeats the command until it succeeds.
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "not in time: $*"
        sleep 0.5
    done
}

# get PATH: the body of a 200, of whichever address $URL is.
get() { curl --silent --show-error --fail --max-time 20 "$URL$1" 2>/dev/null; }
# post PATH [CURL ARGUMENT...]: the status, and the body in $body.
post() {
    local path=$1
    shift
    curl --silent --max-time 25 --request POST "$@" --output "$body" --write-out '%{http_code}' "$URL$path"
}
now_ms() { date +%s%3N; }
# newer EXCHANGE MS [MODE]: its latest price has a later time than that, and is of that mode.
newer() { get "/prices/latest/$1/BTCUSDT" | jq --exit-status ".timestamp > $2 and .mode == \"${3:-live}\"" >/dev/null; }
all_newer() {
    local exchange
    for exchange in "${EXCHANGES[@]}"; do newer "$exchange" "$@" || return 1; done
}
health_is() { [ "$(get /health | jq --raw-output .status)" = "$1" ]; }
sql() { $DC exec -T postgres psql --username postgres --dbname marketflow --no-psqlrc -qtAX -c "$1" </dev/null; }
stored() { [ "$(sql "select count(distinct exchange) from aggregated_prices where mode = 'live'")" = 3 ]; }
ids() { $DC ps --quiet "$1"; }
healthy() {
    local id
    for id in $(ids "$1"); do
        [ "$(docker inspect --format '{{.State.Health.Status}}' "$id")" = healthy ] || return 1
    done
}
# inside CONTAINER PATH: what that node answers, asked from inside its container.
inside() {
    docker exec "$1" python -c 'import sys, urllib.request as r
print(r.urlopen("http://127.0.0.1:8080" + sys.argv[1], timeout=10).read().decode())' "$2" 2>/dev/null
}
inside_mode() { [ "$(inside "$1" /mode | jq --raw-output .mode)" = "$2" ]; }
# feeds_of CONTAINER: the feeds that this node reads.
feeds_of() { inside "$1" /actors | jq --raw-output '[.actors[] | select(.parent == "root/feeds") | .name] | sort | join(" ")'; }
inside_newer() {
    local exchange
    for exchange in "${EXCHANGES[@]}"; do
        inside "$1" "/prices/latest/$exchange/BTCUSDT" | jq --exit-status ".timestamp > $2" >/dev/null || return 1
    done
}

body=$(mktemp)
second=
trap 'rm -f "$body"; [ -z "$second" ] || docker rm --force "$second" >/dev/null 2>&1 || :' EXIT
URL=http://$($DC port marketflow 8080)
first=$(ids marketflow)
image=$(docker inspect --format '{{.Config.Image}}' "$first")

step "the image"
size=$(docker image inspect --format '{{.Size}}' "$image")
note "$((size / 1000000)) MB"
[ "$size" -lt 250000000 ] || fail "the image is larger than 250 MB"
docker run --rm "$image" sh -c 'for tool in cc gcc g++ clang make ld; do ! command -v $tool || exit 1; done' || fail "a compiler"
docker run --rm "$image" testgen --help >/dev/null || fail "testgen is not in the image"
docker run --rm "$image" marketflow --version

step "containers: not root, nothing writable, no privileges, no secret in the environment, ports on loopback only"
token=$($DC exec -T marketflow cat /run/secrets/admin_token </dev/null)
for id in $($DC ps --quiet); do
    docker inspect "$id" | jq --exit-status --arg token "$token" '.[0] |
        .HostConfig.ReadonlyRootfs and .HostConfig.CapDrop == ["ALL"] and (.HostConfig.SecurityOpt | index("no-new-privileges:true"))
        and .HostConfig.RestartPolicy.Name == "unless-stopped" and .HostConfig.Memory > 0 and .HostConfig.PidsLimit > 0
        and ([.HostConfig.PortBindings[]?[] | .HostIp == "127.0.0.1"] | all)
        and (.Config.User | IN("10001:10001", "999:999"))
        and ([.Config.Env[] | contains($token) or test("(PASSWORD|TOKEN|URL|DSN)=")] | any | not)' >/dev/null ||
        fail "$(docker inspect --format '{{.Name}}' "$id") is not as it should be"
done

step "live prices of each exchange"
within 30 health_is ok
within 30 all_newer "$(($(now_ms) - 5000))"
since=$(now_ms)
within 30 all_newer "$since"
get /prices/latest | jq --compact-output '[.prices[] | {exchange, symbol, price}] | group_by(.exchange) | .[] | .[0]'
[ "$(get '/prices/highest/BTCUSDT?period=30s' | jq '.ticks > 0 and .price > 0')" = true ] || fail "no highest price"

step "a switch of the mode: with the token only"
[ "$(post /mode/test)" = 401 ] || fail "without a token: $(cat "$body")"
[ "$(post /mode/test --header 'Authorization: Bearer wrong')" = 401 ] || fail "with a wrong token: $(cat "$body")"
[ "$(get /mode | jq --raw-output .mode)" = live ] || fail "the mode was switched without the token"
[ "$(post /mode/test --header "Authorization: Bearer $token")" = 200 ] || fail "with the token: $(cat "$body")"
note "$(cat "$body")"
within 20 all_newer "$(now_ms)" test
[ "$(post /mode/live --header "Authorization: Bearer $token")" = 200 ] || fail "back to live: $(cat "$body")"
note "$(cat "$body")"
within 20 all_newer "$(now_ms)" live

step "rows of each exchange in PostgreSQL"
within 90 stored
sql "select exchange, count(*) || ' rows', sum(tick_count) || ' ticks' from aggregated_prices where mode = 'live' group by exchange order by exchange"
rows=$(sql "select count(*) from aggregated_prices")

step "a restart of each container, and recovery"
for service in valkey postgres "${EXCHANGES[@]}" marketflow; do
    $DC restart "$service" >/dev/null 2>&1
    since=$(now_ms)
    within 60 healthy "$service"
    within 60 all_newer "$since"
    within 60 health_is ok
    note "$service: fresh prices of all exchanges, and healthy, $(($(now_ms) - since)) ms after it had restarted"
done
[ "$(sql "select count(*) from aggregated_prices")" -ge "$rows" ] || fail "rows are gone"

step "MarketFlow ends with status 0 on SIGTERM, and the restart policy brings it back"
before=$(docker inspect --format '{{.RestartCount}}' "$first")
docker events --filter "container=$first" --filter event=die --format '{{.Actor.Attributes.exitCode}}' --since "$(date +%s)" \
    --until "$(($(date +%s) + 15))" >"$body" &
events=$!
docker exec "$first" python -c 'import os; os.kill(1, 15)'
restarted() { [ "$(docker inspect --format '{{.RestartCount}}' "$first")" -gt "$before" ]; }
within 20 restarted
since=$(now_ms)
wait "$events"
[ "$(cat "$body")" = 0 ] || fail "exit status $(cat "$body")"
within 60 healthy marketflow
within 60 all_newer "$since"

step "a second node: shares the mode, answers with the same prices, and takes over"
second=$($DC run --detach --no-deps marketflow)
within 60 inside_mode "$second" live
within 30 inside_newer "$second" "$(now_ms)"
within 30 health_is ok
note "feeds of the first: $(feeds_of "$first"); of the second: $(feeds_of "$second")"
[ "$(post /mode/test --header "Authorization: Bearer $token")" = 200 ] || fail "$(cat "$body")"
inside_mode "$second" test || fail "the second node does not know of the switch, which is in force"
[ "$(post /mode/live --header "Authorization: Bearer $token")" = 200 ] || fail "$(cat "$body")"
inside_mode "$second" live || fail "the second node does not know of the switch back"
$DC stop marketflow >/dev/null 2>&1
since=$(now_ms)
within 30 inside_newer "$second" "$since"
note "the second reads on $(($(now_ms) - since)) ms after the first had stopped: $(feeds_of "$second")"
$DC start marketflow >/dev/null 2>&1
within 60 healthy marketflow
docker stop --time 20 "$second" >/dev/null
[ "$(docker inspect --format '{{.State.ExitCode}}' "$second")" = 0 ] || fail "the second node did not end with status 0"
docker rm "$second" >/dev/null
second=
within 30 all_newer "$(now_ms)"
within 30 health_is ok

if [ -n "$(ids gateway 2>/dev/null)" ]; then
    step "several nodes behind one port"
    URL=http://$($DC port gateway 8080)
    within 30 health_is ok
    all_nodes="$(ids marketflow) $(ids node)"
    for id in $all_nodes; do note "$(docker inspect --format '{{.Name}}' "$id"): $(feeds_of "$id")"; done
    [ "$(for id in $all_nodes; do feeds_of "$id"; done | tr ' ' '\n' | sed '/^$/d' | sort | paste --serial --delimiters ' ')" = "${EXCHANGES[*]}" ] ||
        fail "each feed should be read by one node"
    within 30 all_newer "$(now_ms)"
    [ "$(post /mode/test)" = 401 ] || fail "without a token: $(cat "$body")"
    [ "$(post /mode/test --header "Authorization: Bearer $token")" = 200 ] || fail "$(cat "$body")"
    for id in $all_nodes; do inside_mode "$id" test || fail "not every node has switched"; done
    within 20 all_newer "$(now_ms)" test
    [ "$(post /mode/live --header "Authorization: Bearer $token")" = 200 ] || fail "$(cat "$body")"
    for id in $all_nodes; do [ -z "$(feeds_of "$id")" ] || reader=$id; done
    docker stop --time 20 "$reader" >/dev/null
    since=$(now_ms)
    failed=0
    for _ in $(seq 50); do get /prices/latest/BTCUSDT >/dev/null || failed=$((failed + 1)); done
    within 30 all_newer "$since"
    note "a node that read feeds stopped: fresh prices after $(($(now_ms) - since)) ms; $failed of 50 requests failed"
    [ "$failed" = 0 ] || fail "requests failed while a node was away"
    docker start "$reader" >/dev/null
    for id in $all_nodes; do within 60 inside_mode "$id" live; done
    within 30 health_is ok
fi

step "exchanges from image archives"
archives=$(mktemp --directory)
override="$DC -f docker/docker-compose.exchanges.yml"
for exchange in "${EXCHANGES[@]}"; do
    # The image of somebody else: it listens by itself, and on the port of its own choice.
    printf 'FROM %s\nENV LISTEN_HOST=0.0.0.0\nHEALTHCHECK NONE\nCMD ["/app/sources/%s/run"]\n' "$image" "$exchange" |
        docker build --quiet --tag "$exchange" - >/dev/null
    docker save --output "$archives/$exchange.tar" "$exchange"
    docker image rm "$exchange" >/dev/null
    docker load --quiet --input "$archives/$exchange.tar"
done
rm -r "$archives"
$override up --detach --no-build "${EXCHANGES[@]}" marketflow >/dev/null 2>&1
URL=http://$($DC port marketflow 8080)
for exchange in "${EXCHANGES[@]}"; do
    [ "$(docker inspect --format '{{.Config.Image}}' "$(ids "$exchange")")" = "$exchange" ] || fail "$exchange is still ours"
done
within 60 healthy marketflow
within 60 all_newer "$(now_ms)"
within 30 health_is ok
$DC up --detach --no-build "${EXCHANGES[@]}" marketflow >/dev/null 2>&1
docker image rm "${EXCHANGES[@]}" >/dev/null
within 60 healthy marketflow
within 60 all_newer "$(now_ms)"

printf '\nall as it should be\n'
