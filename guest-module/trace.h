/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoints: one per hypercall, per decision and per applied change. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM elastic_guest

#if !defined(_ELASTIC_GUEST_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _ELASTIC_GUEST_TRACE_H

#include <linux/tracepoint.h>

#include "policy.h"

TRACE_EVENT(elastic_call,
	TP_PROTO(u32 op, s64 status, u64 rbx, u64 rcx, u64 rdx, u64 ns),
	TP_ARGS(op, status, rbx, rcx, rdx, ns),
	TP_STRUCT__entry(
		__field(u32, op)
		__field(s64, status)
		__field(u64, rbx)
		__field(u64, rcx)
		__field(u64, rdx)
		__field(u64, ns)
	),
	TP_fast_assign(
		__entry->op = op;
		__entry->status = status;
		__entry->rbx = rbx;
		__entry->rcx = rcx;
		__entry->rdx = rdx;
		__entry->ns = ns;
	),
	TP_printk("op=%u status=%lld rbx=%#llx rcx=%#llx rdx=%#llx ns=%llu",
		  __entry->op, __entry->status, __entry->rbx, __entry->rcx,
		  __entry->rdx, __entry->ns)
);

TRACE_EVENT(elastic_session,
	TP_PROTO(u32 state, int ret),
	TP_ARGS(state, ret),
	TP_STRUCT__entry(
		__field(u32, state)
		__field(int, ret)
	),
	TP_fast_assign(
		__entry->state = state;
		__entry->ret = ret;
	),
	TP_printk("state=%u ret=%d", __entry->state, __entry->ret)
);

TRACE_EVENT(elastic_cpu_decision,
	TP_PROTO(u64 window_milli, u64 runnable_milli, u64 busy_milli, u32 steal_permille,
		 u32 online, u32 limit, u32 wanted),
	TP_ARGS(window_milli, runnable_milli, busy_milli, steal_permille, online, limit, wanted),
	TP_STRUCT__entry(
		__field(u64, window_milli)
		__field(u64, runnable_milli)
		__field(u64, busy_milli)
		__field(u32, steal_permille)
		__field(u32, online)
		__field(u32, limit)
		__field(u32, wanted)
	),
	TP_fast_assign(
		__entry->window_milli = window_milli;
		__entry->runnable_milli = runnable_milli;
		__entry->busy_milli = busy_milli;
		__entry->steal_permille = steal_permille;
		__entry->online = online;
		__entry->limit = limit;
		__entry->wanted = wanted;
	),
	TP_printk("window_milli=%llu runnable_milli=%llu busy_milli=%llu steal_permille=%u online=%u limit=%u wanted=%u",
		  __entry->window_milli, __entry->runnable_milli, __entry->busy_milli,
		  __entry->steal_permille, __entry->online, __entry->limit, __entry->wanted)
);

TRACE_EVENT(elastic_mem_decision,
	TP_PROTO(const struct policy_mem_sample *sample, u64 keep,
		 const struct policy_mem_want *want),
	TP_ARGS(sample, keep, want),
	TP_STRUCT__entry(
		__field(u64, available)
		__field(u64, rate)
		__field(u64, kernel_available)
		__field(u64, kernel_rate)
		__field(u64, keep)
		__field(u32, used)
		__field(u32, used_kernel)
		__field(u32, limit)
		__field(u32, wanted)
		__field(u32, wanted_kernel)
		__field(u32, reclaims)
		__field(bool, urgent)
	),
	TP_fast_assign(
		__entry->available = sample->all.available;
		__entry->rate = sample->all.rate;
		__entry->kernel_available = sample->kernel.available;
		__entry->kernel_rate = sample->kernel.rate;
		__entry->keep = keep;
		__entry->used = sample->used;
		__entry->used_kernel = sample->used_kernel;
		__entry->limit = sample->limit;
		__entry->wanted = want->units;
		__entry->wanted_kernel = want->kernel;
		__entry->reclaims = sample->reclaims;
		__entry->urgent = sample->urgent;
	),
	TP_printk("available=%llu rate=%llu kernel_available=%llu kernel_rate=%llu keep=%llu units=%u kernel=%u limit=%u wanted=%u wanted_kernel=%u reclaims=%u urgent=%d",
		  __entry->available, __entry->rate, __entry->kernel_available,
		  __entry->kernel_rate, __entry->keep, __entry->used, __entry->used_kernel,
		  __entry->limit, __entry->wanted, __entry->wanted_kernel, __entry->reclaims,
		  __entry->urgent)
);

TRACE_EVENT(elastic_cpu_change,
	TP_PROTO(u32 cpu, bool up, int ret, u64 us),
	TP_ARGS(cpu, up, ret, us),
	TP_STRUCT__entry(
		__field(u32, cpu)
		__field(bool, up)
		__field(int, ret)
		__field(u64, us)
	),
	TP_fast_assign(
		__entry->cpu = cpu;
		__entry->up = up;
		__entry->ret = ret;
		__entry->us = us;
	),
	TP_printk("cpu=%u up=%d ret=%d us=%llu", __entry->cpu, __entry->up, __entry->ret,
		  __entry->us)
);

TRACE_EVENT(elastic_block_change,
	TP_PROTO(u64 start, bool in, u32 zone, int ret, u64 us),
	TP_ARGS(start, in, zone, ret, us),
	TP_STRUCT__entry(
		__field(u64, start)
		__field(bool, in)
		__field(u32, zone)
		__field(int, ret)
		__field(u64, us)
	),
	TP_fast_assign(
		__entry->start = start;
		__entry->in = in;
		__entry->zone = zone;
		__entry->ret = ret;
		__entry->us = us;
	),
	TP_printk("start=%#llx in=%d zone=%u ret=%d us=%llu", __entry->start, __entry->in,
		  __entry->zone, __entry->ret, __entry->us)
);

TRACE_EVENT(elastic_unit_change,
	TP_PROTO(u64 first, u32 nr, bool in, u32 zone, u64 ns),
	TP_ARGS(first, nr, in, zone, ns),
	TP_STRUCT__entry(
		__field(u64, first)
		__field(u32, nr)
		__field(bool, in)
		__field(u32, zone)
		__field(u64, ns)
	),
	TP_fast_assign(
		__entry->first = first;
		__entry->nr = nr;
		__entry->in = in;
		__entry->zone = zone;
		__entry->ns = ns;
	),
	TP_printk("first=%llu nr=%u in=%d zone=%u ns=%llu", __entry->first, __entry->nr,
		  __entry->in, __entry->zone, __entry->ns)
);

#endif /* _ELASTIC_GUEST_TRACE_H */

/* Found through -I$(src), which Kbuild gives to every file here. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH guest-module
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
