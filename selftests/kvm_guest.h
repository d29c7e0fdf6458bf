/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A small virtual machine on /dev/kvm for tests: no firmware and no operating
 * system in it, only a loop that does one command of the test at a time.
 *
 * Memory looks like QEMU's: RAM below 640 KiB, a legacy video hole, a read-only
 * slot below 1 MiB, RAM from 1 MiB on, flash (read-only) below 4 GiB, a
 * writable video memory slot, RAM from 4 GiB on. Everything that the loop itself
 * needs lies below 640 KiB, so a test may give away all the rest.
 *
 * vCPU 0 (the BSP) is put into 64-bit mode by the VMM. The others wait for
 * INIT and SIPI like real ones, and get to 64-bit mode through a real-mode
 * trampoline, one page per vCPU, whose number is the SIPI vector.
 *
 * Each vCPU has a thread of its own for KVM_RUN: KVM waits for a grace period
 * when a vCPU changes threads.
 */
#ifndef SELFTESTS_KVM_GUEST_H
#define SELFTESTS_KVM_GUEST_H

/* Layout below 640 KiB: guest-physical addresses */
#define KG_GDT		0x1000
#define KG_COOKIE	0x1800	/* of the last HELLO in a list */
#define KG_IDT		0x2000
#define KG_CODE		0x3000	/* up to 5 pages */
#define KG_TRAMPOLINE	0x8000	/* a page per vCPU */
#define KG_MAILBOX	0x18000	/* a page per vCPU: mailbox, then stack */
#define KG_ARGS		0x28000	/* memory arguments of hypercalls */
#define KG_ARGS_SIZE	0x10000	/* up to KG_SMM */
#define KG_SMM		0x38000	/* where SMM begins, and its state is saved: 32 KiB */
#define KG_SMM_ADDRESS	(KG_SMM + 0x1000)	/* of its handler: see kvm_guest_code.S */
#define KG_SMM_VALUE	(KG_SMM + 0x1004)
#define KG_SMM_WRITE	(KG_SMM + 0x1008)
#define KG_TABLES	0x40000	/* page tables */
#define KG_PML4		(KG_TABLES + 0x0000)
#define KG_PDPT_2M	(KG_TABLES + 0x1000)
#define KG_PDPT_1G	(KG_TABLES + 0x2000)
#define KG_PDPT_4K	(KG_TABLES + 0x3000)
#define KG_PD_2M	(KG_TABLES + 0x4000)	/* KG_MAP_GIB pages */
#define KG_PD_4K	(KG_TABLES + 0x14000)
#define KG_PT_4K	(KG_TABLES + 0x15000)	/* KG_4K_UNITS pages */
#define KG_TABLES_END	(KG_TABLES + 0x35000)
#define KG_LISTS	0x76000	/* a page per vCPU, for KG_CMD_CALLS */
#define KG_LISTS_END	(KG_LISTS + KG_MAX_VCPUS * 0x1000)
#define KG_LOW_END	0xa0000

#define KG_MAX_VCPUS	16
#define KG_MAP_GIB	16	/* of the identity mapping */
#define KG_4K_UNITS	32	/* units that the 4 KiB mapping covers */

/* The same memory, mapped with other page sizes; add to an address */
#define KG_VIA_2M	0x0ULL
#define KG_VIA_1G	(1ULL << 39)
#define KG_VIA_4K	(2ULL << 39)

/* Slots beside RAM */
#define KG_ROM		0xe0000ULL
#define KG_ROM_SIZE	0x20000ULL
#define KG_FLASH	0xffc00000ULL
#define KG_FLASH_SIZE	0x400000ULL
#define KG_VGA		0xfd000000ULL
#define KG_VGA_SIZE	0x1000000ULL
#define KG_RAM		0x100000ULL	/* RAM above the legacy hole */
#define KG_HIGH		0x100000000ULL	/* RAM above 4 GiB */
#define KG_FAR		0x10000000000ULL	/* RAM from 1 TiB */

/* Segment selectors */
#define KG_CS64		0x08
#define KG_DS		0x10
#define KG_CS32		0x18
#define KG_CS64_USER	0x23
#define KG_DS_USER	0x2b

