#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Which deaths of a kernel the test-bed takes for its emulator's: none but those that no
# processor brings about.
. "$(dirname "$0")/lib.sh"

[ -r "$here/../scripts/vmlib.py" ] || skip_all 'the test-bed is not here'

# fault: of the log on standard input
fault()
{
	PYTHONPATH=$here/../scripts python3 -B -c '
import sys, vmlib
print(vmlib.emulator_fault(sys.stdin.buffer.read()))'
}

# frame ENTRY RIP EFLAGS: a stack trace with an interrupt in it
frame()
{
	cat <<-END
		[    5.1] BUG: something broke
		[    5.2]  <TASK>
		[    5.2]  sysvec_something+0xe/0x90
		[    5.2]  $1+0x1a/0x20
		[    5.2] RIP: $2+0x7/0x20
		[    5.2] Code: 00 90 <fc> 6a ff
		[    5.2] RSP: 0000:fffffe0000002fd8 EFLAGS: $3
		[    5.2] RAX: 0000000000000000 RBX: 0000000000000002
	END
}

# int3 CODE
int3()
{
	printf '[ 5.1] Oops: int3: 0000 [#1] SMP\n[ 5.1] RIP: 0010:f+0x1/0x10\n[ 5.1] Code: %s\n' "$1"
}

masked='signature D: the emulator delivered a masked interrupt'
stale='signature A: the emulator ran code that the kernel had patched'

for entry in asm_sysvec_call_function asm_sysvec_apic_timer_interrupt asm_common_interrupt; do
	is "$(frame $entry "0010:$entry" 00010006 | fault)" "$masked" "$entry where it was masked"
	is "$(frame $entry 0010:do_idle 00000246 | fault)" None "$entry where it was not"
	is "$(frame $entry 0033:0x401a10 00000046 | fault)" None "$entry from user space"
done
is "$(frame asm_exc_page_fault 0010:do_idle 00010046 | fault)" None 'an exception is never masked'
is "$(frame asm_exc_nmi 0010:do_idle 00000046 | fault)" None 'nor is an NMI'
is "$({
	frame asm_common_interrupt 0010:do_idle 00000246
	frame asm_common_interrupt 0010:do_idle 00000046
} | fault)" "$masked" 'found behind a sound one'
is "$({
	echo '[    3.1] WARNING: CPU: 0 PID: 1 at mem.c:1'
	echo '[    3.2] ---[ end trace 0000000000000000 ]---'
	frame asm_common_interrupt 0010:do_idle 00000046
} | fault)" None 'not behind trouble of another kind'
is "$(frame asm_common_interrupt 0010:vmx_do_interrupt_irqoff 00000082 | fault)" None \
	"KVM's call of a handler on Intel"
is "$(frame asm_common_interrupt 0010:do_idle 00000000 | fault)" None 'no flags at all'
is "$(int3 '90 0f <1f> 44' | fault)" "$stale" 'a breakpoint that is not in memory'
is "$(int3 '90 cc <1f> 44' | fault)" None 'a breakpoint that is'
is "$(echo 'Kernel panic - not syncing' | fault)" None 'a panic'
is "$(fault </dev/null)" None 'nothing'
finish
