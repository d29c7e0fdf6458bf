/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR BSD-2-Clause */
/*
 * kvm-elastic: the hypercall interface between a guest kernel and the host.
 *
 * THIS TEXT IS THE SPECIFICATION. Everything that a guest has to know in order
 * to speak to the host stands here; where code and text differ, the code is
 * wrong.
 *
 * 1. Terms
 * --------
 * ceiling   what the VMM created for the VM: vCPUs, and guest RAM.
 * grant     the part of the ceiling that the host lets the guest use now: a
 *           set of vCPUs and a set of units.
 * use       the part of the grant that the guest has brought into use.
 * unit      2 MiB of guest-physical memory, aligned to 2 MiB. Unit number n
 *           covers the addresses [n << 21, (n + 1) << 21).
 * vCPU      named by its (initial, x2APIC) APIC id, which is what the
 *           firmware's MADT lists and CPUID leaf 0xB returns in EDX.
 * session   what one successful HELLO begins; named by a random 64-bit cookie
 *           that is never zero.
 *
 * use <= grant <= ceiling holds at every moment, and the order of operations
 * keeps it: the guest asks, the host grants, then the guest uses; the guest
 * stops using, then releases, then the host takes.
 *
 * 2. States of a VM
 * -----------------
 * unmanaged  No HELLO since the VM was created or reset. Nothing is enforced:
 *            the grant is the whole ceiling, so that firmware and guests
 *            without a driver run as ever.
 * managed    A session exists. The grant is enforced.
 * detached   After BYE. The grant is enforced as it was; there is no session.
 *
 *   unmanaged --HELLO--> managed --BYE--> detached --HELLO--> managed
 *   any --reset of the VM--> unmanaged
 *
 * HELLO in the state "managed" replaces the session: the old cookie is void.
 *
 * What enforcement looks like to the guest: a vCPU outside the grant does not
 * run (INIT and SIPI sent to it have no effect until it is granted, and stay
 * pending until then); an access of a vCPU to a unit of the ceiling that is
 * outside the grant stops the VM. What the VMM's devices reach by DMA is not
 * seen. vCPUs and memory that the VMM adds by its own hot-plug after HELLO are
 * outside the ceiling of this session, and are not enforced.
 *
 * 3. Calling convention
 * ---------------------
 * x86-64, 64-bit mode, CPL 0. VMCALL (Intel) or VMMCALL (AMD) with
 *
 *   RAX  ELASTIC_HC_NR
 *   RBX  bits  0..15  operation, enum elastic_op
 *        bits 16..31  index W of a 64-bit word of the vCPU set (an operation
 *                     without vCPUs passes 0)
 *        bits 32..47  number of vCPUs (REQUEST only, else 0)
 *        bits 48..62  0
 *        bit  63      ELASTIC_F_WHOLE (REQUEST only, else 0)
 *   RCX  session cookie (HELLO: 0)
 *   RDX, RSI  arguments of the operation
 *
 * and the answer in
 *
 *   RAX  status, a signed 64-bit number, enum elastic_status
 *   RBX, RCX, RDX  results of the operation; where the table below has none,
 *        RBX is the reason (ELASTIC_R_*) and RCX and RDX are 0
 *
 * All other registers are preserved. RBX, RCX and RDX keep their values when
 * the status is -KVM_ENOSYS (-1000: this host does not know ELASTIC_HC_NR: no
 * KVM with the host module), ELASTIC_E_PERM (the caller is not the kernel), or
 * when the caller is not in 64-bit mode (ELASTIC_E_INVAL). A host that shows
 * itself as another hypervisor, too, may answer anything else without the host
 * module: a HELLO has succeeded only if RDX is a version that was offered.
 *
 * vCPU sets are given one 64-bit word at a time: bit b of word W is the vCPU
 * with APIC id 64 * W + b. W < ELASTIC_MAX_CPU_WORDS.
 *
 * A memory argument is (RDX: guest-physical address, RSI: length or count).
 * The address must be a multiple of 8, and the whole argument must lie in
 * granted guest RAM; it may cross pages. The host copies it once, before it
 * looks at it, keeps no address after the call returns, and never writes to
 * guest memory.
 *
 * 4. Rules
 * --------
 * - Every operation may be called from any vCPU at any time. Operations of one
 *   VM are carried out one after the other. The calling vCPU may sleep.
 * - Every operation is answered: in full, in part (with how much and why), or
 *   refused (with the reason). The host retries nothing by itself.
 * - Every operation but HELLO and BYE may be repeated with the same result,
 *   apart from what changed in between; RELEASE_MEM of a unit that is not
 *   granted is an error, so that a double release shows itself.
 * - An error (negative status) has changed nothing.
 * - A call of a vCPU that another one has released meanwhile is
 *   ELASTIC_E_INVAL with ELASTIC_R_NOT_GRANTED.
 * - ELASTIC_E_STALE for any reason (the VM was migrated, restored from a
 *   snapshot, reset; the host module was reloaded) means: say HELLO again with
 *   the present inventory. Nothing else is needed.
 * - Reserved fields and bits are 0, else ELASTIC_E_INVAL.
 *
 * 5. Operations
 * -------------
 * HELLO        RDX, RSI: address and length in bytes of struct elastic_hello
 *              with its arrays. Begins a session. The guest offers a range of
 *              versions and a set of features, and says what it holds: the
 *              vCPUs that are online, and the units that it does NOT hold.
 *              Units that are not listed are held: memory that the guest does
 *              not know of (firmware tables, reserved areas) stays granted.
 *              Only units that are guest RAM from end to end, that the guest
 *              does not use and that no firmware may use are listed. Listed
 *              units outside the ceiling are ignored. More than
 *              ELASTIC_MAX_RANGES ranges are given up with RELEASE_MEM later.
 *              Refused with ELASTIC_R_ADMISSION, the VM stays in the state
 *              "unmanaged".
 *              A HELLO that finds the VM enforced (managed or detached)
 *              grants nothing: what was not granted before stays so, whatever
 *              the inventory says; what is granted and not held is taken.
 *              Results: RBX the cookie, RCX the features that hold, RDX the
 *              version.
 * REPORT       RDX, RSI: address and length of struct elastic_report.
 *              Telemetry in, targets out. Once a period (about a second).
 *              Results: RBX bits 0..31 the most vCPUs that the guest should
 *              hold, bits 32..63 the vCPUs that are granted now; RCX the most
 *              units that the guest should hold, RDX bits 0..31 the units
 *              granted now, bits 32..63 the hint: the APIC id plus 1 of the
 *              vCPU that the guest had best give up first when it gives up one,
 *              because its place on the host is the worst, or because it did
 *              least; 0: none. No hint names the vCPU that booted, and without
 *              ELASTIC_FEAT_HINT there is none. The guest need not follow it.
 *              A target below the grant asks the guest to release the rest.
 *              A guest that has not done so after a time that the host's
 *              administrator sets loses the vCPUs beyond it without having
 *              released them, never the one that booted: they do not run, but
 *              for moments, in which the guest can still take them offline.
 *              It is over when the guest has released them (RELEASE_CPU, or
 *              a HELLO without them), or when the target is raised. Memory is
 *              never taken so; nothing is granted until the guest has come
 *              down.
 * REQUEST      RBX: W, and how many vCPUs of the set are wanted (0: all of
 *              it); RDX: vCPU set (0: none); RSI: ELASTIC_RANGE(first unit,
 *              number) (0: none). What is already granted counts as granted.
 *              With ELASTIC_F_WHOLE it is granted as a whole or not at all.
 *              Results: RBX bits 0..15 the reason for vCPUs, bits 16..31 the
 *              reason for memory; RCX the vCPUs of the set that are granted
 *              now; RDX how many units from the first on are granted now.
 *              Where ELASTIC_F_WHOLE is refused, RBX bits 32..47 are how many
 *              vCPUs of the set, and bits 48..63 how many units from the
 *              first on (65535: so many or more), would be granted in total
 *              to the same REQUEST without it; else these bits are 0.
 * RELEASE_CPU  RBX: W; RDX: vCPU set. The vCPUs must be offline in the guest,
 *              and the caller is not one of them. vCPUs that are not granted
 *              are passed over. Results: RBX the reason, RCX the vCPUs of the
 *              word that are still granted, RDX 0.
 * RELEASE_MEM  RDX, RSI: address and number of struct elastic_range, in
 *              ascending order, disjoint, not empty. The guest does not touch
 *              the units any more. The batch is taken as a whole or refused as
 *              a whole. When a released unit is granted again it may read as
 *              zero or as before. Results: RBX the reason (ELASTIC_R_PINNED if
 *              the host could not reuse all of it, which does not matter to
 *              the guest); RCX the index of the first bad range if there is an
 *              error, else 0; RDX how many units the host took back.
 * DISCARD      RDX, RSI, results as RELEASE_MEM. The content of the units may
 *              go, the grant stays: they may be used again at any time, and
 *              read as zero or as before then. What the host could not
 *              give back for sure it does not take. Only with ELASTIC_FEAT_DISCARD, else
 *              ELASTIC_E_NOSYS.
 * BYE          No arguments. Ends the session.
 *
 * 6. Statuses by operation
 * ------------------------
 * x: the operation can return it. All return ELASTIC_E_PERM, ELASTIC_E_INVAL,
 * and ELASTIC_E_INTR. (A self-test reads this table.)
 *
 *              OK PARTIAL REFUSED FAULT NOMEM STALE NOSYS
 * HELLO        x  -       x       x     x     -     -
 * REPORT       x  -       -       x     -     x     -
 * REQUEST      x  x       x       -     -     x     -
 * RELEASE_CPU  x  -       -       -     -     x     -
 * RELEASE_MEM  x  -       -       x     x     x     -
 * DISCARD      x  -       -       x     x     x     x
 * BYE          x  -       -       -     -     x     -
 * unknown      -  -       -       -     -     -     x
 *
 * 7. Versions
 * -----------
 * This is version 1. A field, bit, operation or reason gets its meaning once
 * and keeps it. What can be added without harm is a feature bit; what cannot
 * is a new version. HELLO answers the highest version both know, or refuses
 * with ELASTIC_R_VERSION.
 */
