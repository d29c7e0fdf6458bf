/* SPDX-License-Identifier: GPL-2.0 */
/* Copyright (C) the kvm-elastic authors */
/* One tracepoint per decision and per applied change; vm is the VMM's pid. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM elastic_host

#if !defined(ELASTIC_HOST_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define ELASTIC_HOST_TRACE_H

#include <linux/tracepoint.h>

#include "elastic_host.h"

TRACE_EVENT(elastic_state,
	TP_PROTO(pid_t vm, enum elastic_vm_state state),
	TP_ARGS(vm, state),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(int, state)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->state = state;
	),
	TP_printk("vm=%d state=%s", __entry->vm,
		  __print_symbolic(__entry->state,
				   { ELASTIC_VM_UNMANAGED, "unmanaged" },
				   { ELASTIC_VM_MANAGED, "managed" },
				   { ELASTIC_VM_DETACHED, "detached" }))
);

TRACE_EVENT(elastic_hello,
	TP_PROTO(pid_t vm, u64 cpus, u64 cpu_ceiling, u64 units,
		 u64 unit_ceiling),
	TP_ARGS(vm, cpus, cpu_ceiling, units, unit_ceiling),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(u64, cpus)
		__field(u64, cpu_ceiling)
		__field(u64, units)
		__field(u64, unit_ceiling)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->cpus = cpus;
		__entry->cpu_ceiling = cpu_ceiling;
		__entry->units = units;
		__entry->unit_ceiling = unit_ceiling;
	),
	TP_printk("vm=%d cpus=%llu cpu_ceiling=%llu units=%llu unit_ceiling=%llu",
		  __entry->vm, __entry->cpus, __entry->cpu_ceiling,
		  __entry->units, __entry->unit_ceiling)
);

TRACE_EVENT(elastic_report,
	TP_PROTO(pid_t vm, const struct elastic_report *r),
	TP_ARGS(vm, r),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(u64, period_ns)
		__field(u64, busy_ns)
		__field(u64, steal_ns)
		__field(u64, runnable_milli)
		__field(u32, cpus_online)
		__field(u32, cpus_wanted)
		__field(u64, units_online)
		__field(u64, units_wanted)
		__field(u64, mem_available)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->period_ns = r->period_ns;
		__entry->busy_ns = r->busy_ns;
		__entry->steal_ns = r->steal_ns;
		__entry->runnable_milli = r->runnable_milli;
		__entry->cpus_online = r->cpus_online;
		__entry->cpus_wanted = r->cpus_wanted;
		__entry->units_online = r->units_online;
		__entry->units_wanted = r->units_wanted;
		__entry->mem_available = r->mem_available;
	),
	TP_printk("vm=%d period_ns=%llu busy_ns=%llu steal_ns=%llu runnable_milli=%llu cpus_online=%u cpus_wanted=%u units_online=%llu units_wanted=%llu mem_available=%llu",
		  __entry->vm, __entry->period_ns, __entry->busy_ns,
		  __entry->steal_ns, __entry->runnable_milli,
		  __entry->cpus_online, __entry->cpus_wanted,
		  __entry->units_online, __entry->units_wanted,
		  __entry->mem_available)
);

TRACE_EVENT(elastic_request,
	TP_PROTO(pid_t vm, const struct elastic_want *want, long status),
	TP_ARGS(vm, want, status),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(unsigned int, cpus)
		__field(unsigned int, got_cpus)
		__field(u64, first)
		__field(u64, units)
		__field(u64, got_units)
		__field(int, cpu_reason)
		__field(int, mem_reason)
		__field(int, status)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->cpus = want->nr_cpus;
		__entry->got_cpus = hweight64(want->got_cpus);
		__entry->first = want->first;
		__entry->units = want->nr_units;
		__entry->got_units = want->got_units;
		__entry->cpu_reason = want->cpu_reason;
		__entry->mem_reason = want->mem_reason;
		__entry->status = status;
	),
	TP_printk("vm=%d cpus=%u got_cpus=%u first=%llu units=%llu got_units=%llu cpu_reason=%d mem_reason=%d status=%d",
		  __entry->vm, __entry->cpus, __entry->got_cpus,
		  __entry->first, __entry->units, __entry->got_units,
		  __entry->cpu_reason, __entry->mem_reason, __entry->status)
);

TRACE_EVENT(elastic_release,
	TP_PROTO(pid_t vm, unsigned int cpus, u64 units, u64 cpu_grant,
		 u64 unit_grant),
	TP_ARGS(vm, cpus, units, cpu_grant, unit_grant),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(unsigned int, cpus)
		__field(u64, units)
		__field(u64, cpu_grant)
		__field(u64, unit_grant)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->cpus = cpus;
		__entry->units = units;
		__entry->cpu_grant = cpu_grant;
		__entry->unit_grant = unit_grant;
	),
	TP_printk("vm=%d cpus=%u units=%llu cpu_grant=%llu unit_grant=%llu",
		  __entry->vm, __entry->cpus, __entry->units,
		  __entry->cpu_grant, __entry->unit_grant)
);

TRACE_EVENT(elastic_discard,
	TP_PROTO(pid_t vm, u64 units, u64 taken),
	TP_ARGS(vm, units, taken),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(u64, units)
		__field(u64, taken)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->units = units;
		__entry->taken = taken;
	),
	TP_printk("vm=%d units=%llu taken=%llu", __entry->vm, __entry->units,
		  __entry->taken)
);

TRACE_EVENT(elastic_bye,
	TP_PROTO(pid_t vm),
	TP_ARGS(vm),
	TP_STRUCT__entry(
		__field(pid_t, vm)
	),
	TP_fast_assign(
		__entry->vm = vm;
	),
	TP_printk("vm=%d", __entry->vm)
);

TRACE_EVENT(elastic_hold,
	TP_PROTO(pid_t vm, int vcpu),
	TP_ARGS(vm, vcpu),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(int, vcpu)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->vcpu = vcpu;
	),
	TP_printk("vm=%d vcpu=%d", __entry->vm, __entry->vcpu)
);

TRACE_EVENT(elastic_unhold,
	TP_PROTO(pid_t vm, int vcpu, bool signal),
	TP_ARGS(vm, vcpu, signal),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(int, vcpu)
		__field(bool, signal)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->vcpu = vcpu;
		__entry->signal = signal;
	),
	TP_printk("vm=%d vcpu=%d signal=%d", __entry->vm, __entry->vcpu,
		  __entry->signal)
);

TRACE_EVENT(elastic_gate,
	TP_PROTO(pid_t vm, int vcpu, u64 gfn),
	TP_ARGS(vm, vcpu, gfn),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(int, vcpu)
		__field(u64, gfn)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->vcpu = vcpu;
		__entry->gfn = gfn;
	),
	TP_printk("vm=%d vcpu=%d gfn=0x%llx", __entry->vm, __entry->vcpu,
		  __entry->gfn)
);

TRACE_EVENT(elastic_take,
	TP_PROTO(pid_t vm, u64 first, u64 units, u64 bytes),
	TP_ARGS(vm, first, units, bytes),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(u64, first)
		__field(u64, units)
		__field(u64, bytes)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->first = first;
		__entry->units = units;
		__entry->bytes = bytes;
	),
	TP_printk("vm=%d first=%llu units=%llu bytes=%llu", __entry->vm,
		  __entry->first, __entry->units, __entry->bytes)
);

TRACE_EVENT(elastic_target,
	TP_PROTO(pid_t vm, const struct elastic_account *cpu,
		 const struct elastic_account *mem),
	TP_ARGS(vm, cpu, mem),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(u64, cpu_grant)
		__field(u64, cpu_used)
		__field(u64, cpu_need)
		__field(u64, cpu_target)
		__field(u64, unit_grant)
		__field(u64, unit_used)
		__field(u64, unit_need)
		__field(u64, unit_target)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->cpu_grant = cpu->grant;
		__entry->cpu_used = cpu->demand;
		__entry->cpu_need = cpu->need;
		__entry->cpu_target = cpu->target;
		__entry->unit_grant = mem->grant;
		__entry->unit_used = mem->demand;
		__entry->unit_need = mem->need;
		__entry->unit_target = mem->target;
	),
	TP_printk("vm=%d cpu_grant=%llu cpu_used=%llu cpu_need=%llu cpu_target=%llu unit_grant=%llu unit_used=%llu unit_need=%llu unit_target=%llu",
		  __entry->vm, __entry->cpu_grant, __entry->cpu_used,
		  __entry->cpu_need, __entry->cpu_target, __entry->unit_grant,
		  __entry->unit_used, __entry->unit_need, __entry->unit_target)
);

TRACE_EVENT(elastic_uncooperative,
	TP_PROTO(pid_t vm, bool memory, u64 grant, u64 target),
	TP_ARGS(vm, memory, grant, target),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(bool, memory)
		__field(u64, grant)
		__field(u64, target)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->memory = memory;
		__entry->grant = grant;
		__entry->target = target;
	),
	TP_printk("vm=%d memory=%d grant=%llu target=%llu", __entry->vm,
		  __entry->memory, __entry->grant, __entry->target)
);

TRACE_EVENT(elastic_forgiven,
	TP_PROTO(pid_t vm, bool memory, u64 grant),
	TP_ARGS(vm, memory, grant),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(bool, memory)
		__field(u64, grant)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->memory = memory;
		__entry->grant = grant;
	),
	TP_printk("vm=%d memory=%d grant=%llu", __entry->vm, __entry->memory,
		  __entry->grant)
);

DECLARE_EVENT_CLASS(elastic_vcpu,
	TP_PROTO(pid_t vm, int vcpu),
	TP_ARGS(vm, vcpu),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(int, vcpu)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->vcpu = vcpu;
	),
	TP_printk("vm=%d vcpu=%d", __entry->vm, __entry->vcpu)
);

DEFINE_EVENT(elastic_vcpu, elastic_seize,
	TP_PROTO(pid_t vm, int vcpu),
	TP_ARGS(vm, vcpu)
);

DEFINE_EVENT(elastic_vcpu, elastic_give_back,
	TP_PROTO(pid_t vm, int vcpu),
	TP_ARGS(vm, vcpu)
);

TRACE_EVENT(elastic_pool,
	TP_PROTO(u64 total, u64 now, u64 used,
		 const struct elastic_host_memory *host),
	TP_ARGS(total, now, used, host),
	TP_STRUCT__entry(
		__field(u64, total)
		__field(u64, now)
		__field(u64, used)
		__field(u64, available)
		__field(u64, stalls)
		__field(u64, ooms)
	),
	TP_fast_assign(
		__entry->total = total;
		__entry->now = now;
		__entry->used = used;
		__entry->available = host->available;
		__entry->stalls = host->stalls;
		__entry->ooms = host->ooms;
	),
	TP_printk("units=%llu now=%llu used=%llu available=%llu stalls=%llu ooms=%llu",
		  __entry->total, __entry->now, __entry->used,
		  __entry->available, __entry->stalls, __entry->ooms)
);

TRACE_EVENT(elastic_advice,
	TP_PROTO(bool memory, bool is_short, u64 missing),
	TP_ARGS(memory, is_short, missing),
	TP_STRUCT__entry(
		__field(bool, memory)
		__field(bool, is_short)
		__field(u64, missing)
	),
	TP_fast_assign(
		__entry->memory = memory;
		__entry->is_short = is_short;
		__entry->missing = missing;
	),
	TP_printk("memory=%d short=%d missing=%llu", __entry->memory,
		  __entry->is_short, __entry->missing)
);

TRACE_EVENT(elastic_place,
	TP_PROTO(pid_t vm, pid_t thread, unsigned int first, unsigned int cpus,
		 u32 cost, int ret),
	TP_ARGS(vm, thread, first, cpus, cost, ret),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(pid_t, thread)
		__field(unsigned int, first)
		__field(unsigned int, cpus)
		__field(u32, cost)
		__field(int, ret)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->thread = thread;
		__entry->first = first;
		__entry->cpus = cpus;
		__entry->cost = cost;
		__entry->ret = ret;
	),
	TP_printk("vm=%d thread=%d first=%u cpus=%u cost=%u ret=%d",
		  __entry->vm, __entry->thread, __entry->first, __entry->cpus,
		  __entry->cost, __entry->ret)
);

TRACE_EVENT(elastic_unplace,
	TP_PROTO(pid_t vm, pid_t thread, int ret),
	TP_ARGS(vm, thread, ret),
	TP_STRUCT__entry(
		__field(pid_t, vm)
		__field(pid_t, thread)
		__field(int, ret)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->thread = thread;
		__entry->ret = ret;
	),
	TP_printk("vm=%d thread=%d ret=%d", __entry->vm, __entry->thread,
		  __entry->ret)
);

#endif /* ELASTIC_HOST_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
