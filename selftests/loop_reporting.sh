#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Free pages go back to the host with their grant kept; virtio-balloon, if it was there
# first, is not disturbed.
. "$(dirname "$0")/loop.sh"

free_page_reporting_is()
{
	[ "$(gget free_page_reporting)" = "$1" ]
}

loop_begin
without_warm
guest_start
check 'it has one CPU' settle
check 'manual mode' gput_is OK mode manual
check 'free pages are reported' free_page_reporting_is on
guest_bg touch '/load touch 300'
check 'a program writes 300 MiB' guest_done touch 250
check 'the host has them back soon after it has ended' wait_until 60 ram_at_most 250
check 'by DISCARD' vm_at_least stats/discarded_bytes $((100 << 20))
check 'the grant stays' vm_is memory/grant_mib "$FLOOR_MIB"
guest_bg touch '/load touch 300'
check 'they can be used again' guest_done touch 250
check 'off' gput_is OK free_page_reporting 0
check 'it is off' free_page_reporting_is off
check 'nonsense' gput_is EINVAL free_page_reporting maybe
check 'on' gput_is OK free_page_reporting 1
check 'it is on' free_page_reporting_is on
check 'the guest touched nothing that it was not granted' vm_is stats/gated 0
check 'the guest ends well' guest_end

guest_start --machine q35 --kernel-module virtio_balloon \
	--qemu-arg='-device virtio-balloon-pci,free-page-reporting=on'
check 'with virtio-balloon there first' free_page_reporting_is busy
check 'it cannot be taken from it' gput_is EBUSY free_page_reporting 1
check 'the balloon goes' guest 'cd /sys/bus/virtio/drivers/virtio_balloon && for d in virtio*; do
	echo $d >unbind; done'
check 'nothing happens by itself' free_page_reporting_is busy
check 'but when told to' gput_is OK free_page_reporting 1
check 'it is on' free_page_reporting_is on
check 'the guest ends well' guest_end
loop_finish
