#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Memory that is plain private RAM of the VMM (-m SIZE) comes back as well.
. "$(dirname "$0")/loop.sh"

rss_mib()
{
	awk '/^RssAnon:/ { print int($2 / 1024) }' "/proc/$QEMU/status"
}

loop_begin
guest_start --backend anon
check 'it has one CPU' settle
before=$(rss_mib)
guest_bg touch '/load touch 800 2'
check 'a program writes 800 MiB: the VMM has them' wait_until 40 eval '[ $(rss_mib) -ge 800 ]'
check 'the program finds what it wrote' guest_done touch 60
check 'idle: the grant is as small as at first' \
	wait_until 40 vm_at_most memory/grant_mib "$FLOOR_MIB"
check "the VMM gave them back" wait_until 5 eval '[ $(rss_mib) -le $((FLOOR_MIB + 128)) ]'
check 'nothing that was released could not be taken' vm_is stats/unreclaimed_bytes 0
echo "# RssAnon in MiB: $before before, $(rss_mib) now"
check 'the guest ends well' guest_end
loop_finish
