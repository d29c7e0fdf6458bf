#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# QEMU's monitor works while vCPUs are held: it queries, stops and continues
# them, also vCPUs that ran before.
. "$(dirname "$0")/loop.sh"

monitor()
{
	check "$1: info cpus has four" [ "$(hmp 'info cpus' | grep -c 'CPU #')" = 4 ]
	check "$1: info registers -a has four" \
		[ "$(hmp 'info registers -a' | grep -c '^CPU#')" = 4 ]
	check "$1: stop" qmp stop
	check "$1: it is stopped" eval 'hmp "info status" | grep -q paused'
	check "$1: registers of a stopped VM" \
		[ "$(hmp 'info registers -a' | grep -c '^CPU#')" = 4 ]
	check "$1: cont" qmp cont
	check "$1: the guest answers" guest true
	check "$1: one CPU is granted" vm_is cpu/grant 1
	check "$1: one is online" [ "$(guest nproc)" = 1 ]
}

loop_begin
guest_boot
# No CPU is to come by itself.
check 'the module loads in manual mode' guest 'insmod /elastic_guest.ko manual=1'
tune
monitor 'never started'
check 'four CPUs' gput_is OK cpus 4
check 'stop and cont with four CPUs' eval 'qmp stop && qmp cont && guest true'
check 'one CPU' gput_is OK cpus 1
monitor 'taken'
n=0
while [ $n -lt 6 ]; do
	{ qmp stop && qmp cont; } >/dev/null || break
	n=$((n + 1))
done
check 'stop and cont, six times' [ $n = 6 ]
check 'a signal starts no vCPU' [ "$(guest nproc)" = 1 ]
check 'and they can be granted still' gput_is OK cpus 4
check 'four are online' [ "$(guest nproc)" = 4 ]
check 'the guest ends well' guest_end
loop_finish
