/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Wrappers for <linux/sched.h>, <trace/events/sched.h> and <asm/smp.h>.
 *
 * sched_update_nr_running_tp is exported, without an event, since 5.8. Up to
 * 6.12 and beyond its arguments are (struct rq *rq, int change); the check below
 * breaks the build where that changes.
 *
 * TASK_ON_RQ_QUEUED stands in kernel/sched/sched.h, which modules do not get. It
 * has been 1 since 3.17. A task whose dequeue is delayed (6.12) is still queued,
 * and rq->nr_running counts it, too.
 */
#ifndef _COMPAT_SCHED_H
#define _COMPAT_SCHED_H

#include <linux/sched.h>
#include <linux/smp.h>
#include <trace/events/sched.h>
#include <asm/apicdef.h>

struct rq;

static inline void compat_check_nr_running_probe(void (*probe)(void *data, struct rq *rq,
							       int change))
{
	check_trace_callback_type_sched_update_nr_running_tp(probe);
}

/* Is it counted in the nr_running of a run queue? */
static inline bool compat_task_is_queued(const struct task_struct *task)
{
	return READ_ONCE(task->on_rq) == 1;
}

/*
 * The APIC id of a possible CPU, U32_MAX if the firmware did not list one. The
 * per-CPU variable has 16 bits in 6.1 and 32 in 6.12.
 */
static inline u32 compat_cpu_apicid(unsigned int cpu)
{
	u32 id = cpu_physical_id(cpu);

	return id == BAD_APICID || id == (u16)BAD_APICID ? U32_MAX : id;
}

#endif /* _COMPAT_SCHED_H */
