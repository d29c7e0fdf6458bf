#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# For loop_*.sh: a Linux guest with the module, and its VM as the host sees it.
# Needs a virtualisation host (scripts/testbed, or a real one) and, built before,
# build/VERSION/*.ko (scripts/build-modules) and build/load (selftests/loads).
#
# ELASTIC_GUEST_KERNEL chooses the guest's kernel (6.12). ELASTIC_SLOWER is what limits are
# multiplied by, for a kernel that finds faults (6.12-debug).

# shellcheck source=selftests/lib.sh
. "$(dirname "$0")/lib.sh"

ROOT=$(dirname "$here")
SCRIPTS=$ROOT/scripts
BUILD=${ELASTIC_BUILD:-$ROOT/build}
LOAD=$BUILD/load
GUEST_KERNEL=${ELASTIC_GUEST_KERNEL:-6.12}
case $GUEST_KERNEL in
*-debug)
	GUEST_KO=$BUILD/$GUEST_KERNEL/elastic_guest.ko
	# For a block KASAN takes 16 MiB, which the kernel then lacks.
	FLOOR_MAX=640
	;;
*)
	GUEST_KO=$BUILD/$GUEST_KERNEL-cloud/elastic_guest.ko
	FLOOR_MAX=544
	;;
esac
GUEST_SYSFS=/sys/kernel/elastic_guest
: "${ELASTIC_HOST_KO:=$BUILD/$(this_kernel)/elastic_host.ko}"
export ELASTIC_HOST_KO

# By these the guest shrinks soon, so that tests are short.
QUICK='cpu_down_delay_ms=300 mem_down_delay_ms=1000 mem_retry_ms=300 mem_down_step_mib=4096
	mem_regret_ms=0 report_period_ms=500'
# And by these a host that stands still for seconds is not taken for one that refuses.
QUICK="$QUICK mem_offline_timeout_ms=10000 mem_retry_max_ms=1000 oom_wait_ms=10000
	cpu_steal_max_permille=1000"
# By these a grant is what is used, and nothing beside it.
NO_WARM='mem_warm_mib=0 mem_warm_kernel_mib=0'
WARM_UNITS=128
# For commands of the guest: wait for host_says_go. It goes by the answer to a REPORT,
# so that the ports by which the guest is spoken to may sleep.
WAIT_HOST="until [ \"\$(cat $GUEST_SYSFS/state/cpus_target)\" = 3 ]; do sleep 0.2; done"

loop_begin()
{
	need_ko
	for file in "$GUEST_KO" "$LOAD"; do
		[ -r "$file" ] || skip_all "$file is not built"
	done
	need_loaded
	mark_log
	at_exit guest_kill
}

loop_finish()
{
	check "the host's log is clean" log_is_clean
	finish
}

host_load()
{
	insmod "$ELASTIC_HOST_KO"
}

host_unload()
{
	rmmod elastic_host
}

# guest_boot OPTION...: a guest without the module, in the background. (Anonymous memory
# comes in huge pages, which makes it boot in two thirds of the time.)
guest_boot()
{
	rm -f "$work/ready" "$work/pid"
	QEMU=
	"$SCRIPTS/guest" --kernel "$GUEST_KERNEL" --vcpus 4 --floor-cpus 1 --floor-mem 512M \
		--mem 2G --machine microvm --backend anon --timeout $((550 * SLOWER)) --boot-timeout $((250 * SLOWER)) \
		--file "$LOAD" --module-file "$GUEST_KO" \
		--sock "$work/sock" --qmp "$work/qmp" --pidfile "$work/pid" --ready "$work/ready" \
		--console "$work/console" "$@" >"$work/log" 2>&1 </dev/null &
	GUEST=$!
	if ! wait_until 260 guest_booted || ! [ -e "$work/ready" ]; then
		sed 's/^/# /' "$work/log"
		guest_kill >/dev/null
		bail 'the guest does not boot'
	fi
	QEMU=$(cat "$work/pid")
	VM=$SYSFS/vms/$QEMU
}

guest_booted()
{
	[ -e "$work/ready" ] || ! kill -0 "$GUEST" 2>/dev/null
}