/* Ports */
#define KG_PORT_DONE	0x70	/* a command is done */
#define KG_PORT_TRAP	0x71	/* an exception happened */
#define KG_PORT_STRING	0x72	/* string instructions */
#define KG_IPI_VECTOR	0x40

/* Commands */
#define KG_CMD_NOP	0
#define KG_CMD_CALL	1	/* hypercall with mailbox.in, answer in mailbox.out */
#define KG_CMD_READ	2	/* result = *arg0 */
#define KG_CMD_WRITE	3	/* *arg0 = arg1 */
#define KG_CMD_EXEC	4	/* call arg0 */
#define KG_CMD_SPIN	5	/* counter++ until stop */
#define KG_CMD_HLT	6	/* halt once, interrupts on */
#define KG_CMD_WRMSR	7	/* MSR arg0 = arg1 */
#define KG_CMD_FILL	8	/* arg1 words from arg0 on = arg2, arg2 + 1, ... */
#define KG_CMD_CHECK	9	/* result: words from arg0 on that FILL left so */
#define KG_CMD_ONES	10	/* result: words of arg1 from arg0 on that are not 0 */
#define KG_CMD_HLT_OFF	11	/* halt for ever, interrupts off: NMIs still count */
/* What KVM does for the guest; all may end with other exits than an answer */
#define KG_CMD_OUTS	12	/* REP OUTSB of arg1 bytes at arg0 to KG_PORT_STRING */
#define KG_CMD_INS	13	/* REP INSB of arg1 bytes to arg0 from KG_PORT_STRING */
#define KG_CMD_MOVS	14	/* REP MOVSB from arg0 to arg1 of arg2 bytes */
#define KG_CMD_VMLOAD	15	/* AMD: VMLOAD of arg0 */
#define KG_CMD_VMXON	16	/* Intel: VMXON of arg0, and of arg1 VMPTRLD if not 0 */
#define KG_CMD_CALLS	17	/* arg1 hypercalls of the list at arg0, without an exit between */
/* For measuring. Result: how many ticks of the TSC it took */
#define KG_CMD_TIMED_CALLS 18	/* hypercall arg0, arg1 times */
#define KG_CMD_TOUCH	19	/* a byte in each of arg1 4 KiB pages from arg0 on */
#define KG_CMD_IPIS	20	/* KG_IPI_VECTOR to itself, arg1 times */

/* Offsets in the mailbox for the assembler; checked in kvm_guest.c */
#define KG_MB_CMD	0x00
#define KG_MB_ARG0	0x08
#define KG_MB_ARG1	0x10
#define KG_MB_ARG2	0x18
#define KG_MB_RESULT	0x20
#define KG_MB_COUNTER	0x28
#define KG_MB_STOP	0x30
#define KG_MB_NMIS	0x38
#define KG_MB_IPIS	0x40
#define KG_MB_STARTS	0x48
#define KG_MB_INTEL	0x50
#define KG_MB_RSP	0x58
#define KG_MB_TRAP	0x60	/* vector, error code, rip, cr2 */
#define KG_MB_XMM	0x80	/* two words in, two words out */
#define KG_MB_IN	0xa0
#define KG_MB_OUT	0x130
#define KG_MB_STACK	0x1000	/* its top */

/* Offsets in struct kg_regs */
#define KG_RAX		0x00
#define KG_RBX		0x08
#define KG_RCX		0x10
#define KG_RDX		0x18
#define KG_RSI		0x20
#define KG_RDI		0x28
#define KG_RBP		0x30
#define KG_R8		0x38
#define KG_R9		0x40
#define KG_R10		0x48
#define KG_R11		0x50
#define KG_R12		0x58
#define KG_R13		0x60
#define KG_R14		0x68
#define KG_R15		0x70
#define KG_RFLAGS	0x78
#define KG_RSP		0x80

/* In struct kg_list_call */
#define KG_LIST_RBX	0x00
#define KG_LIST_RCX	0x08
#define KG_LIST_RDX	0x10
#define KG_LIST_RSI	0x18
#define KG_LIST_OUT	0x20	/* RAX, RBX, RCX, RDX */
#define KG_LIST_SIZE	0x40
#define KG_LIST_MAX	(0x1000 / KG_LIST_SIZE)

#define KG_HC_NR	0x454c4153	/* ELASTIC_HC_NR, for the assembler */
#define KG_COOKIE_LIVE	0x4c495645	/* RCX of a call in a list: what is at KG_COOKIE */

