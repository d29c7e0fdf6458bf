#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Manual mode: a write returns when it is done or refused, with the errno.
. "$(dirname "$0")/loop.sh"

online()
{
	guest 'nproc'
}

total_mib()
{
	guest "awk '/^MemTotal/ { print int(\$2 / 1024) }' /proc/meminfo"
}

# by_hand ERRNO CPU VALUE: write to its file in the guest's sysfs
by_hand()
{
	guest "/load write $cpu$2/online $3" | grep -q "^$1"
}

loop_begin
without_warm
guest_start
check 'it has one CPU' settle
boot=$(gget memory_mib)
check 'in auto mode requests are not permitted: CPUs' gput_is EPERM cpus 2
check 'and memory' gput_is EPERM memory_mib $((boot + 128))
check 'manual mode' gput_is OK mode manual
boot=$(gget memory_mib)

check 'cpus=3' gput_is OK cpus 3
check 'three are granted' vm_is cpu/grant 3
check 'three are online' [ "$(online)" = 3 ]
check 'cpus=1' gput_is OK cpus 1
check 'one is granted' vm_is cpu/grant 1
check 'one is online' [ "$(online)" = 1 ]
check 'cpus=0' gput_is ERANGE cpus 0
check 'cpus=5, of 4' gput_is ERANGE cpus 5
check 'cpus=x' gput_is EINVAL cpus x
check 'nothing changed' vm_is cpu/grant 1
cpu=/sys/devices/system/cpu/cpu
check 'a CPU that is not granted cannot be brought online by hand' \
	by_hand 'EPERM ' 2 1
check 'and comes when it is granted' gput_is OK cpus 4
check 'a granted one goes by hand' by_hand 'OK ' 3 0
check 'and is given up' wait_until 30 vm_is cpu/grant 3
check 'cpus=1' gput_is OK cpus 1

before=$(total_mib)
grant=$(vm_get memory/grant_mib)
check '256 MiB more' gput_is OK memory_mib $((boot + 256))
check 'they are granted' vm_is memory/grant_mib $((grant + 256))
check 'they are in use' [ "$(total_mib)" -ge $((before + 250)) ]
check 'as before' wait_until 30 gput_is OK memory_mib "$boot"
check 'they are not granted any more' vm_is memory/grant_mib "$grant"
check 'they are not in use' [ "$(total_mib)" -le "$before" ]
check 'less than there was at boot' gput_is ERANGE memory_mib $((boot - 2))
check 'more than there is' gput_is ERANGE memory_mib 999999
check 'memory_mib=-1' gput_is EINVAL memory_mib -1
check 'nothing changed' vm_is memory/grant_mib "$grant"

echo 2 >"$VM/cpu/max"
check 'over the maximum of the host: CPUs' gput_is ENOSPC cpus 4
check 'as many as may be are granted' vm_is cpu/grant 2
check 'the reason is told' eval 'gget last_refusal | grep "^cpus .*reason=maximum"'
echo $((grant + 128)) >"$VM/memory/max_mib"
check 'over the maximum of the host: memory' gput_is ENOSPC memory_mib $((boot + 256))
check 'as much as may be is granted' vm_at_most memory/grant_mib $((grant + 128))
check 'the reason is told' eval 'gget last_refusal | grep "^units .*reason=maximum"'
check 'the host counted it' vm_at_least stats/refused_max 2

# The last REPORT still says 2: what is granted now must not be taken back for it
reports=$(vm_get stats/report)
echo 4 >"$VM/cpu/max"
check 'a maximum is raised: what it allows is granted' gput_is OK cpus 4
check 'two reports later' wait_until 30 vm_at_least stats/report $((reports + 3))
check 'it is still there' vm_is cpu/grant 4
# Of the three that may go one is idle
for mask in 2 8; do
	guest_bg spin$mask "taskset $mask sh -c 'echo \$\$ >/run/spin$mask; while :; do :; done'"
done
check 'the host names the vCPU that ran least' wait_until 30 eval '[ "$(gget state/cpu_hint)" = 3 ]'
check 'cpus=3' gput_is OK cpus 3
check 'that one has gone' guest 'grep -qx 0-1,3 /sys/devices/system/cpu/online'
check 'the host has it back' vm_is cpu/list 0-1,3
check 'counted' [ "$(gget stats/cpus_hinted)" -ge 1 ]
guest 'kill $(cat /run/spin2 /run/spin8)'
check 'back to auto mode' gput_is OK mode auto
check 'it shrinks by itself' wait_until 60 vm_is cpu/grant 1
check 'the guest ends well' guest_end
loop_finish
