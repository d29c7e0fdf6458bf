# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0-only
#
# What the shell tests share: KTAP, waiting, restoring, the module, the kernel's
# log, and a VM at the end of a pipe (vmctl). A test begins with
#
#	. "$(dirname "$0")/lib.sh"
#
# and ends with `finish`. Conditions and what is to be undone are strings
# that are evaluated later, hence:
# shellcheck disable=SC2016

KSFT_SKIP=4
SYSFS=/sys/kernel/elastic_host
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/elastic.XXXXXX") || exit 1

# KTAP

ktap_count=0
ktap_failed=0
ktap_passed=0
ktap_skipped=0

echo "TAP version 13"

diag()
{
	echo "$*" | sed 's/^/# /'
}

pass()
{
	ktap_count=$((ktap_count + 1))
	ktap_passed=$((ktap_passed + 1))
	echo "ok $ktap_count $*"
}

fail()
{
	ktap_count=$((ktap_count + 1))
	ktap_failed=$((ktap_failed + 1))
	echo "not ok $ktap_count $*"
}

# skip REASON NAME...
skip()
{
	ktap_count=$((ktap_count + 1))
	ktap_skipped=$((ktap_skipped + 1))
	reason=$1
	shift
	echo "ok $ktap_count $* # SKIP $reason"
}

# ok STATUS NAME...: passes if STATUS is 0
ok()
{
	status=$1
	shift
	if [ "$status" = 0 ]; then pass "$*"; else fail "$*"; fi
}

# is GOT WANT NAME...
is()
{
	got=$1
	want=$2
	shift 2
	if [ "$got" = "$want" ]; then
		pass "$*"
	else
		diag "got \"$got\", want \"$want\""
		fail "$*"
	fi
}

# check NAME COMMAND...: passes if the command does
check()
{
	check_name=$1
	shift
	if "$@"; then pass "$check_name"; else fail "$check_name"; fi
}

skip_all()
{
	echo "1..0 # SKIP $*"
	exit $KSFT_SKIP
}

bail()
{
	echo "Bail out! $*"
	exit 1
}

finish()
{
	echo "1..$ktap_count"
	echo "# Totals: pass:$ktap_passed fail:$ktap_failed xfail:0 xpass:0 skip:$ktap_skipped error:0"
	[ $ktap_failed = 0 ] || exit 1
	[ $ktap_count != 0 ] || exit 1
	[ $ktap_passed != 0 ] || exit $KSFT_SKIP
	exit 0
}

# Restoring

undo=
vm_pid=

# at_exit COMMAND: run when the test ends, however it ends; last in, first out
at_exit()
{
	undo="$1
$undo"
}

run_undo()
{
	exit_status=$?
	trap - EXIT
	trap '' INT TERM
	[ -z "$vm_pid" ] || kill -9 "$vm_pid" 2>/dev/null
	eval "$undo"
	rm -rf "$work"
	exit $exit_status
}
trap run_undo EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# save_file PATH: write back its present content at the end
save_file()
{
	at_exit "echo '$(cat "$1")' > '$1'"
}

# Waiting

# With a kernel that finds faults all limits are longer.
SLOWER=${ELASTIC_SLOWER:-1}

# wait_until SECONDS COMMAND...: until the command passes
wait_until()
{
	wait_end=$(($(date +%s) + $1 * SLOWER + 1))
	shift
	until "$@"; do
		[ "$(date +%s)" -lt $wait_end ] || return 1
		sleep 0.05
	done
}

# The module

host_loaded()
{
	[ -d /sys/module/elastic_host ]
}

# Where the host module is: $ELASTIC_HOST_KO, else where the build puts it
host_ko()
{
	if [ "${ELASTIC_HOST_KO:-}" ]; then
		echo "$ELASTIC_HOST_KO"
	else
		built_ko elastic_host
	fi
}

# By what name scripts/build-modules knows this kernel
this_kernel()
{
	uname -r | sed 's/^\([0-9]*\.[0-9]*\).*\(-debug\)$/\1\2/; t; s/^\([0-9]*\.[0-9]*\).*/\1/'
}