#ifndef _UAPI_ELASTIC_HYPERCALL_H
#define _UAPI_ELASTIC_HYPERCALL_H

#include <linux/types.h>

/** ELASTIC_HC_NR - RAX: far from the numbers of KVM, Hyper-V and Xen */
#define ELASTIC_HC_NR		0x454c4153U	/* "ELAS" */

#define ELASTIC_VERSION		1

/* RBX of a call */
#define ELASTIC_OP_MASK		0xffffULL
#define ELASTIC_WORD_SHIFT	16
#define ELASTIC_WORD_MASK	0xffffULL
#define ELASTIC_NCPUS_SHIFT	32
#define ELASTIC_NCPUS_MASK	0xffffULL
#define ELASTIC_F_WHOLE		(1ULL << 63)	/* REQUEST: all or nothing */
#define ELASTIC_RESERVED_MASK	(0x7fffULL << 48)

/* A unit of memory */
#define ELASTIC_UNIT_SHIFT	21
#define ELASTIC_UNIT_SIZE	(1ULL << ELASTIC_UNIT_SHIFT)

/* RBX of the answer to a REQUEST that was refused as a whole */
#define ELASTIC_COULD_CPUS_SHIFT	32
#define ELASTIC_COULD_UNITS_SHIFT	48
#define ELASTIC_COULD_MASK	0xffffULL

