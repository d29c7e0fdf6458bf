#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# CPUs and memory follow the load, up and down, on a PC with hot-plug hardware
# that is not used.
. "$(dirname "$0")/loop.sh"

loop_begin
loop_core 4 300 --machine q35 --backend memfd --floor-mem 384M
loop_finish
