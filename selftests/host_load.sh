#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# timeout 600
#
# Loading and unloading the host module: again and again, under VMs in every
# state and in the middle of their calls, in the wrong order, on a KVM that it
# cannot work with, and where somebody else has a function that it needs.

# Conditions are evaluated later:
# shellcheck disable=SC2016
. "$(dirname "$0")/lib.sh"

need_unloaded
mark_log

if grep -qw svm /proc/cpuinfo; then
	kvm=kvm_amd
	no_paging=npt=0
else
	kvm=kvm_intel
	no_paging=ept=0
fi

load()
{
	insmod "$KO"
}

unload()
{
	rmmod elastic_host
}

# load_fails ERROR NAME: insmod fails with this message, and leaves nothing
load_fails()
{
	message=$(LC_ALL=C insmod "$KO" 2>&1)
	case $message in
	*"$1"*) pass "$2: $1" ;;
	*) diag "$message"; fail "$2: $1" ;;
	esac
	check "$2: nothing is left of it" eval "[ ! -e /sys/module/elastic_host ] && [ ! -e $SYSFS ]"
}

# Bare

tracing=$(cat /proc/sys/kernel/ftrace_enabled)
at_exit "echo $tracing >/proc/sys/kernel/ftrace_enabled"
times=0
while [ $times -lt 3 ] && load && [ -d $SYSFS ] && unload && [ ! -e $SYSFS ]; do
	times=$((times + 1))
done
is "$times" 3 "loaded and unloaded three times"
is "$(log_since | grep -c 'elastic_host: loaded')" 3 "one line in the log each time"
load
message=$(LC_ALL=C insmod "$KO" 2>&1)
case $message in
*"File exists"*) pass "a second time: File exists" ;;
*) diag "$message"; fail "a second time: File exists" ;;
esac
check "the first goes on" [ -d $SYSFS ]
# Hooks that can be switched off would leave a VM half enforced
if echo 0 2>/dev/null >/proc/sys/kernel/ftrace_enabled; then
	fail "ftrace cannot be turned off under it"
else
	is "$(cat /proc/sys/kernel/ftrace_enabled)" 1 "ftrace cannot be turned off under it"
fi
unload
echo 0 >/proc/sys/kernel/ftrace_enabled
load_fails "Device or resource busy" "kernel.ftrace_enabled=0"
echo 1 >/proc/sys/kernel/ftrace_enabled

# With a VM that runs before, during and after

vm_start -v 3 -m 64
vm start 1 >/dev/null
check "without the module a VM runs" vm_counts 1
load
check "loaded, it runs on" vm_counts 1
is "$(ls $SYSFS/vms)" "" "a VM that never said HELLO is not known"
unload
check "unloaded, it runs on" vm_counts 1

for state in managed held detached unmanaged; do
	load
	is "$(vm_status hello 3)" 0 "$state: HELLO"
	case $state in
	held)
		vm release_cpu 2 >/dev/null
		check "$state: the vCPU stops" vm_stops 1
		;;
	detached)
		vm release_cpu 2 >/dev/null
		vm bye >/dev/null
		check "$state: the vCPU stops" vm_stops 1
		;;
	unmanaged)
		vm reset >/dev/null
		vm start 1 >/dev/null
		;;
	esac
	is "$(stat_of state)" "${state%held}$([ $state != held ] || echo managed)" "$state: state"
	check "$state: unloaded" unload
	check "$state: then the vCPU runs" vm_counts 1
	is "$(vm_status report)" -1000 "$state: then nobody answers"
done
load
is "$(vm_status report)" -116 "loaded anew, it knows no session"
is "$(vm_status hello 3)" 0 "and takes a HELLO"

# With a vCPU that was placed on some of the CPUs

