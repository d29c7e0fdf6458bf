#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A program keeps the content of its memory while blocks go, and come again.
. "$(dirname "$0")/loop.sh"

loop_begin
without_warm
guest_start
settle
gput mode manual >/dev/null
boot=$(gget memory_mib)
check '1024 MiB more' gput_is OK memory_mib $((boot + 1024))
guest_bg touch '/load touch 500 20'
wait_until 200 guest 'grep -q ^touched.tsc= /tmp/touch'
n=0
while [ $n -lt 3 ]; do
	grant=$(vm_get memory/grant_mib)
	gput memory_mib $((boot + 512)) >/dev/null
	check 'blocks went while the program held its memory' \
		vm_at_most memory/grant_mib $((grant - 256))
	check 'and came again' gput_is OK memory_mib $((boot + 1024))
	n=$((n + 1))
done
check 'the program finds what it wrote' guest_done touch 200
check 'the guest touched nothing that it was not granted' vm_is stats/gated 0
check 'all blocks go' wait_until 30 gput_is OK memory_mib "$boot"
check 'the guest ends well' guest_end
loop_finish
