#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The host module's tracepoints: all are there, each fires when its decision or
# change happens, names its VM, and is made of key=value pairs.

# Conditions are evaluated later:
# shellcheck disable=SC2016
. "$(dirname "$0")/lib.sh"

need_loaded
mark_log

tracing=/sys/kernel/tracing
[ -e $tracing/instances ] || tracing=/sys/kernel/debug/tracing
[ -e $tracing/instances ] || skip_all "tracefs is not mounted"

is "$(cd $tracing/events/elastic_host && find . -mindepth 1 -maxdepth 1 -type d -printf '%f\n' |
	sort | xargs)" \
	"elastic_advice elastic_bye elastic_discard elastic_forgiven elastic_gate elastic_give_back elastic_hello elastic_hold elastic_place elastic_pool elastic_release elastic_report elastic_request elastic_seize elastic_state elastic_take elastic_target elastic_uncooperative elastic_unhold elastic_unplace" \
	"the tracepoints of system elastic_host"

# A buffer of its own: whoever traces on this host is not disturbed
trace=$tracing/instances/elastic_selftest.$$
mkdir "$trace" || bail "cannot make a trace instance"
at_exit "rmdir '$trace'"
at_exit "echo 0 > '$trace/events/elastic_host/enable'"
echo 1 >"$trace/events/elastic_host/enable"

# events NAME: the lines of one tracepoint of the VM
events()
{
	grep " $1: " "$trace/trace" | sed 's/.*'" $1: "'//' | grep -w "vm=$vm_pid"
}

# event NAME WHAT: it came since the last look
event()
{
	if lines=$(events "$1"); then
		pass "$1: $2: $(echo "$lines" | head -n 1)"
	else
		fail "$1: $2"
	fi
}

# forget: what follows is looked at by itself
forget()
{
	cat "$trace/trace" >>"$work/all"
	echo >"$trace/trace"
}

vm_start -v 3 -m 64
vm start 1 >/dev/null
vm_counts 1 || bail "vCPU 1 does not count"
forget
is "$(vm_status hello 1 16 4)" 0 "HELLO"
event elastic_hello "a session begins"
event elastic_state "managed"
event elastic_take "memory that is not held"
check "vCPU 1 is held" vm_stops 1
wait_until 30 eval 'events elastic_hold >/dev/null'
event elastic_hold "a running vCPU"
forget
vm report >/dev/null
event elastic_report "telemetry"
event elastic_target "what comes of it"
vm request 2 16 1 >/dev/null
event elastic_request "a grant"
wait_until 30 eval 'events elastic_unhold >/dev/null'
event elastic_unhold "the vCPU that was granted"
forget
vm request 0x400 0 0 >/dev/null
event elastic_request "a refusal"
forget
vm release_cpu 2 >/dev/null
event elastic_release "a vCPU"
forget
vm touch 8 >/dev/null
vm release_mem 8 1 >/dev/null
event elastic_release "a unit"
event elastic_take "its memory"
is "$(vm touch 8)" "error EFAULT" "touching it"
event elastic_gate "the touch"
forget

# What the arbiter does: a deadline, room again, the host's own memory, advice
sysfs=/sys/kernel/elastic_host
# Undone from the last to the first
for file in memory/pool_mib cpu/pool cpu/deadline_ms memory/low_mib advice_ms; do
	save_file $sysfs/$file
done
dir=$sysfs/vms/$vm_pid
echo 100 >$sysfs/cpu/deadline_ms
vm request 6 0 0 >/dev/null
echo 1 >"$dir/cpu/max"
wait_until 30 eval '[ $(cat $dir/cpu/seized) = 2 ]'
event elastic_uncooperative "a deadline has passed"
event elastic_seize "its vCPUs"
forget
echo 3 >"$dir/cpu/max"
wait_until 30 eval 'events elastic_forgiven >/dev/null'
event elastic_give_back "there is room again"
event elastic_forgiven "and it is over"
forget
echo 1000000 >$sysfs/memory/low_mib
check "elastic_pool: the host is short" wait_until 30 grep -q " elastic_pool: " "$trace/trace"
echo 100 >$sysfs/advice_ms
echo 1 >$sysfs/cpu/pool
vm request 6 0 0 >/dev/null
check "elastic_advice: more is needed than there is" \
	wait_until 30 grep -q " elastic_advice: " "$trace/trace"
forget
vm bye >/dev/null
event elastic_bye "the session's end"
event elastic_state "detached"
forget
vm reset >/dev/null
event elastic_state "unmanaged"
forget
vm_stop

# Nothing but key=value after the name, so that any tool can take it apart
odd=$(sed -n 's/.* \(elastic_[a-z_]*\): /\1: /p' "$work/all" |
	grep -vE '^elastic_[a-z_]+:( [a-z_]+=[^ =]+)+$')
is "$odd" "" "all $(grep -c ' elastic_' "$work/all") events are made of key=value"
check "the kernel's log is clean" log_is_clean
finish
