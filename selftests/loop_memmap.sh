#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A guest whose kernel was told to keep the struct pages of a new block in the block
# itself (memory_hotplug.memmap_on_memory): each block that comes costs no other memory,
# and its first unit is granted and in use as long as the block is there.
. "$(dirname "$0")/loop.sh"

meminfo()
{
	guest "awk '/^$1:/ { print int(\$2 / 1024) }' /proc/meminfo"
}

loop_begin
without_warm
guest_start --append memory_hotplug.memmap_on_memory=1
check 'the kernel does so' [ "$(guest 'cat /sys/module/memory_hotplug/parameters/memmap_on_memory')" = Y ]
check 'it has one CPU' settle
check 'manual mode' gput_is OK mode manual
boot=$(gget memory_mib)
total=$(meminfo MemTotal)
check '512 MiB more' gput_is OK memory_mib $((boot + 512))
check 'they are granted' vm_at_least memory/grant_mib $((FLOOR_MIB + 512))
came=$(($(meminfo MemTotal) - total))
diag "MemTotal rose by $came MiB"
check 'each of the four blocks keeps a unit for itself' eval \
	'[ "$came" -ge 503 ] && [ "$came" -le 505 ]'
check 'all of it can be written' guest '/load touch 900'
check '20 units less' gput_is OK memory_mib $((boot + 472))
check 'and again' gput_is OK memory_mib $((boot + 512))
check 'as at the beginning' wait_until 60 gput_is OK memory_mib "$boot"
check 'the host has all of it' wait_until 30 vm_at_most memory/grant_mib "$FLOOR_MIB"
check 'in pages, too' wait_until 30 ram_at_most "$FLOOR_MIB"

guest "echo 128 >$GUEST_SYSFS/tunables/mem_warm_mib"
check 'auto mode, and a warm block' gput_is OK mode auto
check 'it comes, but for its first unit' wait_until 60 eval \
	'[ "$(gget state/units_warm)" -ge 62 ]'
check 'manual mode' gput_is OK mode manual
added=$(gget stats/blocks_added)
check '40 MiB of it' gput_is OK memory_mib $(($(gget memory_mib) + 40))
check 'without another block' [ "$(gget stats/blocks_added)" = "$added" ]
guest "echo 0 >$GUEST_SYSFS/tunables/mem_warm_mib"
check 'as at the beginning' wait_until 60 gput_is OK memory_mib "$boot"
# In a block of which the kernel itself uses a part the rest stays warm.
check 'without a warm block' wait_until 60 eval \
	'[ "$(gget state/units_warm)" -le $((63 * $(gget state/blocks_online))) ]'
check 'the guest touched nothing that it was not granted' vm_is stats/gated 0
check 'all that was released was taken' vm_is stats/unreclaimed_bytes 0
check 'the guest ends well' guest_end
loop_finish
