#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# A guest that goes to sleep takes its CPUs offline and wants them back. The
# kernel's own test mode stops short of sleeping and wakes up a second later.
. "$(dirname "$0")/loop.sh"

# The cloud flavour has no such test mode.
GUEST_KO=$BUILD/$GUEST_KERNEL/elastic_guest.ko

# Least number of vCPUs granted while the guest sleeps: for 15 s, and until it was silent for
# 3 s and has spoken again. (It is not spoken to: the ports by which it answers sleep, too.)
least_grant()
{
	least=$(vm_get cpu/grant) gap=0 reports=
	heard=$(date +%s)
	end=$((heard + 15)) limit=$((heard + 120))
	while now=$(date +%s); [ "$now" -lt $limit ] && { [ "$now" -lt $end ] || [ $gap -lt 3 ]; }; do
		grant=$(vm_get cpu/grant)
		[ "$grant" -ge "$least" ] || least=$grant
		seen=$(vm_get stats/report)
		[ "$seen" != "$reports" ] || continue
		[ $((now - heard)) -le $gap ] || gap=$((now - heard))
		reports=$seen heard=$now
	done
	echo "$least"
}

loop_begin
guest_start --flavour amd64 --machine q35
settle
check 'manual mode' gput_is OK mode manual
check 'three CPUs' gput_is OK cpus 3
guest 'echo processors >/sys/power/pm_test && echo 3 >/sys/module/suspend/parameters/pm_test_delay' ||
	bail 'the guest has no test mode of sleep'
calls=$(gget stats/releases)
guest_bg sleep "$WAIT_HOST; echo mem >/sys/power/state"
host_says_go
check 'nothing is given up while it sleeps' [ "$(least_grant)" = 3 ]
check 'it wakes up' guest_done sleep 120
check 'it did sleep' guest 'dmesg | grep -q "suspend debug: Waiting for 3 second"'
check 'its CPUs are online again' [ "$(guest nproc)" = 3 ]
check 'and there was no release' [ "$(gget stats/releases)" = "$calls" ]
check 'it reports again' eval 'a=$(gget stats/reports); wait_until 30 eval "[ \$(gget stats/reports) -gt $a ]"'
check 'and obeys: one CPU' gput_is OK cpus 1
check 'one is granted' vm_is cpu/grant 1
check 'the guest ends well' guest_end
loop_finish