/* In a trampoline page */
#define KG_TRAMP_MAILBOX	0xff8

#ifndef __ASSEMBLER__

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/kvm.h>

#include "../uapi/elastic_hypercall.h"

typedef uint64_t u64;
typedef int64_t s64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

struct kg_regs {
	u64 rax, rbx, rcx, rdx, rsi, rdi, rbp;
	u64 r8, r9, r10, r11, r12, r13, r14, r15;
	u64 rflags, rsp;
};

/* Shared by the guest's loop and the test; one per vCPU */
struct kg_mailbox {
	volatile u64 cmd;
	volatile u64 arg[3];
	volatile u64 result;
	volatile u64 counter;	/* KG_CMD_SPIN */
	volatile u64 stop;	/* ends KG_CMD_SPIN */
	volatile u64 nmis;	/* NMIs taken */
	volatile u64 ipis;	/* interrupts KG_IPI_VECTOR taken */
	volatile u64 starts;	/* times that the vCPU came from its trampoline */
	volatile u64 intel;	/* VMCALL instead of VMMCALL */
	volatile u64 rsp;	/* of the loop */
	volatile u64 trap[4];
	volatile u64 xmm[4];
	struct kg_regs in;
	u64 pad;
	struct kg_regs out;
};

/*
 * One of a list, see KG_CMD_CALLS; the mailbox's counter is how many are done. With all
 * bits of RBX set it is no call, but RCX is written to where RDX points.
 */
struct kg_list_call {
	volatile u64 rbx, rcx, rdx, rsi;
	volatile u64 out[4];
};

/* What the guest's RAM is made of */
enum kg_backend {
	KG_MEMFD,	/* shared, like memory-backend-memfd */
	KG_ANON,	/* private and anonymous, like QEMU's plain -m */
	KG_HUGETLB,	/* shared memfd of huge pages */
	KG_PRIVATE_FILE,	/* MAP_PRIVATE of a file: a kind that nobody knows */
};

struct kg_config {
	unsigned int nr_vcpus;	/* 0: 1 */
	const u32 *ids;		/* APIC ids of the vCPUs; NULL: 0, 1, 2, ... */
	enum kg_backend backend;
	u64 ram;		/* below 4 GiB, from address 0; 0: 64 MiB */
	u64 high;		/* from 4 GiB on */
	u64 far;		/* from 1 TiB on: the slot only */
	bool flat;		/* one slot from 0, no hole, no ROM at 0xe0000 */
	bool populate;		/* touch all RAM before the guest does */
};

/* How a KVM_RUN (or several, if KVM asked for it) ended */
enum kg_end {
	KG_ANSWER,	/* the command is done */
	KG_EFAULT,	/* KVM_RUN: -EFAULT */
	KG_EINTR,	/* KVM_RUN: -EINTR, by a signal or immediate_exit */
	KG_TIMEOUT,	/* still running */
	KG_TRAP,	/* an exception in the guest: mailbox.trap */
	KG_OTHER,	/* anything else: vcpu.error, vcpu.run->exit_reason */
};

struct kg_vm;

struct kg_vcpu {
	struct kg_vm *vm;
	unsigned int index;
	u32 id;			/* APIC id */
	int fd;
	struct kvm_run *run;
	struct kg_mailbox *mb;
	u64 mb_gpa;

	/* Below: under vm->lock */
	pthread_t thread;
	bool has_thread;
	bool wanted;		/* the thread should be in KVM_RUN */
	bool running;		/* the thread is to say how it ended */
	bool kicked;		/* leave, do not run again */
	bool quit;
	enum kg_end end;
	int error;		/* errno of the last KVM_RUN */
	unsigned long eagain;	/* KVM_RUNs that ended with -EAGAIN */
};

#define KG_NAMES	64
#define KG_NAME		64

struct kg_vm {
	struct kg_config cfg;
	int kvm_fd;
	int fd;
	unsigned int nr_vcpus;
	struct kg_vcpu vcpu[KG_MAX_VCPUS];
	size_t run_size;
	uint8_t *ram;		/* all RAM: low, then high */
	u64 ram_size;
	int ram_fd;		/* -1: anonymous */
	uint8_t *rom, *flash, *vga, *far;
	u64 far_size;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct kvm_cpuid2 *cpuid;
	bool has_1g;		/* the guest's CPUs have 1 GiB pages */

