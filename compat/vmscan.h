/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Wrappers for <trace/events/vmscan.h>.
 *
 * The events are not exported; they are found by name. A probe registered that
 * way is called with the arguments that the kernel has, whatever the probe was
 * declared with, so the type check here matters: it breaks the build where the
 * arguments change.
 *
 * mm_vmscan_direct_reclaim_begin: (int order, gfp_t gfp_flags) in 5.10 to 6.12,
 * (gfp_t gfp_flags, int order, struct mem_cgroup *) in 7.x.
 * mm_vmscan_wakeup_kswapd: (int nid, int zid, int order, gfp_t gfp_flags).
 */
#ifndef _COMPAT_VMSCAN_H
#define _COMPAT_VMSCAN_H

#include <linux/gfp.h>
#include <linux/version.h>
#include <trace/events/vmscan.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
#define COMPAT_DIRECT_RECLAIM_BEGIN_ARGS	void *data, int order, gfp_t gfp
#else
#define COMPAT_DIRECT_RECLAIM_BEGIN_ARGS	\
	void *data, gfp_t gfp, int order, struct mem_cgroup *memcg
#endif
#define COMPAT_WAKEUP_KSWAPD_ARGS	void *data, int nid, int zid, int order, gfp_t gfp

static inline void compat_check_vmscan_probes(void (*reclaim)(COMPAT_DIRECT_RECLAIM_BEGIN_ARGS),
					      void (*kswapd)(COMPAT_WAKEUP_KSWAPD_ARGS))
{
	check_trace_callback_type_mm_vmscan_direct_reclaim_begin(reclaim);
	check_trace_callback_type_mm_vmscan_wakeup_kswapd(kswapd);
}

#endif /* _COMPAT_VMSCAN_H */
