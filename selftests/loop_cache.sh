#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Memory full of page cache goes without being copied elsewhere, and a file that is
# being used keeps its content.
. "$(dirname "$0")/loop.sh"

loop_begin
without_warm
# Not zeroes, and no two pages alike within 16 MiB
mkdir "$work/root"
seq 1 3000000 | head -c 16777216 >"$work/part"
for _ in 1 2 3 4 5 6 7 8 9 10; do
	cat "$work/part"
done >"$work/root/file"
PATH=$PATH:/usr/sbin mke2fs -q -t ext4 -O '^has_journal' -d "$work/root" "$work/disk" 208M >/dev/null ||
	bail 'no file system'
sum=$(md5sum <"$work/root/file")
rm -r "$work/root"
guest_start --kernel-module virtio_blk --kernel-module ext4 --machine q35 \
	--qemu-arg="-drive file=$work/disk,if=virtio,format=raw,readonly=on"
check 'it has one CPU' settle
check 'manual mode' gput_is OK mode manual
boot=$(gget memory_mib)
check '512 MiB more' gput_is OK memory_mib $((boot + 512))
guest 'mkdir /mnt && mount -t ext4 -o ro /dev/vda /mnt'
check 'a file of 160 MiB is read' [ "$(guest 'md5sum </mnt/file')" = "$sum" ]
cached=$(guest "awk '/^(Buffers|Cached)/ { n += \$2 } END { print int(n / 1024) }' /proc/meminfo")
check 'and stays in the page cache' [ "$cached" -ge 140 ]
check 'all of it goes' gput_is OK memory_mib "$boot"
diag "$(gget stats/unplug_last_us) us"
check 'page cache was dropped for it' [ "$(gget stats/cache_pages_dropped)" -gt 12800 ]
check 'the file reads as before' [ "$(guest 'md5sum </mnt/file')" = "$sum" ]
check 'and its file system can be unmounted' guest 'umount /mnt'
check 'the guest touched nothing that it was not granted' vm_is stats/gated 0
check 'the guest ends well' guest_end
loop_finish
