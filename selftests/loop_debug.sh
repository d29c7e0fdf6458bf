#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A guest's kernel that is to find faults finds those that a module makes on purpose, and
# scripts/guest hears of each.
. "$(dirname "$0")/loop.sh"

case $GUEST_KERNEL in
*-debug) ;;
*) skip_all "a guest of $GUEST_KERNEL does not look for faults" ;;
esac
need_kvm
MISDEEDS=$BUILD/$GUEST_KERNEL/misdeeds.ko
[ -r "$MISDEEDS" ] || skip_all "$MISDEEDS is not built"
sed '/^#/d' "$here/modules/misdeeds/expected" >"$work/expected"

"$SCRIPTS/guest" --kernel "$GUEST_KERNEL" --vcpus 2 --mem 1G --machine microvm --backend anon \
	--boot-timeout 600 --timeout 600 --append panic_on_warn=0 --console "$work/console" \
	--file "$MISDEEDS" -- "for what in $(cut -d ' ' -f 1 "$work/expected" | uniq | tr '\n' ' '); do
		insmod /misdeeds.ko what=\$what && rmmod misdeeds || exit 3
	done" >"$work/log" 2>&1 </dev/null
status=$?
is "$status" 98 'the status says that there was trouble'
[ "$status" = 98 ] || tail -n 30 "$work/log" "$work/console" | sed 's/^/# /'
PYTHONPATH=$SCRIPTS python3 -B -c '
import sys, vmlib
print("\n".join(vmlib.splats(sys.stdin.buffer.read(), 1000)))' <"$work/console" >"$work/found"
while read -r what line; do
	check "$what: $line" grep -qF "$line" "$work/found"
done <"$work/expected"
[ "$ktap_failed" = 0 ] || sed 's/^/# /' "$work/found"
finish
