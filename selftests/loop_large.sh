#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A guest of 256 MiB grows to 64 GiB: the struct pages of what comes take a gigabyte, and
# have to find room in what came before.
. "$(dirname "$0")/loop.sh"

overcommit=$(cat /proc/sys/vm/overcommit_memory)
restore()
{
	echo "$overcommit" >/proc/sys/vm/overcommit_memory
}

loop_begin
at_exit restore
pool=$(cat "$SYSFS/memory/pool_mib")
# The host has less than that: what is not touched costs it nothing.
echo 1 >/proc/sys/vm/overcommit_memory
echo 80000 >"$SYSFS/memory/pool_mib"
guest_start --mem 66G --floor-mem 256M --machine q35
check 'it has one CPU' settle
check 'and 256 MiB' [ "$(gget memory_mib)" -le 258 ]
check 'manual mode' gput_is OK mode manual
check '64 GiB' gput_is OK memory_mib 65536
total=$(guest "awk '/^MemTotal/ { print int(\$2 / 1024) }' /proc/meminfo")
check 'the kernel has them, but for its struct pages' [ "$total" -ge $((65536 - 1100 - 100)) ]
kernel=$(gget state/units_kernel)
diag "kernel memory of the window: $((2 * kernel)) MiB; $(gget stats/block_add_last_us) us a block"
check 'some of it is kernel memory' [ "$kernel" -gt 0 ]
check 'most of it is not' [ "$kernel" -lt $((32768 / 4)) ]
check 'nothing was killed' [ "$(guest "awk '/^oom_kill / { print \$2 }' /proc/vmstat")" = 0 ]
guest_bg touch '/load touch 600'
check 'it can be used' guest_done touch 200
check 'and given back' wait_until 120 gput_is OK memory_mib 1024
check 'the guest touched nothing that it was not granted' vm_is stats/gated 0
check 'the guest ends well' guest_end
echo "$pool" >"$SYSFS/memory/pool_mib"
loop_finish
