#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Memory follows the load where there is no ACPI at all. Linux sees one CPU.
. "$(dirname "$0")/loop.sh"

loop_begin
loop_core 1 300 --machine microvm,acpi=off --floor-mem 384M
loop_finish
