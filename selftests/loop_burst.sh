#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Bursts: of kernel memory to four times the floor; of memory with nothing kept in
# reserve, so that only the OOM notifier is left; and one that the host refuses.
. "$(dirname "$0")/loop.sh"

oom_kills()
{
	guest "awk '/^oom_kill / { print \$2 }' /proc/vmstat"
}

# kills_are N: so many were killed since the guest booted
kills_are()
{
	[ "$(oom_kills)" = "$1" ]
}

# For the summary, which has names of checks alone: who ran out of which memory, if that was.
killer()
{
	kills_are 0 || guest "dmesg | sed -n 's/^.*\] \(.*\) invoked oom-killer: \(gfp_mask=[^,]*\).*/ (\1, \2)/p' |
		head -n 1"
}

# What the guest has to say of a kill, if there was one.
why_killed()
{
	kills_are 0 || guest "cd $GUEST_SYSFS && grep -H . last_refusal stats/* state/*
		dmesg | grep -A 60 'invoked oom-killer' | head -n 90" | sed 's/^/# /'
}

# going_for SECONDS: all that time one block of the guest is on its way out. Its free pages are
# in no count, so what is free beside them is printed.
going_for()
{
	guest "going() { grep -l going-offline /sys/devices/system/memory/memory*/state; }
		block=\$(going) && sleep $1 &&
		awk '/^MemFree/ { print int(\$2 / 1024) }' /proc/meminfo &&
		[ \"\$(going)\" = \"\$block\" ]" >"$work/free"
}

no_report()
{
	reports=$(gget stats/reports)
	guest 'sleep 2'
	[ "$(gget stats/reports)" = "$reports" ]
}

idle_again()
{
	wait_until 120 eval '[ "$(gget memory_mib)" -le $((boot + 256)) ]'
}

loop_begin
guest_start --mem 4G --floor-mem 256M
check 'it has one CPU' settle
boot=$(gget memory_mib)
for load in 'pipes 900' 'sockets 900' 'files 200'; do
	guest_bg kernel "/load kernel $load"
	check "kernel memory: $load MiB" guest_done kernel 400
	check "nothing was killed$(killer)" kills_are 0
	check 'afterwards it shrinks' idle_again
done
check 'memory was brought in for the kernel' [ "$(gget stats/kernel_growths)" -gt 0 ]
diag "direct reclaims $(gget stats/direct_reclaims), OOM calls $(gget stats/oom_calls)"

# All that the host gives is in use, and goes again by own decision, which one page of a
# block delays. A program runs beside that, and ends it when it needs what is on its way.
guest "echo 60000 >$GUEST_SYSFS/tunables/mem_offline_timeout_ms"
guest_bg pin '/load pin 300 10 100'
wait_until 60 guest 'grep -q ^touched /tmp/pin'
guest 'sleep 2'
vm_max=$(vm_get memory/max_mib)
vm_get memory/grant_mib >"$VM/memory/max_mib"
wait_until 60 guest 'grep -q ^pinned /tmp/pin'
check 'a block is on its way out' wait_until 60 going_for 2
free=$(cat "$work/free")
ended=$(gget stats/offline_eintr)
guest_bg touch "/load touch $((free + 30))"
check 'a program writes 30 MiB more than is free' guest_done touch 45
check 'which ended that' [ "$(gget stats/offline_eintr)" -gt "$ended" ]
check "nothing was killed$(killer)" kills_are 0
why_killed
diag "direct reclaims $(gget stats/direct_reclaims), OOM calls $(gget stats/oom_calls)"
diag "$free MiB free; $(guest 'cat /tmp/touch' | tr '\n' ' ')"
echo "$vm_max" >"$VM/memory/max_mib"
guest "killall load; echo 10000 >$GUEST_SYSFS/tunables/mem_offline_timeout_ms"

check 'nothing in reserve' guest "cd $GUEST_SYSFS/tunables &&
	for t in mem_reserve_mib mem_reserve_permille mem_lookahead_ms mem_kernel_reserve_mib \
		mem_kernel_reserve_permille mem_burst_mib; do echo 0 >\$t; done"
# CPUs come and go meanwhile, which needs memory, too, and keeps the worker busy.
guest_bg spin 'until [ -e /tmp/touched ]; do /load spin 3 1; sleep 1; done'
guest_bg touch "/load touch 600; status=\$?; >/tmp/touched; (exit \$status)"
check 'a program writes 600 MiB' guest_done touch 400
check 'and CPUs came and went' guest_done spin 60
check "nothing was killed$(killer)" kills_are 0
why_killed
diag "direct reclaims $(gget stats/direct_reclaims), OOM calls $(gget stats/oom_calls)," \
	"rescues $(gget stats/oom_rescues)"
check 'memory had run out, and came' [ "$(gget stats/oom_rescues)" -gt 0 ]

# The guest does not hear of the new maximum, but when it asks.
guest "echo 60000 >$GUEST_SYSFS/tunables/report_period_ms"
wait_until 60 no_report
echo $(($(vm_get memory/grant_mib) + 64)) >"$VM/memory/max_mib"
kills=$(oom_kills)
guest_bg touch "/load touch 2000"
check 'a program that writes more than the host gives is killed' \
	wait_until 400 kills_are $((kills + 1))
guest 'sleep 12'
check 'and nothing else, when that has made room' kills_are $((kills + 1))
check 'the guest lives, and shows what was refused' eval \
	'gget last_refusal | grep -q "^units .*reason=maximum"'
diag "$(gget last_refusal); OOM calls $(gget stats/oom_calls), rescues $(gget stats/oom_rescues)"
check 'the guest touched nothing that it was not granted' vm_is stats/gated 0
check 'the guest ends well' guest_end
loop_finish