# Where its threads may run, each once
masks()
{
	cat "/proc/$vm_pid"/task/*/status | grep '^Cpus_allowed_list:' | sort -u | tr '\n' ' '
}

if [ "$(nproc)" -gt 1 ]; then
	all=$(masks)
	taskset 1 sh -c 'while :; do :; done' &
	busy=$!
	at_exit "kill $busy 2>/dev/null || :"
	echo 1 >$SYSFS/cpu/placement
	vm release_cpu 2 >/dev/null
	vm request 2 0 0 >/dev/null
	check "a vCPU that was granted is placed" wait_until 30 eval '[ "$(stat_of cpu/placed)" = 1 ]'
	check "away from a CPU that is busy" eval '[ "$(masks)" != "$all" ]'
	diag "$(masks)"
	check "unloaded with it" unload
	is "$(masks)" "$all" "its thread may run where it could"
	kill $busy
	load
	is "$(vm_status hello 3)" 0 "HELLO"
else
	skip "the host has one CPU" "a vCPU that was placed"
fi

# A file of a VM is open, and somebody is in the directory

exec 7<"$VM_DIR/cpu/list"
unload_there=$(cd "$VM_DIR" && rmmod elastic_host 2>&1)
is "$unload_there" "" "unloaded with its files in use"
if cat <&7 >/dev/null 2>&1; then
	fail "a file that is open does not outlive the module"
else
	pass "a file that is open does not outlive the module"
fi
exec 7<&-
check "the VM runs" vm_counts 1

# The VM dies while the module goes, and before

load
vm hello 1 >/dev/null
check "held when its VMM is killed" vm_stops 1
(sleep 0.2; kill -9 "$vm_pid") &
unload
ok $? "unloaded while a VMM with a held vCPU is being killed"
wait $!
wait "$vm_pid" 2>/dev/null
vm_pid=

# In the middle of calls

load
vm_start -v 3 -m 64
vm start 1 >/dev/null
vm start 2 >/dev/null
is "$(vm_status hello 1)" 0 "HELLO of a VM that calls all the time"
echo "storm 9" >&8
times=0
end=$(($(date +%s) + 7))
while [ $times -lt 3 ] && [ "$(date +%s)" -lt $end ]; do
	unload || break
	load || break
	times=$((times + 1))
done
read -r answer <&9
case $answer in
"ok "*) pass "reloaded $times times during ${answer#ok } calls" ;;
*) fail "reloaded $times times: the VM says: $answer" ;;
esac
# A slow machine gets no further than that
check "at least once" [ "$times" -ge 1 ]
vm_stop
check "no VM is left" wait_until 30 eval '[ -z "$(ls $SYSFS/vms)" ]'
check "nothing is used of the pools" wait_until 30 eval \
	'[ "$(cat $SYSFS/cpu/used) $(cat $SYSFS/memory/used_mib)" = "0 0" ]'

# In the wrong order

if rmmod kvm 2>/dev/null; then
	fail "kvm cannot be unloaded before"
else
	pass "kvm cannot be unloaded before"
fi
# The test-bed keeps a VM; see scripts/testbed
if [ -r /run/kvm-keeper ]; then
	kill "$(cat /run/kvm-keeper)"
	rm /run/kvm-keeper
fi
if wait_until 30 rmmod $kvm; then
	at_exit "modprobe $kvm"
	check "$kvm loaded again under the module" modprobe $kvm
	vm_start -v 2 -m 64
	is "$(vm_status hello 1)" 0 "then HELLO works"
	vm start 1 >/dev/null
	check "and holds" vm_stands 1
	vm_stop
	# Each HELLO asks its own vCPU, so the check at load time cannot be dodged
	wait_until 30 rmmod $kvm && modprobe $kvm $no_paging
	vm_start -v 2 -m 64
	is "$(vm hello 1 | cut -d ' ' -f 1,2)" "2 c" "with $no_paging HELLO is refused: ADMISSION"
	vm_stop
	rmmod elastic_host
	load_fails "Operation not supported" "$no_paging"
	is "$(log_since | grep -c 'elastic_host: .*nested paging')" 1 "the log says why, once"
	wait_until 30 rmmod $kvm
	modprobe -r kvm 2>/dev/null || rmmod kvm
	load_fails "Unknown symbol" "without kvm"
	check "$kvm loaded again" modprobe $kvm
else
	skip "$kvm is in use" "the order of modules"
	unload
fi

# Somebody else has a function

taken=$(built_ko hook_taken)
if [ -z "$taken" ]; then
	fail "selftests/modules/hook_taken is built for $(uname -r)"
else
	hypercall=__kvm_emulate_hypercall
	grep -qw "$hypercall" /proc/kallsyms || hypercall=kvm_emulate_hypercall
	# One of the many of a hook, and two with a hook of their own
	for function in kvm_apic_accept_events gfn_to_pfn $hypercall; do
		insmod "$taken" function="$function" || bail "cannot load $taken"
		load_fails "Device or resource busy" "$function is taken"
		check "the log names it" eval "log_since | grep 'elastic_host: ' | grep -qw '$function()'"
		rmmod hook_taken
		check "$function is free again: the module loads" load
		# And the other way round
		message=$(LC_ALL=C insmod "$taken" function="$function" 2>&1)
		case $message in
		*"Device or resource busy"*) pass "$function is ours: the other fails" ;;
		*) diag "$message"; rmmod hook_taken; fail "$function is ours: the other fails" ;;
		esac
		unload
	done
fi

load
vm_start -v 2 -m 64
is "$(vm_status hello 1)" 0 "after all that it works"
vm_stop
unload
check "the kernel's log is clean" log_is_clean
finish
