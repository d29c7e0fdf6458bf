#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The host lowers what a VM may have while it is in use: the guest shrinks at its
# next REPORT. The pools bound all VMs together.
. "$(dirname "$0")/loop.sh"

pools()
{
	cpu_pool=$(cat $SYSFS/cpu/pool)
	mem_pool=$(cat $SYSFS/memory/pool_mib)
	at_exit "echo $cpu_pool >$SYSFS/cpu/pool"
	at_exit "echo $mem_pool >$SYSFS/memory/pool_mib"
}

loop_begin
without_warm
pools
guest_start
check 'it has one CPU' settle
guest_bg spin '/load spin 4 1000'
check 'four busy processes: four CPUs' wait_until 60 vm_is cpu/grant 4
echo 2 >"$VM/cpu/max"
check 'maximum 2, under load: two CPUs' wait_until 60 vm_is cpu/grant 2
check 'the guest knows its target' wait_until 30 eval '[ "$(gget state/cpus_target)" = 2 ]'
echo 4 >"$VM/cpu/max"
check 'maximum 4: four CPUs again' wait_until 60 vm_is cpu/grant 4
guest 'killall load'
check 'idle: one CPU' wait_until 60 vm_is cpu/grant 1

# The policy may have asked for one more CPU since: by hand, it is one.
check 'manual mode' gput_is OK mode manual
check 'one CPU by hand' gput_is OK cpus 1
check 'manual mode: 512 MiB more' gput_is OK memory_mib $(($(gget memory_mib) + 512))
grant=$(vm_get memory/grant_mib)
echo $((grant - 256)) >"$VM/memory/max_mib"
check 'maximum 256 MiB lower: the guest gives them back' \
	wait_until 60 vm_at_most memory/grant_mib $((grant - 256))
vm_get memory/ceiling_mib >"$VM/memory/max_mib"

cat $SYSFS/cpu/used >$SYSFS/cpu/pool
check 'an empty pool: refused for now' gput_is EAGAIN cpus 2
check 'the reason is told' eval 'gget last_refusal | grep "reason=pool"'
check 'the host counted it' vm_at_least stats/refused_pool 1
echo "$cpu_pool" >$SYSFS/cpu/pool
check 'a full one: granted' gput_is OK cpus 2
check 'the guest ends well' guest_end
loop_finish
