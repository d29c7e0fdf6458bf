#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# What in a kernel's log the test-bed takes for trouble, and what it does not.
. "$(dirname "$0")/lib.sh"

[ -r "$here/../scripts/vmlib.py" ] || skip_all 'the test-bed is not here'

# vmlib EXPRESSION: of the log on standard input, `text`
vmlib()
{
	PYTHONPATH=$here/../scripts python3 -B -c '
import sys, vmlib
text = sys.stdin.buffer.read()
print('"$1"')'
}

# One line of each kind of report: the lines of standard input, each by itself
while read -r line; do
	is "$(printf '[   12.345678] %s\n' "$line" | vmlib 'len(vmlib.splats(text))')" 1 \
		"trouble: $line"
done <<'END'
BUG: KASAN: slab-out-of-bounds in f+0x4c/0x60 [elastic_host]
BUG: KASAN: slab-use-after-free in f+0x4c/0x60 [elastic_host]
BUG: KASAN: vmalloc-out-of-bounds in f+0x4c/0x60
UBSAN: shift-out-of-bounds in mem.c:61:13
UBSAN: array-index-out-of-bounds in mem.c:61:13
WARNING: possible circular locking dependency detected
WARNING: possible recursive locking detected
WARNING: possible irq lock inversion dependency detected
WARNING: inconsistent lock state
WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected
WARNING: bad unlock balance detected!
WARNING: held lock freed!
WARNING: lock held when returning to user space!
WARNING: load/211 still has locks held!
WARNING: suspicious RCU usage
WARNING: Nested lock was not taken
INFO: trying to register non-static key.
[ BUG: Invalid wait context ]
BUG: MAX_LOCKDEP_CHAINS too low!
turning off the locking correctness validator.
BUG: sleeping function called from invalid context at mutex.c:585
BUG: scheduling while atomic: insmod/123/0x00000002
BUG: workqueue leaked atomic, lock or RCU: kworker/0:1[12]
BUG kmalloc-64 (Not tainted): Poison overwritten
BUG kmalloc-64 (Tainted: G B): Right Redzone overwritten
BUG: Bad page state in process load pfn:12345
WARNING: CPU: 1 PID: 77 at lib/debugobjects.c:514 debug_print_object+0x10a/0x1a0
ODEBUG: init active (active state 0) object: 00000000d1 object type: timer_list
ODEBUG: Out of memory. ODEBUG disabled
list_del corruption. prev->next should be 1, but was 2.
kernel BUG at mm/page_alloc.c:1234!
kmemleak: unreferenced object 0xffff888005d2a000 (size 128):
audit: lockdep is off
audit: kmemleak is off
rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
END

while read -r line; do
	is "$(printf '[   12.345678] %s\n' "$line" | vmlib 'len(vmlib.splats(text))')" 0 \
		"no trouble: $line"
done <<'END'
kmemleak: Kernel memory leak detector initialized (mem pool available: 35122)
Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar
kasan: KernelAddressSanitizer initialized
Running RCU self tests
... MAX_LOCKDEP_ENTRIES:     65536
Spectre V2 : WARNING: Unprivileged eBPF is enabled
ACPI BIOS Warning (bug): 32/64X length mismatch
audit: done at 71.50 s, 812 lock classes, 0 leaks
END

is "$(printf '[ 9.1] audit: done at 9.10 s, 812 lock classes, 0 leaks\n[ 9.2] reboot\n' |
	vmlib 'vmlib.audited(text)')" 'audit: done at 9.10 s, 812 lock classes, 0 leaks' \
	'a log that was looked through'
is "$(echo '[ 9.2] reboot' | vmlib 'vmlib.audited(text)')" None 'and one that was not'
finish
