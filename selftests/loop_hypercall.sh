#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Hypercalls out of a Linux guest's kernel, by hand: every operation with good,
# malformed, out-of-range and out-of-order arguments. (hypercall does the same in
# depth with a guest of its own.)
. "$(dirname "$0")/loop.sh"

CALL_KO=$BUILD/$GUEST_KERNEL-cloud/elastic_call.ko
P=/sys/module/elastic_call/parameters

# call RBX RCX RDX RSI [WORD...]: the answer, "RAX RBX RCX RDX"
call()
{
	regs="$1 $2 $3 $4"
	shift 4
	guest "[ -z '$*' ] || echo '$*' >$P/page; echo $regs >$P/call && cat $P/call"
}

# answers NAME WANT RBX RCX RDX RSI [WORD...]: WANT is a pattern of the answer
answers()
{
	name=$1
	want=$2
	shift 2
	got=$(call "$@")
	# shellcheck disable=SC2254 # a pattern
	case $got in
	$want) pass "$name" ;;
	*) diag "got \"$got\", want \"$want\""; fail "$name" ;;
	esac
}

# struct elastic_hello: versions 1 to 1, one word of vCPUs, no ranges, features
# CPU and MEM, vCPU 0
HELLO='0x100000001 0x000000001 3 0 1'
REPORT=128
[ -r "$CALL_KO" ] || skip_all "$CALL_KO is not built"

loop_begin
guest_boot --file "$CALL_KO"
check 'the test module loads' guest 'insmod /elastic_call.ko'

answers 'REPORT before HELLO' '-116 *' 1 0 page $REPORT 0
answers 'HELLO with a cookie' '-22 0xb *' 0 1 page 40 "$HELLO"
answers 'HELLO that is too short' '-22 0xa *' 0 0 page 24 "$HELLO"
answers 'HELLO longer than it says' '-22 0xa *' 0 0 page 48 "$HELLO"
answers 'HELLO from nowhere' '-14 *' 0 0 0xffffffff000 40
answers 'HELLO of another version' '2 0x9 *' 0 0 page 40 '0x700000007 1 3 0 1'
check 'none of them made a record' eval '! [ -e $VM ]'
answers 'HELLO' '0 *' 0 0 page 40 "$HELLO"
cookie=$(guest "cut -d' ' -f2 $P/call")
# Another one. (It has 64 bits, too many for the shell to calculate with.)
case $cookie in
*0) other=${cookie%?}1 ;;
*) other=${cookie%?}0 ;;
esac
check 'the VM is managed' vm_is state managed
check 'one vCPU is granted' vm_is cpu/grant 1

answers 'REPORT' '0 *' 1 "$cookie" page $REPORT 1000000000
answers 'REPORT of another length' '-22 0xa *' 1 "$cookie" page 64
answers 'REPORT with another cookie' '-116 *' 1 "$other" page $REPORT
answers 'a reserved bit' '-22 0xb *' 0x1000000000001 "$cookie" page $REPORT
answers 'an unknown operation' '-38 *' 7 "$cookie" 0 0

answers 'REQUEST of vCPU 1' '0 0x0 0x2 *' 2 "$cookie" 2 0
answers 'REQUEST of it again' '0 0x0 0x2 *' 2 "$cookie" 2 0
answers 'REQUEST of a vCPU that is not' '2 0x3 0x0 *' 2 "$cookie" 0x100000 0
answers 'REQUEST of two, one is not' '1 0x3 0x4 *' 2 "$cookie" 0x100004 0
answers 'the same as a whole' '2 0x* 0x4 *' 0x8000000000000002 "$cookie" 0x100004 0
answers 'REQUEST of memory beyond the ceiling' '2 0x30000 *' 2 "$cookie" 0 0x100000000001
check 'three vCPUs are granted' vm_is cpu/grant 3

answers 'RELEASE_CPU of the calling vCPU' '-22 0x7 *' 3 "$cookie" 1 0
answers 'RELEASE_CPU of vCPUs 1 and 2' '0 0x0 0x1 *' 3 "$cookie" 6 0
answers 'RELEASE_CPU of what is not granted' '0 0x0 0x1 *' 3 "$cookie" 8 0
check 'one vCPU is granted' vm_is cpu/grant 1

# The last unit of the RAM below 2 GiB; mem= left it out
answers 'RELEASE_MEM of a unit' '0 0x0 0x0 0x1' 4 "$cookie" page 1 0x3fe 1
answers 'RELEASE_MEM of it again' '-22 0x5 0x0 *' 4 "$cookie" page 1 0x3fe 1
answers 'RELEASE_MEM of nothing' '-22 0x6 0x0 *' 4 "$cookie" page 1 0x3f0 0
answers 'RELEASE_MEM not ascending' '-22 0x6 0x1 *' 4 "$cookie" page 2 0x3f1 1 0x3f0 1
answers 'RELEASE_MEM of too many ranges' '-22 0xa *' 4 "$cookie" page 513 0
answers 'REQUEST of the unit' '0 0x0 0x0 0x1' 2 "$cookie" 0 0x3fe000001
answers 'DISCARD without the feature' '-38 *' 5 "$cookie" page 1 0x3fe 1

answers 'BYE with another cookie' '-116 *' 6 "$other" 0 0
answers 'BYE' '0 *' 6 "$cookie" 0 0
check 'the VM is detached' vm_is state detached
answers 'REPORT after BYE' '-116 *' 1 "$cookie" page $REPORT 0
check 'user space is not heard' eval 'guest "/load call" | grep -q "^status=-1$"'
check 'the guest runs on' guest true
check 'the guest ends well' guest_end
loop_finish
