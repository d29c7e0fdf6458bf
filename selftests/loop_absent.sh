#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The host module is absent, comes, goes and comes back under a running guest.
. "$(dirname "$0")/loop.sh"

loop_begin
without_warm
check 'unload the host module' host_unload
guest_boot
guest 'dmesg -c >/dev/null'
message=$(guest 'insmod /elastic_guest.ko 2>&1; echo $?')
check 'without it insmod fails with ENODEV' eval 'echo "$message" | grep -q "No such device"'
# busybox tries both system calls that load a module, so each line may be there twice;
# the kernel itself says that a module which is not its own taints it.
check 'and one line' [ "$(guest "dmesg | grep elastic_guest: | grep -v taint |
	sed 's/.*elastic_guest: //' | sort -u | wc -l")" = 1 ]
check 'which is clear' eval 'guest "dmesg | grep elastic_guest:" | grep "no elastic_host module"'
check 'user space of the guest is not heard' eval 'guest "/load call" | grep "^status=-1$"'

check 'load the host module' host_load
check 'now the guest module loads' guest_load
check 'the VM is managed' vm_is state managed
check 'user space of the guest is still not heard' eval 'guest "/load call" | grep "^status=-1$"'
check 'manual mode' gput_is OK mode manual
check 'two CPUs' gput_is OK cpus 2
boot=$(gget memory_mib)
check '256 MiB more' gput_is OK memory_mib $((boot + 256))

check 'unload the host module under the guest' host_unload
check 'the guest runs on' guest true
check 'it knows that the session is lost' wait_until 30 eval '[ "$(gget state/session)" = lost ]'
check 'load the host module again' host_load
check 'the guest says HELLO by itself' wait_until 60 vm_is state managed
check 'with what it holds: two CPUs' vm_is cpu/grant 2
check 'and can have more' gput_is OK cpus 4
check 'and give memory back' wait_until 30 gput_is OK memory_mib "$boot"

guest_bg spin '/load spin 4 1000'
gput mode auto >/dev/null
n=0
while [ $n -lt 3 ]; do
	check 'unload under load' host_unload
	check 'load under load' host_load
	check 'HELLO' wait_until 60 vm_is state managed
	n=$((n + 1))
done
guest 'killall load'
check 'idle: one CPU' wait_until 60 vm_is cpu/grant 1
check 'the guest ends well' guest_end
loop_finish
