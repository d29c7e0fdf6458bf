#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A guest that reboots is unmanaged, has its whole ceiling, and can be managed
# again.
. "$(dirname "$0")/loop.sh"

this_boot()
{
	guest 'cat /proc/sys/kernel/random/boot_id' 2>/dev/null
}

booted_again()
{
	now=$(this_boot)
	[ -n "$now" ] && [ "$now" != "$boot_id" ]
}

loop_begin
without_warm
guest_start --machine q35 --reboot
check 'it has one CPU' settle
check 'manual mode' gput_is OK mode manual
check 'three CPUs' gput_is OK cpus 3
boot=$(gget memory_mib)
check '256 MiB more' gput_is OK memory_mib $((boot + 256))
check 'memory and CPUs back' eval \
	'wait_until 30 gput_is OK memory_mib $boot && gput_is OK cpus 2'
boot_id=$(this_boot)
guest "($WAIT_HOST; reboot -f) >/dev/null 2>&1 &"
host_says_go
check 'reboot: the VM is unmanaged' wait_until 60 vm_is state unmanaged
check 'and has its ceiling' wait_until 30 vm_is cpu/grant "$(vm_get cpu/ceiling)"
check 'the guest boots again' wait_until 250 booted_again
check 'the module loads again' guest_load
check 'the VM is managed' vm_is state managed
check 'one CPU' wait_until 60 vm_is cpu/grant 1
check 'the guest ends well' guest_end
loop_finish
