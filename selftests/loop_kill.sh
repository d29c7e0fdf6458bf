#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The VMM is killed in every state of its VM. Nothing is left behind: no
# directory, no share of a pool, no KVM, no use of the module.
. "$(dirname "$0")/loop.sh"

kvm_vms()
{
	find /sys/kernel/debug/kvm -mindepth 1 -maxdepth 1 -type d | wc -l
}

# killed STATE: kill it now, and look.
killed()
{
	if guest_died; then
		guest_kill
		bail "it has died by itself, $1"
	fi
	kill -9 "$QEMU"
	wait "$GUEST" 2>/dev/null
	GUEST=
	check "killed $1: its directory is gone" wait_until 30 eval '! [ -e $VM ]'
	check 'nothing is used of the pools' wait_until 30 eval \
		'[ "$(cat $SYSFS/cpu/used $SYSFS/memory/used_mib | tr -d "\n")" = 00 ]'
	check 'KVM has no VM of it' wait_until 30 eval '[ "$(kvm_vms)" = "$others" ]'
}

loop_begin
without_warm
others=$(kvm_vms)
guest_boot
killed 'before HELLO'

guest_start
settle
killed 'managed, idle, three vCPUs held'

guest_start
grant=$(vm_get memory/grant_mib)
guest_bg touch '/load touch 1200 60'
wait_until 30 vm_at_least memory/grant_mib $((grant + 256))
killed 'growing'

guest_start --backend memfd
gput mode manual >/dev/null
boot=$(gget memory_mib)
gput memory_mib $((boot + 1024)) >/dev/null
grant=$(vm_get memory/grant_mib)
guest_bg shrink "echo $boot >$GUEST_SYSFS/memory_mib; echo 4 >$GUEST_SYSFS/cpus"
wait_until 20 vm_at_most memory/grant_mib $((grant - 128))
killed 'shrinking'

guest_start
guest 'rmmod elastic_guest'
check 'detached' vm_is state detached
killed 'detached'
check 'the module can be unloaded' host_unload
loop_finish
