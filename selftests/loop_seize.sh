#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A Linux guest that loses vCPUs which it has online: it lives on when it has them
# back, and one that was only late can still take them offline.
. "$(dirname "$0")/loop.sh"

online_is()
{
	[ "$(guest nproc)" = "$1" ]
}

# Just now the guest has reported, and will not again for some seconds.
has_reported()
{
	reports=$(gget stats/reports)
	wait_until 60 eval '[ "$(gget stats/reports)" != "$reports" ]'
}

loop_begin
save_file $SYSFS/cpu/deadline_ms
guest_start
check 'it has one CPU' settle
check 'manual mode' gput_is OK mode manual
check 'four CPUs' gput_is OK cpus 4
check 'it says BYE' gput_is OK enable 0
check 'nobody reports any more' vm_is state detached

echo 500 >$SYSFS/cpu/deadline_ms
echo 1 >"$VM/cpu/max"
check 'a maximum of one: three are seized' wait_until 30 vm_is cpu/seized 3
check 'it is uncooperative' vm_is uncooperative cpu
check 'the one that booted is granted' vm_is cpu/list 0
echo 4 >"$VM/cpu/max"
check 'a maximum of four: it has them back' wait_until 30 vm_is cpu/grant 4
check 'it is forgiven' wait_until 30 vm_is uncooperative none
check 'the guest lives on with all of them' wait_until 60 online_is 4
check 'and they run' guest '/load spin 4 1 4'

check 'it says HELLO again' gput_is OK enable 1
check 'with all it had' wait_until 30 vm_is cpu/use 4
guest "echo 5000 >$GUEST_SYSFS/tunables/report_period_ms"
check 'it reports every five seconds, and has just done so' has_reported
echo 100 >$SYSFS/cpu/deadline_ms
echo 1 >"$VM/cpu/max"
check 'a deadline before its next report: some are seized' \
	wait_until 30 vm_at_least stats/seized 4
check 'it takes them offline all the same' wait_until 120 vm_is cpu/seized 0
check 'and is forgiven' wait_until 60 vm_is uncooperative none
check 'it has one CPU granted' vm_is cpu/grant 1
check 'and one online' wait_until 60 online_is 1
check 'the guest ends well' guest_end
loop_finish
