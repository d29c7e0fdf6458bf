#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# /sys/kernel/elastic_guest: which files, which modes, good and bad writes.
. "$(dirname "$0")/loop.sh"

# try FILE VALUE ERRNO: and on an error nothing has changed
try()
{
	old=$(gget "$1")
	check "$1 <- '$2': $3" gput_is "$3" "$1" "$2"
	if [ "$3" = OK ]; then
		gput "$1" "$old" >/dev/null
	else
		check "$1 is as before" [ "$(gget "$1")" = "$old" ]
	fi
}

loop_begin
guest_start
files=$(guest "cd $GUEST_SYSFS && find . -type f -exec stat -c '%a %u %g %n' {} +" | sort)
bad=$(echo "$files" | grep -Ev '^(444|644) 0 0 ')
check 'files are of root, 0444 or 0644' [ -z "$bad" ]
bad=$(echo "$files" | grep '/\(state\|stats\)/' | grep -v ^444)
check 'state and stats are read only' [ -z "$bad" ]
bad=$(echo "$files" | grep '/tunables/' | grep -v ^644)
check 'tunables are writable' [ -z "$bad" ]
for file in enable mode cpus memory_mib; do
	check "$file is there and writable" eval 'echo "$files" | grep -q "^644 0 0 ./$file$"'
done
check 'last_refusal is there' eval 'echo "$files" | grep -q "^444 0 0 ./last_refusal$"'
bad=$(guest "cd $GUEST_SYSFS && for f in \$(find . -type f); do
	[ \"\$(cat \$f | wc -l)\" = 1 ] || echo \$f; done")
check 'each file is one line' [ -z "$bad" ]
bad=$(guest "cd $GUEST_SYSFS/tunables && for f in *; do
	[ \$f = zone ] && continue
	old=\$(cat \$f)
	for v in x -1; do
		/load write \$PWD/\$f \"\$v\" | grep -q '^E[A-Z]* ' || echo \"\$f '\$v'\"
	done
	/load write \$PWD/\$f 99999999999 | grep -q '^ERANGE' || echo \$f large
	/load write \$PWD/\$f \$old | grep -q '^OK' || echo \$f old
	[ \"\$(cat \$f)\" = \$old ] || echo \$f changed; done")
check "every tunable refuses bad writes, takes a good one" [ -z "$bad" ]
[ -z "$bad" ] || echo "# $bad"
try enable x EINVAL
try enable 2 EINVAL
try mode x EINVAL
try mode '' OK
try mode manual OK
try tunables/zone x EINVAL
try tunables/zone kernel OK
try tunables/report_period_ms 99 ERANGE
try tunables/report_period_ms 60001 ERANGE
try tunables/report_period_ms 2000 OK

# Of the tool: what a command prints comes when it prints it.
guest "echo first; $WAIT_HOST; echo second" >"$work/stream" &
check 'output comes as it is made' wait_until 30 grep -q first "$work/stream"
check 'and not before it is made' [ "$(cat "$work/stream")" = first ]
host_says_go
wait $!
check 'and whole' [ "$(tr '\n' ' ' <"$work/stream")" = 'first second ' ]
check 'the guest ends well' guest_end
loop_finish
