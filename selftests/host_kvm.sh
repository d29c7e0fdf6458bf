#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# timeout 1500
#
# The kernel's own tests of KVM: what passes without the host module passes with it. They
# are of the sources that scripts/fetch builds 6.12-debug from. ELASTIC_KVM_TESTS names
# some of them.
. "$(dirname "$0")/lib.sh"

need_unloaded
SECONDS_EACH=30
# Those that measure, and those that take minutes on an emulated host.
LONG='access_tracking_perf_test demand_paging_test dirty_log_perf_test dirty_log_test
	hardware_disable_test kvm_page_table_test max_guest_memory_test
	memslot_modification_stress_test memslot_perf_test rseq_test nx_huge_pages_test'

kernel=$("$here/../scripts/fetch" kernel 6.12-debug 2>/dev/null) ||
	skip_all 'scripts/fetch kernel 6.12-debug was not run'
[ -d "$kernel/kvm-selftests" ] || skip_all 'it was built without them'

# is_in WORD LIST
is_in()
{
	echo "$2" | tr -s ' \t' '\n' | grep -qxF "$1"
}

chosen()
{
	find "$kernel/kvm-selftests" -type f -perm -u+x | sort | while read -r path; do
		name=${path##*/}
		if ! is_in "$name" "$LONG" && is_in "$name" "${ELASTIC_KVM_TESTS:-$name}"; then
			echo "$path"
		fi
	done
}

# run_them FILE: a line per test, its name and its status
run_them()
{
	while read -r path; do
		timeout -k 5 $SECONDS_EACH "$path" >"$work/out" 2>&1 </dev/null
		status=$?
		echo "${path##*/} $status"
		case $status in 0|4) ;; *) tail -n 5 "$work/out" | sed "s/^/# ${path##*/}: /" >&2 ;; esac
	done <"$work/chosen" >"$1" 2>"$1.why"
}

chosen >"$work/chosen"
mark_log
begin=$(date +%s)
run_them "$work/without"
middle=$(date +%s)
insmod "$KO" || bail "cannot load $KO"
run_them "$work/with"
rmmod elastic_host
diag "$((middle - begin)) s without the module, $(($(date +%s) - middle)) s with it"
while read -r name status; do
	with=$(sed -n "s/^$name //p" "$work/with")
	case $status in
	0) is "$with" 0 "$name passes" ;;
	4) is "$with" 4 "$name has nothing to test here" ;;
	124|137) skip "takes more than $SECONDS_EACH s here" "$name" ;;
	*) skip "fails without the module, too ($status, with it $with)" "$name" ;;
	esac
done <"$work/without"
cat "$work/with.why"
check "the host's log is clean" log_is_clean
finish
