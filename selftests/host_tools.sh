#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The tools that people run beside the host module: elastic-top, elastic-advice and
# elastic-plot --record, with a VM.

# Conditions are evaluated later:
# shellcheck disable=SC2016
. "$(dirname "$0")/lib.sh"

need_loaded
mark_log
tools=$(dirname "$0")/../scripts
[ -x "$tools/elastic-top" ] || skip_all "scripts/ is not beside selftests/"
command -v python3 >/dev/null || skip_all "there is no python3"
sysfs=/sys/kernel/elastic_host

# json EXPRESSION: of elastic-top's, as d
json()
{
	"$tools/elastic-top" -j -d 0.1 | python3 -c 'import json, sys
d = json.load(sys.stdin)
print(eval(sys.argv[1]))' "$1"
}

is "$(json 'len(d["vms"])')" 0 "elastic-top -j: no VM"
is "$(json 'd["host"]["cpu_pool"]')" "$(cat $sysfs/cpu/pool)" "elastic-top -j: the pool"
check "elastic-top -1: no VM" eval '"$tools/elastic-top" -1 -d 0.1 >"$work/top"'
is "$(wc -l <"$work/top")" 2 "two lines"

"$tools/elastic-plot" --record "$work/trace" &
recorder=$!
at_exit "kill $recorder 2>/dev/null || :"
wait_until 30 grep -qs '^# pool' "$work/trace"

vm_start -v 3 -m 64
vm hello 1 16 4 >/dev/null
vm request 2 0 0 >/dev/null
vm report >/dev/null
is "$(json 'd["vms"][0]["vm"]')" "$vm_pid" "elastic-top -j: the VM"
is "$(json 'd["vms"][0]["cpu_grant"], d["vms"][0]["cpu_max"]')" "(2, 3)" "its vCPUs"
is "$(json 'd["vms"][0]["memory_grant_mib"], d["vms"][0]["state"]')" "(54, 'managed')" "its memory"
is "$(json 'd["vms"][0]["name"]')" vmctl "what the kernel says of its process"
check "elastic-top -1" eval '"$tools/elastic-top" -1 -d 0.1 -s MEM >"$work/top"'
check "has a line for it" grep -Eq "^ *$vm_pid +vmctl +m " "$work/top"
check "an unknown column is refused" eval '! "$tools/elastic-top" -1 -s NONE 2>/dev/null'

is "$("$tools/elastic-advice" --once; echo $?)" 1 "elastic-advice --once: none"
"$tools/elastic-advice" --run 'echo "$ELASTIC_SHORT $ELASTIC_VM $ELASTIC_PID" >'"$work/ran" \
	>"$work/advice" &
listener=$!
at_exit "kill $listener 2>/dev/null || :"
for file in cpu/pool advice_ms; do
	save_file $sysfs/$file
done
echo 100 >$sysfs/advice_ms
echo 2 >$sysfs/cpu/pool
vm request 6 0 0 >/dev/null
check "a vCPU is missing: elastic-advice runs the command" wait_until 30 [ -s "$work/ran" ]
is "$(cat "$work/ran")" "cpu $vm_pid $vm_pid" "with what it is about"
check "and says so" grep -q " cpu: missing 1, .*; move $vm_pid:enough" "$work/advice"
check "elastic-advice --once" eval '"$tools/elastic-advice" --once >/dev/null'
echo 16 >$sysfs/cpu/pool
check "and that it is over" wait_until 30 grep -q " cpu: enough" "$work/advice"

check "elastic-plot --record: the VM is in the trace" \
	wait_until 30 grep -q "elastic_target: vm=$vm_pid cpu_grant=2 " "$work/trace"
kill $recorder
wait $recorder
is "$?" 0 "and ends when it is told"
check "without a trace" [ -z "$(ls /sys/kernel/tracing/instances 2>/dev/null)" ]
if command -v gnuplot >/dev/null; then
	check "elastic-plot" eval '"$tools/elastic-plot" "$work/trace" -o "$work/plot"'
	check "an SVG" grep -q "VM $vm_pid" "$work/plot.svg"
	check "and a PNG" eval '[ "$(head -c 4 "$work/plot.png" | tail -c 3)" = PNG ]'
else
	skip "elastic-plot" "gnuplot is missing"
fi
# It has the VM's input open, too, which ends the VM
kill $listener
wait $listener || :
vm_stop
check "a trace of nothing is refused" \
	eval 'echo nothing >"$work/none"; ! "$tools/elastic-plot" "$work/none" 2>/dev/null'
check "the kernel's log is clean" log_is_clean
finish
