#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Memory by unit: a guest grows and shrinks by 2 MiB out of warm blocks, keeps a guard
# behind what is in use, and nobody brings its blocks on- or offline by hand.
. "$(dirname "$0")/loop.sh"

state()
{
	gget "state/$1"
}

# used_is MIB: so much more than at boot is in use, and the grant is that and its guards
used_is()
{
	[ "$(gget memory_mib)" = $((boot + $1)) ] || return 1
	vm_at_least memory/grant_mib $((FLOOR_MIB - 2 + $1)) &&
		wait_until 30 vm_at_most memory/grant_mib $((FLOOR_MIB + ${2:-4} + $1))
}

# by_hand WORD: write it to the state of each block that is not of boot memory
by_hand()
{
	guest "for b in /sys/devices/system/memory/memory*; do
		[ \$((0x\$(cat /sys/devices/system/memory/block_size_bytes) * \${b##*memory})) -ge \
			$((512 << 20)) ] && /load write \$b/state $1; done"
}

loop_begin
guest_start
check 'it has one CPU, and warm memory' settle
check 'of both kinds' eval \
	'[ "$(state units_warm_kernel)" -ge 64 ] && [ "$(state units_warm)" -ge 128 ]'
check 'which is not granted' [ "$FLOOR_MIB" -le "$FLOOR_MAX" ]
check 'manual mode' gput_is OK mode manual
boot=$(gget memory_mib)
by_hand offline >"$work/by_hand"
check 'what is warm cannot be taken offline by hand' eval \
	'grep -q "^EPERM" "$work/by_hand" && ! grep -q "^OK" "$work/by_hand"'

check 'one unit' gput_is OK memory_mib $((boot + 2))
check 'it is in use' used_is 2
check 'three more' gput_is OK memory_mib $((boot + 8))
check 'they are in use' used_is 8
check 'it took the guest no new block' [ "$(gget stats/plug_last_ns)" -gt 0 ]
diag "3 units out of warm memory: $(gget stats/plug_last_ns) ns"
check '191 more' gput_is OK memory_mib $((boot + 390))
check 'they are in use' used_is 390
total=$(guest "awk '/^MemTotal/ { print int(\$2 / 1024) }' /proc/meminfo")
check 'the kernel has them' [ "$total" -ge $((boot + 390 - 60)) ]
check 'warm memory comes again' wait_until 60 warm_is_kept

check '5 units less: none of them a block' gput_is OK memory_mib $((boot + 380))
check 'they are given up' used_is 380
check 'single units went' [ "$(gget stats/units_unplugged)" -ge 1 ]
check 'they come back' gput_is OK memory_mib $((boot + 390))
check 'and are in use' used_is 390
guest_bg touch '/load touch 700 8'
check 'a program writes more than there was at boot' wait_until 200 eval \
	'[ "$(ram_mib)" -ge 700 ]'
check 'units go from under it' gput_is OK memory_mib $((boot + 340))
check 'and come back' gput_is OK memory_mib $((boot + 390))
check 'it finds what it wrote' guest_done touch 200
check 'less than a block stays' wait_until 60 gput_is OK memory_mib $((boot + 6))
check 'the rest is given up' used_is 6 10
check 'as at the beginning' wait_until 60 gput_is OK memory_mib "$boot"
check 'that is all' used_is 0

# An answer in part: what is granted is used, but for the guard.
vm_max=$(cat "$VM/memory/max_mib")
echo $(($(vm_get memory/grant_mib) + 20)) >"$VM/memory/max_mib"
check 'more than the host gives' gput_is ENOSPC memory_mib $((boot + 200))
check 'a part came' [ "$(gget memory_mib)" -ge $((boot + 18)) ]
check 'and no more than was granted' [ "$(gget memory_mib)" -le $((boot + 22)) ]
check 'the reason is shown' [ "$(gget last_refusal | sed 's/.*reason=//')" = maximum ]
echo "$vm_max" >"$VM/memory/max_mib"
check 'as at the beginning' wait_until 60 gput_is OK memory_mib "$boot"

check 'the guest touched nothing that it was not granted' vm_is stats/gated 0
check 'no call was malformed' vm_is stats/invalid 0
check 'all that was released was taken' vm_is stats/unreclaimed_bytes 0
check 'the guest ends well' guest_end
loop_finish
