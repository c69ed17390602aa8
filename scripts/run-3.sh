#!/bin/sh
# Starts three trouped on this machine that are one service, and prints their addresses.
# Ctrl-C ends all three. Arguments are passed on to each of them.
set -eu
bin=${BIN:-bin}
port=${PORT:-8003} # the first of three for clients; peers use 100 more, metrics 200 more
dir=$(mktemp -d)
pids=
stop() {
	trap - INT TERM EXIT
	for pid in $pids; do kill -TERM "$pid" 2>/dev/null || :; done
	# A second signal ends what still runs.
	for pid in $pids; do kill -TERM "$pid" 2>/dev/null || :; done
	wait
	rm -rf "$dir"
}
trap stop EXIT
trap 'exit 0' INT TERM

peers=
for i in 0 1 2; do
	peers="$peers${peers:+,}pod-$i=127.0.0.1:$((port + 100 + i))"
done
for i in 0 1 2; do
	"$bin/trouped" --pod "pod-$i" --peers "$peers" --peer-insecure --log-format json \
		--listen "127.0.0.1:$((port + i))" --peer-listen "127.0.0.1:$((port + 100 + i))" --admin-listen "127.0.0.1:$((port + 200 + i))" \
		--data-dir "$dir/$i" "$@" 2>"$dir/$i.log" &
	pids="$pids $!"
done
for i in 0 1 2; do
	until grep -q '"msg":"ready"' "$dir/$i.log" 2>/dev/null; do
		set -- $pids
		eval "pid=\${$((i + 1))}"
		if ! kill -0 "$pid" 2>/dev/null; then
			cat "$dir/$i.log" >&2
			exit 1
		fi
		sleep 0.1
	done
	echo "ws://127.0.0.1:$((port + i))/ws"
done
echo
echo "A session of one pod is served by all. Try in another terminal:"
echo "  $bin/troupe --server ws://127.0.0.1:$port/ws exec -- echo hello"
echo "Logs are in $dir. Ctrl-C ends all three."
wait