/* RDX of the answer to a REPORT: units granted, and the hint */
#define ELASTIC_HINT_SHIFT	32
#define ELASTIC_REPORT_UNITS_MASK	0xffffffffULL

/* RSI of REQUEST: first unit in bits 24..63, number in bits 0..23 */
#define ELASTIC_RANGE_NR_BITS	24
#define ELASTIC_RANGE_NR_MAX	((1ULL << ELASTIC_RANGE_NR_BITS) - 1)
#define ELASTIC_RANGE(first, nr) \
	(((__u64)(first) << ELASTIC_RANGE_NR_BITS) | \
	 ((__u64)(nr) & ELASTIC_RANGE_NR_MAX))
#define ELASTIC_RANGE_FIRST(r)	((__u64)(r) >> ELASTIC_RANGE_NR_BITS)
#define ELASTIC_RANGE_NR(r)	((__u64)(r) & ELASTIC_RANGE_NR_MAX)

/* Bounds */
#define ELASTIC_MAX_RANGES	512	/* ranges in one call */
#define ELASTIC_MAX_CPU_WORDS	64	/* 4096 vCPUs */
#define ELASTIC_MAX_UNIT	(1ULL << 31)	/* units are below: 4 PiB */

/**
 * enum elastic_op - the operations, RBX bits 0..15
 * @ELASTIC_OP_HELLO: begin a session, with the inventory
 * @ELASTIC_OP_REPORT: telemetry in, targets out
 * @ELASTIC_OP_REQUEST: ask for vCPUs and units
 * @ELASTIC_OP_RELEASE_CPU: give up vCPUs
 * @ELASTIC_OP_RELEASE_MEM: give up units
 * @ELASTIC_OP_DISCARD: content of granted units may go
 * @ELASTIC_OP_BYE: end the session
 * @ELASTIC_OP_NR: number of the first unknown operation
 */