# built_ko NAME: a module of this kernel, where scripts/build-modules puts it or
# where make does
built_ko()
{
	for ko in "${ELASTIC_BUILD:-$here/../build}/$(this_kernel)/$1.ko" \
		  "$here/../$1.ko" "$here/modules/$1/$1.ko"; do
		if [ -r "$ko" ] && modinfo -F vermagic "$ko" | grep -q "^$(uname -r) "; then
			readlink -f "$ko"
			return 0
		fi
	done
	return 1
}

need_root()
{
	[ "$(id -u)" = 0 ] || skip_all "needs root"
}

need_kvm()
{
	need_root
	[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
}

need_ko()
{
	need_kvm
	KO=$(host_ko) || skip_all "no elastic_host.ko of this kernel; set ELASTIC_HOST_KO"
	export ELASTIC_HOST_KO="$KO"
}

# Bring the module into the state that the test wants, and back at its end
need_loaded()
{
	need_kvm
	host_loaded && return
	need_ko
	insmod "$KO" || bail "cannot load $KO"
	at_exit 'rmmod elastic_host'
}

# Unloaded for the test; loaded again afterwards if it was
need_unloaded()
{
	need_ko
	if host_loaded; then
		rmmod elastic_host || bail "cannot unload elastic_host"
		at_exit 'host_loaded || insmod "$KO"'
	else
		at_exit '! host_loaded || rmmod elastic_host'
	fi
}

# The kernel's log

# mark_log: what log_since and log_is_clean look at begins here
mark_log()
{
	log_marker="elastic selftest $$ $(date +%s%N)"
	echo "$log_marker" > /dev/kmsg
}

log_since()
{
	dmesg | sed "1,/$log_marker/d"
}

# Nothing bad since the marker? (In the marker itself no such word may occur.)
log_is_clean()
{
	bad=$(log_since | grep -E 'BUG|WARNING|Oops|Call Trace|general protection|RIP:|lockup|hung task|blocked for more|possible recursive|use-after|refcount|Kernel panic|self-detected stall|detected stalls')
	[ -z "$bad" ] && return 0
	diag "the kernel's log:"
	diag "$bad"
	return 1
}

# A VM: vmctl with its input and output as descriptors 8 and 9

vm_start()
{
	mkfifo "$work/in.$ktap_count" "$work/out.$ktap_count"
	"$here/vmctl" "$@" <"$work/in.$ktap_count" >"$work/out.$ktap_count" 8<&- 9>&- &
	vm_pid=$!
	exec 8>"$work/in.$ktap_count" 9<"$work/out.$ktap_count"
	rm "$work/in.$ktap_count" "$work/out.$ktap_count"
	[ "$(vm ping)" = ok ] || bail "vmctl does not answer"
	VM_DIR=$SYSFS/vms/$vm_pid
}

# Let it end by itself, as a VMM that shuts down
vm_stop()
{
	exec 8>&- 9<&-
	wait "$vm_pid"
	vm_pid=
}

vm_kill()
{
	kill -9 "$vm_pid"
	wait "$vm_pid" 2>/dev/null
	exec 8>&- 9<&-
	vm_pid=
}

# vm COMMAND...: one command; its answer, without "ok" if it has more to say
vm()
{
	echo "$*" >&8
	read -r vm_answer <&9 || vm_answer="error vmctl is gone"
	case $vm_answer in
	"ok "*) echo "${vm_answer#ok }" ;;
	*) echo "$vm_answer" ;;
	esac
}

# vm_status COMMAND...: the status of a call
vm_status()
{
	vm "$@" | cut -d ' ' -f 1
}

# stat_of FILE: of the VM's directory
stat_of()
{
	cat "$VM_DIR/$1"
}

vm_counted()
{
	[ "$(vm count "$1")" -gt "$2" ]
}

# vm_counts VCPU: does it get on?
vm_counts()
{
	count_before=$(vm count "$1")
	wait_until 30 vm_counted "$1" $((count_before + 1000))
}

# vm_stands VCPU: it does not, for a while
vm_stands()
{
	count_before=$(vm count "$1")
	sleep 0.3
	[ "$(vm count "$1")" = "$count_before" ]
}

# vm_stops VCPU: it stands, soon
vm_stops()
{
	wait_until 30 vm_stands "$1"
}
