#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# CPUs and memory follow the load, up and down, on a machine without any
# hot-plug hardware.
. "$(dirname "$0")/loop.sh"

loop_begin
loop_core 4 700 --machine microvm
loop_finish