# The same, with the module and tunables by which it soon shrinks.
guest_start()
{
	guest_boot "$@"
	guest_load
}

guest_load()
{
	guest "insmod /elastic_guest.ko" || {
		tail -n 30 "$work/console" | sed 's/^/# /'
		bail 'the guest module does not load'
	}
	tune
}

tune()
{
	# shellcheck disable=SC2086 # words
	guest "cd $GUEST_SYSFS/tunables && for t in $(printf "%s " $QUICK); do
		echo \${t#*=} >\${t%%=*}; done"
}

# guest COMMAND: run it there; output and status are its own.
guest()
{
	"$SCRIPTS/guest-exec" --timeout "${ELASTIC_EXEC_SECONDS:-$((300 * SLOWER))}" "$work/sock" -- "$1" </dev/null
	exec_status=$?
	[ "$exec_status" != 99 ] || guest_is_mute "$1" >&2
	return "$exec_status"
}

# What can be seen from outside of a guest that does not answer: its console, and where its
# CPUs are.
guest_is_mute()
{
	diag "the guest does not answer: $1"
	tail -n 40 "$work/console" | sed 's/^/# /'
	hmp 'info cpus' | sed 's/^/# /'
	for cpu in 0 1 2 3; do
		hmp_cpu $cpu 'info registers' | sed -n 's/^R[IS]P=.*/# &/p; s/^RSI.*RSP/# RSP/p'
		hmp_cpu $cpu 'x/160gx $rsp' | grep ffffffff | sed 's/^/# /'
	done
}

hmp_cpu()
{
	"$SCRIPTS/qmp" "$work/qmp" human-monitor-command cpu-index="$1" command-line="$2"
}

# guest_bg NAME COMMAND: start it there; others may run meanwhile.
guest_bg()
{
	guest "({ $2; }; echo status=\$?) >/tmp/$1 2>&1 &"
}

# guest_done NAME SECONDS: wait for it and show its output; its status.
guest_done()
{
	if ! wait_until "$2" guest "grep -q ^status= /tmp/$1"; then
		guest "cat /tmp/$1; ps" | sed 's/^/# /'
		return 1
	fi
	guest "cat /tmp/$1" >"$work/$1"
	grep -q '^status=0$' "$work/$1" || { sed 's/^/# /' "$work/$1"; return 1; }
}

# guest_end: shut it down; the status is that of scripts/guest.
guest_end()
{
	guest 'finish 0' >/dev/null
	wait "$GUEST"
	status=$?
	GUEST=
	[ "$status" = 0 ] || sed 's/^/# /' "$work/log"
	return "$status"
}

# If it has died by itself, the log says of what.
guest_kill()
{
	[ -n "${GUEST-}" ] || return 0
	guest_died || kill "$GUEST" 2>/dev/null
	wait "$GUEST" 2>/dev/null
	guest_status=$?
	GUEST=
	[ "$guest_status" = 143 ] || sed 's/^/# /' "$work/log"
}

guest_died()
{
	[ -n "${QEMU-}" ] && { ! grep -q '^State:.[RSD]' "/proc/$QEMU/status" 2>/dev/null ||
		grep -q 'Kernel panic' "$work/console"; }
}

# gget FILE, gput FILE VALUE: the guest's sysfs; gput prints the errno, or OK.
gget()
{
	guest "cat $GUEST_SYSFS/$1"
}

gput()
{
	guest "/load write $GUEST_SYSFS/$1 '$2'" | cut -d' ' -f1
}

# gput_is ERRNO FILE VALUE
gput_is()
{
	got=$(gput "$2" "$3")
	[ "$got" = "$1" ] || { echo "# write of '$3' to $2: $got"; return 1; }
}

# Let a command of the guest go on that waits for it (WAIT_HOST).
host_says_go()
{
	echo 3 >"$VM/cpu/max"
}

# vm_get FILE: of the VM's directory on the host.
vm_get()
{
	cat "$VM/$1"
}

vm_is()
{
	[ "$(vm_get "$1" 2>/dev/null)" = "$2" ]
}

vm_at_least()
{
	[ "$(vm_get "$1")" -ge "$2" ]
}

vm_at_most()
{
	[ "$(vm_get "$1")" -le "$2" ]
}

# Pages that exist of the guest's RAM, the VMM's largest mappings, in MiB.
ram_mib()
{
	awk '/^Size:/ { size = $2 } /^Rss:/ && size >= 262144 { rss += $2 }
		END { print int(rss / 1024) }' "/proc/$QEMU/smaps"
}

ram_at_most()
{
	[ "$(ram_mib)" -le "$1" ]
}

# hmp COMMAND: QEMU's monitor.
hmp()
{
	"$SCRIPTS/qmp" "$work/qmp" human-monitor-command command-line="$1"
}

qmp()
{
	"$SCRIPTS/qmp" "$work/qmp" "$@"
}

# without_warm: before guest_start
without_warm()
{
	QUICK="$QUICK $NO_WARM"
	WARM_UNITS=0
}

# As much as is wanted; and what is left of a block of which the kernel itself uses a part.
warm_is_kept()
{
	guest "w=\$(cat $GUEST_SYSFS/state/units_warm); [ \$w -ge $((WARM_UNITS * 3 / 4)) ] &&
		[ \$w -le $((2 * WARM_UNITS + 64)) ]"
}

# What the load of the module and the boot before it asked for has gone again.
grant_stays()
{
	settled=$(vm_get memory/grant_mib)
	guest 'sleep 2'
	vm_is memory/grant_mib "$settled"
}

# Floor of a guest after guest_start, remembered: MiB granted.
settle()
{
	if ! wait_until 60 vm_is cpu/grant 1 || ! wait_until 60 warm_is_kept ||
	   ! wait_until 60 grant_stays; then
		diag "$(vm_get cpu/grant) CPUs; $(gget state/units_warm) units warm, of $WARM_UNITS"
		diag "$(guest "cd $GUEST_SYSFS && grep . state/units* stats/offline* stats/stuck*" |
			tr '\n' ' ')"
		return 1
	fi
	FLOOR_MIB=$(vm_get memory/grant_mib)
}

