#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Debian's full kernel instead of its cloud flavour.
. "$(dirname "$0")/loop.sh"

GUEST_KO=$BUILD/$GUEST_KERNEL/elastic_guest.ko
loop_begin
without_warm
guest_start --flavour amd64
check 'it has one CPU' settle
check 'manual mode' gput_is OK mode manual
check 'four CPUs' gput_is OK cpus 4
check 'four are online' [ "$(guest nproc)" = 4 ]
boot=$(gget memory_mib)
check '256 MiB more' gput_is OK memory_mib $((boot + 256))
check 'as before' wait_until 30 gput_is OK memory_mib "$boot"
check 'one CPU' gput_is OK cpus 1
check 'the guest ends well' guest_end
loop_finish
