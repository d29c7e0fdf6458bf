#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The guest module is unloaded and loaded again: it says BYE, leaves the guest
# with what it has, and adopts it.
. "$(dirname "$0")/loop.sh"

loop_begin
without_warm
guest_start
check 'it has one CPU' settle
check 'manual mode' gput_is OK mode manual
boot=$(gget memory_mib)
check 'three CPUs' gput_is OK cpus 3
check '256 MiB more' gput_is OK memory_mib $((boot + 256))
grant=$(vm_get memory/grant_mib)
check 'unload' guest 'rmmod elastic_guest'
check 'the VM is detached' vm_is state detached
check 'three CPUs are granted' vm_is cpu/grant 3
check 'and the memory' vm_is memory/grant_mib "$grant"
check 'three CPUs are online' [ "$(guest nproc)" = 3 ]
check 'load again' guest 'insmod /elastic_guest.ko manual=1'
tune
check 'the VM is managed' vm_is state managed
check 'nothing changed: CPUs' vm_is cpu/grant 3
check 'memory' wait_until 30 vm_is memory/grant_mib "$grant"
check 'the memory is known' [ "$(gget memory_mib)" = $((boot + 256)) ]
check 'and can be given back' wait_until 30 gput_is OK memory_mib "$boot"
check 'the CPUs too' gput_is OK cpus 1
check 'both are' eval 'vm_is cpu/grant 1 && vm_at_most memory/grant_mib $((grant - 256))'

check 'a part of a block' gput_is OK memory_mib $((boot + 300))
check 'and another one' gput_is OK memory_mib $((boot + 270))
grant=$(vm_get memory/grant_mib)
check 'unload, with a part of a block in use' guest 'rmmod elastic_guest'
check 'what guards it stays granted' vm_is memory/grant_mib "$grant"
check 'load again' guest 'insmod /elastic_guest.ko manual=1'
tune
check 'the part is known' [ "$(gget memory_mib)" = $((boot + 270)) ]
check 'and nothing else is granted' wait_until 30 vm_is memory/grant_mib "$grant"
check 'the rest of the block can be used' gput_is OK memory_mib $((boot + 384))
check 'and all of it given back' wait_until 30 gput_is OK memory_mib "$boot"
check 'that is granted no more' wait_until 30 vm_at_most memory/grant_mib "$FLOOR_MIB"
gput mode auto >/dev/null

guest_bg touch 'until [ -e /tmp/stop ]; do /load touch 300; done'
guest_bg spin '/load spin 4 1000'
n=0
while [ $n -lt 4 ]; do
	check 'unload under load' guest 'rmmod elastic_guest'
	check 'load under load' guest_load
	n=$((n + 1))
done
check 'four CPUs' wait_until 60 vm_is cpu/grant 4
guest 'touch /tmp/stop; killall load; true'
check 'disable' gput_is OK enable 0
check 'the VM is detached' vm_is state detached
check 'enable' gput_is OK enable 1
check 'the VM is managed' vm_is state managed
check 'idle: one CPU' wait_until 60 vm_is cpu/grant 1
check 'the guest touched nothing that it was not granted' vm_is stats/gated 0
check 'the guest ends well' guest_end
loop_finish