# loop_core CPUS MIB OPTION...: the whole loop with the policy deciding, so many
# CPUs and a program that writes so much memory
loop_core()
{
	cpus=$1
	mib=$2
	shift 2
	guest_start "$@"
	check 'the VM is managed' vm_is state managed
	check 'it has one CPU' settle
	check 'and about the memory that it booted with' [ "$FLOOR_MIB" -le "$FLOOR_MAX" ]
	diag "granted: $FLOOR_MIB MiB"
	[ "$FLOOR_MIB" -lt $((mib + 128)) ] || bail "$mib MiB are no reason to grow"
	before=$(ram_mib)

	if [ "$cpus" -gt 1 ]; then
		guest_bg spin "/load spin $cpus 4 $cpus"
		check "$cpus busy processes: the host grants $cpus CPUs" \
			wait_until 60 vm_is cpu/grant "$cpus"
		check 'and the guest has them online' guest_done spin 90
		diag "$(grep ^online "$work/spin")"
		check 'idle: one CPU is granted again' wait_until 60 vm_is cpu/grant 1
	fi

	guest_bg touch "/load touch $mib 2"
	check "a program writes $mib MiB: the host grants them" \
		wait_until 250 vm_at_least memory/grant_mib $((mib + 128))
	check 'and has them in pages' wait_until 250 eval '[ $(ram_mib) -ge $mib ]'
	check 'the program finds what it wrote' guest_done touch 250
	# Some kernel memory may be pinned, with guards behind it.
	check 'idle: the grant is about as small as at first' \
		wait_until 120 vm_at_most memory/grant_mib $((FLOOR_MIB + 32))
	diag "granted: $FLOOR_MIB MiB before, $(vm_get memory/grant_mib) now"
	check 'and so is what the VMM holds' wait_until 30 ram_at_most "$FLOOR_MIB"
	check 'nothing that was released could not be taken' vm_is stats/unreclaimed_bytes 0
	check 'the guest touched nothing that it was not granted' vm_is stats/gated 0
	check 'no call was malformed' vm_is stats/invalid 0
	echo "# MiB of RAM in pages: $before before, $(ram_mib) now"
	check 'the guest ends well' guest_end
	check 'its directory is gone' wait_until 30 eval '! [ -e $VM ]'
}
