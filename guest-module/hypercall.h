/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The hypercalls of uapi/elastic_hypercall.h, one inline function each.
 *
 * They only put arguments into registers and results out of them. Counting,
 * tracing and what to do about a stale session stand in report.c, which is the
 * only caller.
 *
 * Context of all of them: the calling vCPU may sleep in the host. No spinlock
 * may be held, and interrupts should be on.
 */
#ifndef _ELASTIC_GUEST_HYPERCALL_H
#define _ELASTIC_GUEST_HYPERCALL_H

#include <linux/io.h>
#include <linux/kvm_para.h>
#include <linux/types.h>
#include <uapi/linux/kvm_para.h>

#include "elastic_hypercall.h"

/**
 * struct hc_answer - the registers after a hypercall
 * @status: RAX: enum elastic_status, or -KVM_ENOSYS without a host module
 * @rbx: first result, or the reason
 * @rcx: second result
 * @rdx: third result
 */
struct hc_answer {
	s64 status;
	u64 rbx;
	u64 rcx;
	u64 rdx;
};

/*
 * The kernel's kvm_hypercallN() return RAX alone and expect the other registers
 * to be preserved, so this needs an asm of its own.
 */
static inline struct hc_answer hc_call(u64 rbx, u64 rcx, u64 rdx, u64 rsi)
{
	struct hc_answer answer = { .rbx = rbx, .rcx = rcx, .rdx = rdx };

	asm volatile(KVM_HYPERCALL
		     : "=a" (answer.status), "+b" (answer.rbx),
		       "+c" (answer.rcx), "+d" (answer.rdx)
		     : "0" ((u64)ELASTIC_HC_NR), "S" (rsi)
		     : "memory");
	return answer;
}

/**
 * hc_hello() - begin a session
 * @hello: the inventory with its arrays, from kmalloc()
 * @length: of all of it, in bytes
 *
 * Return: OK: @rbx the cookie, @rcx the features, @rdx the version.
 * REFUSED (VERSION, ADMISSION, NOT_GRANTED), E_FAULT, E_INVAL, E_NOMEM.
 */
static inline struct hc_answer hc_hello(const struct elastic_hello *hello, u64 length)
{
	return hc_call(ELASTIC_OP_HELLO, 0, virt_to_phys((void *)hello), length);
}

/**
 * hc_report() - telemetry in, targets out
 * @cookie: of the session
 * @report: from kmalloc()
 *
 * Return: OK: @rbx vCPUs (low half the most to hold, high half granted), @rcx
 * the most units to hold, @rdx units granted (low half) and the hint (high
 * half). E_STALE, E_FAULT, E_INVAL.
 */
static inline struct hc_answer hc_report(u64 cookie, const struct elastic_report *report)
{
	return hc_call(ELASTIC_OP_REPORT, cookie, virt_to_phys((void *)report),
		       sizeof(*report));
}

/**
 * hc_request_cpus() - ask for vCPUs
 * @cookie: of the session
 * @word: index of the 64-bit word of the vCPU set
 * @set: vCPUs of that word that would do
 * @nr: how many of them are wanted
 *
 * Return: OK, PARTIAL or REFUSED: @rbx bits 0..15 the reason, @rcx the vCPUs of
 * @set that are granted now. E_STALE, E_INVAL.
 */
static inline struct hc_answer hc_request_cpus(u64 cookie, u32 word, u64 set, u32 nr)
{
	u64 rbx = ELASTIC_OP_REQUEST | (u64)word << ELASTIC_WORD_SHIFT |
		  (u64)nr << ELASTIC_NCPUS_SHIFT;

	return hc_call(rbx, cookie, set, 0);
}

/**
 * hc_request_units() - ask for memory
 * @cookie: of the session
 * @first: number of the first unit
 * @nr: how many units, at most ELASTIC_RANGE_NR_MAX
 *
 * Return: OK, PARTIAL or REFUSED: @rbx bits 16..31 the reason, @rdx how many
 * units from @first on are granted now. E_STALE, E_INVAL.
 */
static inline struct hc_answer hc_request_units(u64 cookie, u64 first, u64 nr)
{
	return hc_call(ELASTIC_OP_REQUEST, cookie, 0, ELASTIC_RANGE(first, nr));
}

/**
 * hc_release_cpus() - give up vCPUs that are offline
 * @cookie: of the session
 * @word: index of the 64-bit word of the vCPU set
 * @set: the vCPUs
 *
 * Context: the caller keeps them offline (cpus_read_lock()).
 *
 * Return: OK: @rcx the vCPUs of the word that are still granted. E_STALE,
 * E_INVAL.
 */
static inline struct hc_answer hc_release_cpus(u64 cookie, u32 word, u64 set)
{
	return hc_call(ELASTIC_OP_RELEASE_CPU | (u64)word << ELASTIC_WORD_SHIFT,
		       cookie, set, 0);
}

/**
 * hc_release_units() - give up memory that is not touched any more
 * @cookie: of the session
 * @ranges: ascending, disjoint, not empty, from kmalloc()
 * @nr: how many ranges, at most ELASTIC_MAX_RANGES
 *
 * Return: OK: @rbx a reason that does not matter here, @rdx units taken back.
 * E_STALE, E_FAULT, E_INVAL (@rcx the first bad range), E_NOMEM.
 */
static inline struct hc_answer hc_release_units(u64 cookie, const struct elastic_range *ranges,
						u64 nr)
{
	return hc_call(ELASTIC_OP_RELEASE_MEM, cookie, virt_to_phys((void *)ranges), nr);
}

/**
 * hc_discard_units() - the content of granted units may go
 * @cookie: of the session
 * @ranges: from kmalloc(); ascending, disjoint, not empty
 * @nr: how many, at most ELASTIC_MAX_RANGES
 *
 * Return: as hc_release_units(); the units stay granted. E_NOSYS without the feature.
 */
static inline struct hc_answer hc_discard_units(u64 cookie, const struct elastic_range *ranges,
						u32 nr)
{
	return hc_call(ELASTIC_OP_DISCARD, cookie, virt_to_phys((void *)ranges), nr);
}

/**
 * hc_bye() - end the session; what is granted stays granted
 * @cookie: of the session
 *
 * Return: OK, E_STALE.
 */
static inline struct hc_answer hc_bye(u64 cookie)
{
	return hc_call(ELASTIC_OP_BYE, cookie, 0, 0);
}

#endif /* _ELASTIC_GUEST_HYPERCALL_H */
