#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The Intel test-bed, as far as it can be tried without booting one: what it refuses, how
# it takes the serial port apart, and which hangs it takes for its emulator's.
. "$(dirname "$0")/lib.sh"

scripts=$here/../scripts
[ -r "$scripts/bochs.py" ] || skip_all 'the test-bed is not here'

# refused WORDS OPTION...: the test-bed ends at once and says so
refused()
{
	words=$1
	shift
	"$scripts/testbed" --vendor intel "$@" -- true >"$work/said" 2>&1
	[ $? = 2 ] && grep -q -- "$words" "$work/said"
}

check 'more than one CPU: refused' refused 'has one CPU' --cpus 2
check 'more than 2 GiB: refused' refused 'has 2G of memory' --mem 4G
check 'KVM: refused' refused 'no --accel' --accel kvm
check "QEMU's options: refused" refused 'no --qemu-arg' --qemu-arg=-s
check 'no other vendor' refused 'invalid choice' --vendor via

# python: a program with the module bochs, on standard input
python()
{
	PYTHONPATH=$scripts python3 -B -
}

# separate PIECE...: what comes of the serial port in such pieces: output, then control
separate()
{
	{
		cat <<-'END'
			import bochs, socket
			ports = object.__new__(bochs.Ports)
			ports.nonce, ports.held = b'n0', b''
			pairs = [socket.socketpair() for _ in range(2)]
			ports.control, ports.output = pairs[0][0], pairs[1][0]
		END
		for piece; do
			printf "ports.separate(b'%s')\n" "$piece"
		done
		cat <<-'END'
			ports.output.sendall(b'|')
			ports.control.sendall(b'|')
			print(pairs[1][1].recv(100).decode('latin1') + pairs[0][1].recv(100).decode())
		END
	} | python | tr '\036\n' '^.'
}

is "$(separate 'some output')" 'some output||.' 'output is output'
is "$(separate '\x1en0 beat\n')" '|n0 beat.|.' 'what init says is not'
is "$(separate 'ab\x1en0 exit 1\ncd')" 'abcd|n0 exit 1.|.' 'nor in the middle of a line'
is "$(separate 'ab\x1e' 'n' '0 exit' ' 1\ncd')" 'abcd|n0 exit 1.|.' 'nor in pieces'
is "$(separate 'a\x1en1 exit 0\n')" 'a^n1 exit 0.||.' 'one without the nonce is output'
is "$(separate '\x1e\x1en0 beat\n')" '^|n0 beat.|.' 'after a stray control character'

# verdict FIRST SECOND: each "guest eflags pending masked count activity"
verdict()
{
	python <<-END
		import bochs
		def sample(text):
		    sample = object.__new__(bochs.Sample)
		    sample.values = dict(zip(('guest', 'eflags', 'pending', 'masked', 'count', 'activity'),
		                             (int(word, 0) for word in text.split())), rip=0x1000)
		    return sample
		print(bochs.classify(sample('$1'), sample('$2')).partition(':')[0])
	END
}

ours='ours, until shown otherwise'
deaf='1 0x46 0x800 0xe60'
is "$(verdict "$deaf 1 0" "$deaf 2 0")" 'signature E' \
	'a guest with interrupts disabled, one for the host masked: signature E'
is "$(verdict "$deaf 1 0" '1 0x46 0x000 0xe60 2 0')" "$ours" 'not with none pending'
is "$(verdict "$deaf 1 0" '1 0x46 0x800 0x260 2 0')" "$ours" 'not where it is not masked'
is "$(verdict "$deaf 1 0" '1 0x246 0x800 0xe60 2 0')" "$ours" 'not with interrupts enabled'
is "$(verdict '0 0x46 0x800 0xe60 1 0' "$deaf 2 0")" "$ours" 'not in the host'
is "$(verdict '0 0x246 0 0x1104 7 0' '0 0x246 0 0x1104 7 0')" 'signature F' \
	'no instruction between two looks: signature F'
is "$(verdict '0 0x246 0 0x1104 7 0' '0 0x246 0 0x1104 8 0')" "$ours" 'not with a single one'
is "$(verdict '0 0x246 0 0x1104 7 1' '0 0x246 0 0x1104 7 1')" "$ours" 'not of a halted CPU'

# panic LINE: what the emulator's log with it comes to
panic()
{
	printf '%s\n' "$1" >"$work/bochs.log"
	{
		echo 'import bochs'
		echo 'host = object.__new__(bochs.Host)'
		echo "host.file = lambda name: '$work/' + name"
		echo 'print(host.panic())'
	} | python
}

is "$(panic '12345678901p[CPU0  ] >>PANIC<< VMENTER: not implemented')" \
	'signature P: the emulator gave up: VMENTER: not implemented' 'a panic: signature P'
is "$(panic '12345678901p[ACPI  ] >>PANIC<< ACPI control: soft power off')" None 'not power-off'
is "$(panic '12345678901p[CPU0  ] >>PANIC<< exception(): 3rd (13) exception with no resolution')" \
	None 'not a triple fault, which is its kernel'
is "$(panic '00000000000p[      ] >>PANIC<< cannot open a file')" None 'not before it starts'

# An emulator that is not to be had is a failure, never a skip
mkdir -p "$work/cache"
: >"$work/cache/lock"
if ELASTIC_CACHE=$work/cache/lock "$scripts/testbed" --vendor intel -- true >"$work/said" 2>&1; then
	fail 'without an emulator there is no result'
else
	is "$(grep -c '^testbed-failure: ' "$work/said")" 1 'without an emulator: testbed-failure'
fi
finish