enum elastic_op {
	ELASTIC_OP_HELLO	= 0,
	ELASTIC_OP_REPORT	= 1,
	ELASTIC_OP_REQUEST	= 2,
	ELASTIC_OP_RELEASE_CPU	= 3,
	ELASTIC_OP_RELEASE_MEM	= 4,
	ELASTIC_OP_DISCARD	= 5,
	ELASTIC_OP_BYE		= 6,
	ELASTIC_OP_NR		= 7,
};

/**
 * enum elastic_status - RAX of an answer
 * @ELASTIC_OK: done in full
 * @ELASTIC_PARTIAL: a part was granted; the results say how much and why
 * @ELASTIC_REFUSED: well-formed, and not granted; RBX says why
 * @ELASTIC_E_PERM: the caller does not run at CPL 0 (is also -KVM_EPERM)
 * @ELASTIC_E_INTR: the VMM's thread is being killed
 * @ELASTIC_E_NOMEM: the host has no memory for its own records
 * @ELASTIC_E_FAULT: a memory argument is not in granted guest RAM
 * @ELASTIC_E_INVAL: malformed; RBX has the reason
 * @ELASTIC_E_NOSYS: unknown operation, or one whose feature does not hold
 * @ELASTIC_E_STALE: unknown cookie: say HELLO
 */
enum elastic_status {
	ELASTIC_OK		= 0,
	ELASTIC_PARTIAL		= 1,
	ELASTIC_REFUSED		= 2,
	ELASTIC_E_PERM		= -1,
	ELASTIC_E_INTR		= -4,
	ELASTIC_E_NOMEM		= -12,
	ELASTIC_E_FAULT		= -14,
	ELASTIC_E_INVAL		= -22,
	ELASTIC_E_NOSYS		= -38,
	ELASTIC_E_STALE		= -116,
};

/**
 * enum elastic_reason - why less than all was done
 * @ELASTIC_R_NONE: no reason to give
 * @ELASTIC_R_MAX: over the VM's maximum
 * @ELASTIC_R_POOL: the host's pool has no more
 * @ELASTIC_R_CEILING: a vCPU or unit that the VMM did not create
 * @ELASTIC_R_RATE: too much in too short a time
 * @ELASTIC_R_NOT_GRANTED: a vCPU or unit that is not granted
 * @ELASTIC_R_ORDER: ranges empty, not ascending, overlapping, or beyond
 *	ELASTIC_MAX_UNIT
 * @ELASTIC_R_SELF: the calling vCPU cannot release itself
 * @ELASTIC_R_PINNED: released, but the host could not reuse all of it
 * @ELASTIC_R_VERSION: no common version
 * @ELASTIC_R_LENGTH: length, count or alignment out of bounds
 * @ELASTIC_R_RESERVED: a reserved bit or field is not zero, or the feature
 *	that would allow it does not hold
 * @ELASTIC_R_ADMISSION: the host takes no further VM (its pool has no room for
 *	the minimum of one more), or not this one (its memory is on pages larger
 *	than a unit, or private to it)
 * @ELASTIC_R_WHOLE: the other half of an ELASTIC_F_WHOLE request failed
 * @ELASTIC_R_NR: number of the first unknown reason
 */