	char dir[256];		/* in the host's sysfs; empty: not yet */
	char known[KG_NAMES][KG_NAME];	/* directories that were there before */
	unsigned int nr_known;
	u64 cookie;		/* of the last kg_hello() */
	u64 more_features;	/* that kg_hello() offers, beside the first three */
};

/* The VM itself. Errors end the test, so there is nothing to check. */
struct kg_vm *kg_new(const struct kg_config *cfg);
void kg_free(struct kg_vm *vm);
/* Width of a physical address */
unsigned int kg_phys_bits(void);
const char *kg_end_name(enum kg_end end);
/*
 * Make, change, move or (size 0) delete a memory slot. Of the address space of SMM: with
 * KG_SMM_SLOT. kg_new() makes KG_SLOT_RAM from KG_RAM on, KG_SLOT_HIGH, and others.
 */
#define KG_SLOT_LOW	0
#define KG_SLOT_RAM	3
#define KG_SLOT_HIGH	4
#define KG_SMM_SLOT	(1U << 16)
void kg_slot(struct kg_vm *vm, u32 slot, u64 gpa, u64 size, void *hva, u32 flags);
/* Give SMM an address space that has all of RAM, and a handler. false: KVM has none */
bool kg_smm_setup(struct kg_vm *vm);
/* Read or write a word in SMM, by an SMI; as kg_do(). *@value: in, and out */
enum kg_end kg_smm_do(struct kg_vcpu *vcpu, bool write, u32 gpa, u32 *value);
/* Host address of a guest-physical one in RAM; NULL: not RAM */
void *kg_hva(struct kg_vm *vm, u64 gpa);

/* Run: kg_go() and kg_wait() for what takes long, kg_run() is both */
void kg_go(struct kg_vcpu *vcpu);
enum kg_end kg_wait(struct kg_vcpu *vcpu, unsigned int timeout_ms);
enum kg_end kg_run(struct kg_vcpu *vcpu, unsigned int timeout_ms);
/* Send the vCPU's thread a signal and wait; returns how KVM_RUN ended */
enum kg_end kg_kick(struct kg_vcpu *vcpu, unsigned int timeout_ms);
bool kg_is_running(struct kg_vcpu *vcpu);
/* One KVM_RUN with immediate_exit */
enum kg_end kg_run_immediate(struct kg_vcpu *vcpu);
/* Forget the command that did not end: back to the top of the loop */
void kg_abandon(struct kg_vcpu *vcpu);

/* Commands. kg_cmd() sets up, kg_do() runs it, too. */
void kg_cmd(struct kg_vcpu *vcpu, u64 cmd, u64 arg0, u64 arg1, u64 arg2);
enum kg_end kg_do(struct kg_vcpu *vcpu, u64 cmd, u64 arg0, u64 arg1, u64 arg2);
/* As kg_do(), but must be answered, else the test ends; returns the result */
u64 kg_must(struct kg_vcpu *vcpu, u64 cmd, u64 arg0, u64 arg1, u64 arg2);
/* x2APIC inter-processor interrupts, sent by @vcpu */
void kg_send_init(struct kg_vcpu *vcpu, u32 id);
void kg_send_sipi(struct kg_vcpu *vcpu, u32 id, unsigned int vector);
void kg_send_ipi(struct kg_vcpu *vcpu, u32 id);
/* INIT and SIPI from the BSP to @ap, with its own trampoline */
void kg_start_ap(struct kg_vcpu *ap);

/* Hypercalls */
enum kg_mode { KG_LONG, KG_RING3, KG_COMPAT, KG_PROTECTED, KG_REAL, KG_NR_MODES };

/* What kg_call() is made of: the registers before it, and after it */
void kg_call_setup(struct kg_vcpu *vcpu, u64 rbx, u64 rcx, u64 rdx, u64 rsi);
/*
 * The call with mailbox.in, in another mode: the VMM puts the vCPU there and
 * back again. Only the registers that the mode has are meaningful.
 */
enum kg_end kg_call_mode(struct kg_vcpu *vcpu, enum kg_mode mode);
const char *kg_mode_name(enum kg_mode mode);

