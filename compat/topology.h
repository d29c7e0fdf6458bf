/* SPDX-License-Identifier: GPL-2.0 */
/* Copyright (C) the kvm-elastic authors */
/* <linux/topology.h> and <asm/processor.h>: which CPUs share a cache. */
#ifndef COMPAT_TOPOLOGY_H
#define COMPAT_TOPOLOGY_H

#include <linux/topology.h>
#include <linux/version.h>
#include <asm/processor.h>

/*
 * The number of a CPU's last-level cache. Until 6.7 it is a variable of its own
 * that modules cannot reach, with a function that is exported; then a field of
 * what the kernel knows of the CPU's place.
 */
static inline u32 elastic_cache_of(unsigned int cpu)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	return per_cpu_llc_id(cpu);
#else
	return get_llc_id(cpu);
#endif
}

#endif /* COMPAT_TOPOLOGY_H */