enum elastic_reason {
	ELASTIC_R_NONE		= 0,
	ELASTIC_R_MAX		= 1,
	ELASTIC_R_POOL		= 2,
	ELASTIC_R_CEILING	= 3,
	ELASTIC_R_RATE		= 4,
	ELASTIC_R_NOT_GRANTED	= 5,
	ELASTIC_R_ORDER		= 6,
	ELASTIC_R_SELF		= 7,
	ELASTIC_R_PINNED	= 8,
	ELASTIC_R_VERSION	= 9,
	ELASTIC_R_LENGTH	= 10,
	ELASTIC_R_RESERVED	= 11,
	ELASTIC_R_ADMISSION	= 12,
	ELASTIC_R_WHOLE		= 13,
	ELASTIC_R_NR		= 14,
};

/* Features, offered in struct elastic_hello, answered in RCX */
#define ELASTIC_FEAT_CPU	(1ULL << 0)	/* vCPUs can be asked for */
#define ELASTIC_FEAT_MEM	(1ULL << 1)	/* units can be asked for */
#define ELASTIC_FEAT_DISCARD	(1ULL << 2)	/* DISCARD */
#define ELASTIC_FEAT_HINT	(1ULL << 3)	/* REPORT names a vCPU to give up */

/**
 * struct elastic_range - a run of units
 * @first: number of the first unit
 * @nr: how many, at least 1
 */
struct elastic_range {
	__u64 first;
	__u64 nr;
};

/**
 * struct elastic_hello - argument of HELLO
 * @version_min: lowest version that the guest speaks
 * @version_max: highest version that the guest speaks
 * @nr_cpu_words: length of the first array, at most ELASTIC_MAX_CPU_WORDS
 * @nr_ranges: length of the second array, at most ELASTIC_MAX_RANGES
 * @features: ELASTIC_FEAT_* that the guest wants
 * @reserved: 0
 *
 * Followed at once by __u64 cpus_held[nr_cpu_words], the vCPU set in use, and
 * struct elastic_range absent[nr_ranges], the units not held: ascending,
 * disjoint, not empty. The length given in RSI is that of all three.
 * The calling vCPU must be in cpus_held.
 */
struct elastic_hello {
	__u32 version_min;
	__u32 version_max;
	__u32 nr_cpu_words;
	__u32 nr_ranges;
	__u64 features;
	__u64 reserved;
};

/**
 * struct elastic_report - argument of REPORT
 * @period_ns: time since the last REPORT or HELLO, in ns
 * @busy_ns: time that CPUs ran something other than idle, summed, in ns
 * @steal_ns: time that CPUs wanted to run and did not, summed, in ns
 * @runnable_milli: runnable tasks, average over the period, times 1000
 * @cpus_online: CPUs online
 * @cpus_wanted: CPUs that the guest's policy would have
 * @units_online: units in use, those that the guest booted with included
 * @units_wanted: units that the guest's policy would have
 * @mem_total: memory that the guest's kernel manages, in bytes
 * @mem_available: what it could hand out without swapping, in bytes
 * @mem_free: unused, in bytes
 * @mem_cached: page cache, in bytes
 * @reclaims: direct reclaims begun since the last REPORT
 * @ooms: times that memory ran out since the last REPORT
 * @reserved: 0
 *
 * The host takes all of it as a claim.
 */
struct elastic_report {
	__u64 period_ns;
	__u64 busy_ns;
	__u64 steal_ns;
	__u64 runnable_milli;
	__u32 cpus_online;
	__u32 cpus_wanted;
	__u64 units_online;
	__u64 units_wanted;
	__u64 mem_total;
	__u64 mem_available;
	__u64 mem_free;
	__u64 mem_cached;
	__u32 reclaims;
	__u32 ooms;
	__u64 reserved[4];
};

#if defined(__KERNEL__)
#include <linux/build_bug.h>
#else
#include <assert.h>
#endif
static_assert(sizeof(struct elastic_range) == 16, "wire layout");
static_assert(sizeof(struct elastic_hello) == 32, "wire layout");
static_assert(sizeof(struct elastic_report) == 128, "wire layout");

#endif /* _UAPI_ELASTIC_HYPERCALL_H */