struct kg_answer {
	s64 status;		/* RAX */
	u64 rbx, rcx, rdx;
	bool kept;		/* all that must be preserved was */
	bool same;		/* RBX, RCX, RDX are as they went in */
};

void kg_call_answer(struct kg_vcpu *vcpu, struct kg_answer *answer);

#define KG_OP(op, word, ncpus, flags) \
	((u64)(op) | (u64)(word) << ELASTIC_WORD_SHIFT | \
	 (u64)(ncpus) << ELASTIC_NCPUS_SHIFT | (flags))

/* A call that must be answered, else the test ends */
struct kg_answer kg_call(struct kg_vcpu *vcpu, u64 rbx, u64 rcx, u64 rdx, u64 rsi);
/* One that may end otherwise: does not wait for ever */
enum kg_end kg_try_call(struct kg_vcpu *vcpu, u64 rbx, u64 rcx, u64 rdx, u64 rsi,
			struct kg_answer *answer);

/*
 * HELLO with version 1, vCPUs @held in word 0 and these absent ranges; remembers
 * the cookie and finds the VM's directory in sysfs.
 */
struct kg_answer kg_hello(struct kg_vcpu *vcpu, u64 held,
			  const struct elastic_range *absent, unsigned int nr);
/* The same, must be granted */
void kg_must_hello(struct kg_vcpu *vcpu, u64 held,
		   const struct elastic_range *absent, unsigned int nr);
/* Writes a HELLO argument at KG_ARGS; returns its length */
u64 kg_hello_args(struct kg_vm *vm, u64 held, const struct elastic_range *absent,
		  unsigned int nr);
struct kg_answer kg_request(struct kg_vcpu *vcpu, u64 cpus, u64 first, u64 nr);
struct kg_answer kg_release_cpu(struct kg_vcpu *vcpu, u64 cpus);
struct kg_answer kg_release_mem(struct kg_vcpu *vcpu, u64 first, u64 nr);
struct kg_answer kg_discard(struct kg_vcpu *vcpu, u64 first, u64 nr);
struct kg_answer kg_report(struct kg_vcpu *vcpu);
struct kg_answer kg_bye(struct kg_vcpu *vcpu);

/* vCPU ioctls that tests need; errors end the test */
void kg_get_regs(struct kg_vcpu *vcpu, struct kvm_regs *regs);
void kg_set_regs(struct kg_vcpu *vcpu, struct kvm_regs *regs);
u32 kg_get_mp_state(struct kg_vcpu *vcpu);
void kg_set_mp_state(struct kg_vcpu *vcpu, u32 state);
/* As QEMU's system_reset: all vCPUs to their first state, BSP runnable */
void kg_reset(struct kg_vm *vm);

/* The host module */
#define KG_SYSFS "/sys/kernel/elastic_host"
#define KG_ENOSYS (-1000)

/*
 * Makes sure that elastic_host is loaded; loads it from $ELASTIC_HOST_KO and
 * unloads it at exit if need be. Skips the whole test if there is none.
 */
void host_module_need(void);
bool host_module_loaded(void);
/* 0, or -errno of the kernel */
int host_module_load(void);
int host_module_unload(void);

/* A file of the VM's directory; errors end the test */
s64 kg_stat(struct kg_vm *vm, const char *file);
void kg_file(struct kg_vm *vm, const char *file, char *text, size_t size);
/* 0 or -errno */
int kg_write(struct kg_vm *vm, const char *file, const char *text);
s64 host_stat(const char *file);
int host_write(const char *file, const char *text);
/* Everything but the counters of calls: what an error may not change */
char *kg_snapshot(struct kg_vm *vm);
/* As it is now: "managed" and so on; "" if there is no directory */
const char *kg_state(struct kg_vm *vm);

/* Wait until COND, at most MS milliseconds; true if it came */
#define kg_until(cond, ms) ({						\
	u64 kg__end = kg_now_ms() + (ms);				\
	bool kg__ok;							\
	while (!(kg__ok = !!(cond)) && kg_now_ms() < kg__end)		\
		kg_pause();						\
	kg__ok; })

u64 kg_now_ms(void);
void kg_pause(void);	/* between two looks at a condition */

#endif /* __ASSEMBLER__ */
#endif /* SELFTESTS_KVM_GUEST_H */
