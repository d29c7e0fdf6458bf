#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The scenario of scripts/bench-arbiter, shortened: three VMs instead of six, with smaller
# loads, busy one after the other, on a pool that holds half of what they may have. Each gets
# its work done, and has its minimum all the time. What is gained, make bench-arbiter measures.
. "$(dirname "$0")/loop.sh"

loop_begin
for file in cpu/pool memory/pool_mib cpu/default_min memory/default_min_mib; do
	save_file $SYSFS/$file
done
check 'three VMs on half a pool' eval 'ARTIFACTS=$work timeout 400 python3 -B \
	"$SCRIPTS/bench_arbiter.py" --kernel "$GUEST_KERNEL" --vms 3 --slot 14 --mib 80 \
	--alone --no-peer >"$work/out" 2>&1'
sed 's/^/# /' "$work/out"
check 'each did its work' grep -q '^figure: vms-unfinished 0 ' "$work/out"
check 'each had its minimum, at every look' grep -q '^figure: vms-minimum-broken 0 ' "$work/out"
check 'the arbiter was traced' grep -q 'elastic_target: ' "$work/elastic.trace"
loop_finish
