// SPDX-License-Identifier: GPL-2.0-only
/*
 * The VMM changes the memory slots of a VM while units in them are granted, given up and
 * asked for: deletes them, puts other memory there, makes them read-only, logs dirty pages,
 * has another address space for SMM. The grant is about guest addresses, so none of it
 * opens what is not granted; and what has no slot is given up without a fuss.
 */
#define _GNU_SOURCE
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ktap.h"
#include "kvm_guest.h"

#define RAM_UNITS	64
#define HIGH_UNITS	16
#define HIGH_FIRST	(KG_HIGH >> ELASTIC_UNIT_SHIFT)
#define UNIT(n)		((u64)(n) << ELASTIC_UNIT_SHIFT)
#define FIRST		16	/* not granted: [FIRST, FIRST + NR) */
#define NR		8
#define GRANTED		(HIGH_FIRST + HIGH_UNITS / 2)	/* and what is above, but not below */
#define SOON_MS		30000
#define RACE_MS		2000

static const struct elastic_range absent[] = {
	{ FIRST, NR }, { HIGH_FIRST, HIGH_UNITS / 2 },
};

static struct kg_vm *vm;
static struct kg_vcpu *bsp;

static void fresh_vm(enum kg_backend backend)
{
	struct kg_config cfg = {
		.nr_vcpus = 3, .backend = backend, .ram = UNIT(RAM_UNITS),
		.high = UNIT(HIGH_UNITS),
	};

	vm = kg_new(&cfg);
	bsp = &vm->vcpu[0];
	kg_must_hello(bsp, 7, absent, 2);
}

static enum kg_end touch(u64 cmd, u64 gpa, u64 value)
{
	enum kg_end end = kg_do(bsp, cmd, gpa, value, 0);

	/* KVM wants an access to a device to be completed */
	if (end == KG_OTHER && !bsp->error && bsp->run->exit_reason == KVM_EXIT_MMIO)
		return kg_run(bsp, SOON_MS) == KG_ANSWER ? KG_OTHER : KG_TRAP;
	if (end != KG_ANSWER)
		kg_abandon(bsp);
	return end;
}

static enum kg_end look(u64 gpa)
{
	return touch(KG_CMD_READ, gpa, 0);
}

static void *high_memory(void)
{
	return kg_hva(vm, KG_HIGH);
}

static void no_high(void)
{
	kg_slot(vm, KG_SLOT_HIGH, KG_HIGH, 0, high_memory(), 0);
}

static void high(void *memory, u32 flags)
{
	kg_slot(vm, KG_SLOT_HIGH, KG_HIGH, UNIT(HIGH_UNITS), memory, flags);
}

static void deleted(void)
{
	s64 grant, unreclaimed;
	struct kg_answer a;
	enum kg_end end;

	ktap_diag("a slot that is deleted");
	fresh_vm(KG_MEMFD);
	touch(KG_CMD_WRITE, UNIT(GRANTED), 0x77);
	grant = kg_stat(vm, "memory/grant_mib");
	unreclaimed = kg_stat(vm, "stats/unreclaimed_bytes");
	no_high();
	ktap_eq(kg_stat(vm, "memory/grant_mib"), grant, "the grant is the same");
	a = kg_release_mem(bsp, GRANTED, 2);
	ktap_ok(a.status == ELASTIC_OK && a.rbx == ELASTIC_R_PINNED && !a.rdx,
		"units in it are given up: answer %lld, reason %llu, %llu taken back",
		(long long)a.status, (unsigned long long)a.rbx, (unsigned long long)a.rdx);
	ktap_eq(grant - kg_stat(vm, "memory/grant_mib"), 4, "the grant falls");
	ktap_eq(kg_stat(vm, "stats/unreclaimed_bytes") - unreclaimed, UNIT(2),
		"stats/unreclaimed_bytes");
	a = kg_request(bsp, 0, GRANTED, 1);
	ktap_ok(a.status == ELASTIC_OK && a.rdx == 1, "one of them is granted again");
	end = look(UNIT(GRANTED));
	ktap_ok(end == KG_OTHER, "touched, it is a device's: %s", kg_end_name(end));
	a = kg_discard(bsp, GRANTED, 1);
	ktap_ok(a.status == ELASTIC_OK && !a.rdx, "discarded, nothing is taken");
	a = kg_call(bsp, ELASTIC_OP_REPORT, vm->cookie, UNIT(GRANTED), sizeof(struct elastic_report));
	ktap_eq(a.status, ELASTIC_E_FAULT, "an argument there");
	kg_must_hello(bsp, 7, NULL, 0);
	ktap_eq(kg_stat(vm, "memory/ceiling_mib"), 2 * (RAM_UNITS - 1 + HIGH_UNITS),
		"after a HELLO without the slot it is in the ceiling still");
	high(high_memory(), 0);
	ktap_ok(look(UNIT(HIGH_FIRST)) == KG_EFAULT && look(UNIT(GRANTED + 1)) == KG_EFAULT,
		"there again: what was not granted, or was given up meanwhile, is refused");
	end = look(UNIT(GRANTED));
	ktap_ok(end == KG_ANSWER && bsp->mb->result == 0x77,
		"what is granted has its content, which nobody could take: %s, 0x%llx",
		kg_end_name(end), (unsigned long long)bsp->mb->result);
	kg_free(vm);
}

/* A slot that begins behind the first page of a unit: the unit is given up all the same */
static void begins_late(void)
{
	const u64 page = 4096;
	struct kg_answer a;
	u64 *word;

	ktap_diag("a slot without the first page of a unit");
	fresh_vm(KG_MEMFD);
	word = kg_hva(vm, UNIT(GRANTED) + page);
	touch(KG_CMD_WRITE, UNIT(GRANTED) + page, 0x77);
	no_high();
	kg_slot(vm, KG_SLOT_HIGH, UNIT(GRANTED) + page, UNIT(HIGH_UNITS / 2) - page,
		(char *)high_memory() + UNIT(HIGH_UNITS / 2) + page, 0);
	ktap_ok(look(UNIT(GRANTED) + page) == KG_ANSWER && bsp->mb->result == 0x77,
		"what is behind it is the guest's");
	a = kg_release_mem(bsp, GRANTED, 1);
	ktap_ok(a.status == ELASTIC_OK && look(UNIT(GRANTED) + page) == KG_EFAULT,
		"given up, it is not any more");
	ktap_ok(*word == 0, "and its content is gone: 0x%llx", (unsigned long long)*word);
	kg_free(vm);
}

/* Other memory at the same addresses: the old one is not the guest's any more */
static void replaced(void)
{
	u64 *old, *memory = mmap(NULL, UNIT(HIGH_UNITS), PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct kg_answer a;
	size_t word = UNIT(HIGH_UNITS / 2) / 8;

	ktap_diag("other memory in a slot's place");
	if (memory == MAP_FAILED)
		ktap_bail("mmap: %s", strerror(errno));
	fresh_vm(KG_MEMFD);
	old = high_memory();
	touch(KG_CMD_WRITE, UNIT(GRANTED), 0x77);
	no_high();
	high(memory, 0);
	memory[word] = 0x88;
	memory[0] = 0x99;
	ktap_ok(look(UNIT(GRANTED)) == KG_ANSWER && bsp->mb->result == 0x88,
		"what is granted is in the new memory");
	ktap_ok(look(UNIT(HIGH_FIRST)) == KG_EFAULT, "what is not granted is refused there, too");
	a = kg_release_mem(bsp, GRANTED, 1);
	ktap_ok(a.status == ELASTIC_OK && a.rdx == 1 && look(UNIT(GRANTED)) == KG_EFAULT,
		"given up, it is taken and refused");
	ktap_ok(memory[word] == 0 && old[word] == 0x77, "the old memory is left alone");
	kg_free(vm);
	munmap(memory, UNIT(HIGH_UNITS));
}

/* A slot on other addresses, as when a VMM moves a device's memory */
static void moved(void)
{
	const u64 there = KG_HIGH + UNIT(64);
	struct kg_answer a;

	ktap_diag("a slot that is moved");
	fresh_vm(KG_MEMFD);
	kg_slot(vm, KG_SLOT_HIGH, there, UNIT(HIGH_UNITS), high_memory(), 0);
	ktap_ok(look(there) == KG_ANSWER, "its new place is outside the ceiling, and not enforced");
	a = kg_request(bsp, 0, there >> ELASTIC_UNIT_SHIFT, 1);
	ktap_ok(a.status == ELASTIC_REFUSED && a.rbx >> 16 == ELASTIC_R_CEILING,
		"nor can it be asked for");
	a = kg_release_mem(bsp, there >> ELASTIC_UNIT_SHIFT, 1);
	ktap_ok(a.status == ELASTIC_E_INVAL && a.rbx == ELASTIC_R_CEILING, "or given up");
	kg_slot(vm, KG_SLOT_HIGH, KG_HIGH, UNIT(HIGH_UNITS), high_memory(), 0);
	ktap_ok(look(UNIT(HIGH_FIRST)) == KG_EFAULT && look(UNIT(GRANTED)) == KG_ANSWER,
		"moved back, it is as it was");
	kg_free(vm);
}

/* What the guest could read before it gave it up it cannot after */
static void read_only(enum kg_backend backend, const char *name)
{
	struct kg_answer a;
	enum kg_end before, end;

	ktap_diag("a slot that has become read-only, %s", name);
	fresh_vm(backend);
	touch(KG_CMD_WRITE, UNIT(GRANTED), 0x77);
	no_high();
	high(high_memory(), KVM_MEM_READONLY);
	before = look(UNIT(GRANTED));
	ktap_ok(before == KG_ANSWER && look(UNIT(HIGH_FIRST)) == KG_EFAULT,
		"%s: what is granted can be read, what is not cannot", name);
	a = kg_release_mem(bsp, GRANTED, 1);
	end = look(UNIT(GRANTED));
	ktap_ok(a.status == ELASTIC_OK && end == KG_EFAULT,
		"%s: given up, it cannot be read any more: answer %lld, %s", name,
		(long long)a.status, kg_end_name(end));
	ktap_ok(!a.rdx && *(u64 *)kg_hva(vm, UNIT(GRANTED)) == 0x77,
		"%s: the VMM keeps its content", name);
	kg_free(vm);
}

static bool is_dirty(u64 gpa)
{
	static u64 bits[UNIT(RAM_UNITS) / 4096 / 64];
	struct kvm_dirty_log log = { .slot = KG_SLOT_RAM, .dirty_bitmap = bits };
	u64 page = (gpa - KG_RAM) / 4096;

	memset(bits, 0, sizeof(bits));
	if (ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log))
		ktap_bail("KVM_GET_DIRTY_LOG: %s", strerror(errno));
	return bits[page / 64] >> page % 64 & 1;
}

static void ram(u32 flags)
{
	kg_slot(vm, KG_SLOT_RAM, KG_RAM, UNIT(RAM_UNITS) - KG_RAM, vm->ram + KG_RAM, flags);
}

static void dirty_log(enum kg_backend backend, const char *name)
{
	struct kg_answer a;
	unsigned int round;

	ktap_diag("dirty pages are logged, %s", name);
	fresh_vm(backend);
	if (backend == KG_ANON)
		madvise(vm->ram, vm->ram_size, MADV_HUGEPAGE);
	for (round = 0; round < 2; round++) {
		const char *when = round ? "again" : "at first";

		touch(KG_CMD_WRITE, UNIT(8), 1);
		touch(KG_CMD_WRITE, UNIT(FIRST - 1), 1);
		ram(KVM_MEM_LOG_DIRTY_PAGES);
		is_dirty(UNIT(8));
		ktap_ok(touch(KG_CMD_WRITE, UNIT(8) + 0x3000, 2) == KG_ANSWER &&
			is_dirty(UNIT(8) + 0x3000),
			"%s, %s: what is granted can be written, and is logged", name, when);
		ktap_ok(look(UNIT(FIRST)) == KG_EFAULT &&
			touch(KG_CMD_WRITE, UNIT(FIRST) + 0x1000, 3) == KG_EFAULT &&
			touch(KG_CMD_WRITE, UNIT(FIRST) - 4, 3) == KG_EFAULT,
			"%s, %s: what is not granted is refused", name, when);
		/* Written, read since the log was looked at, and not at all */
		touch(KG_CMD_WRITE, UNIT(8) + 0x4000, 4);
		a = kg_release_mem(bsp, 8, 1);
		ktap_ok(a.status == ELASTIC_OK && a.rdx == 1 &&
			look(UNIT(8) + 0x4000) == KG_EFAULT &&
			touch(KG_CMD_WRITE, UNIT(8) + 0x3000, 5) == KG_EFAULT,
			"%s, %s: given up, what was written is refused", name, when);
		ram(0);
		ktap_ok(touch(KG_CMD_WRITE, UNIT(7), 6) == KG_ANSWER &&
			touch(KG_CMD_WRITE, UNIT(FIRST - 1), 6) == KG_ANSWER &&
			look(UNIT(8)) == KG_EFAULT && look(UNIT(FIRST)) == KG_EFAULT,
			"%s, %s: not logged any more, it still is", name, when);
		a = kg_request(bsp, 0, 8, 1);
		ktap_ok(a.status == ELASTIC_OK && look(UNIT(8) + 0x4000) == KG_ANSWER &&
			!bsp->mb->result, "%s, %s: granted again, it reads as zero", name, when);
	}
	kg_free(vm);
}

static void smm(void)
{
	struct kg_answer a;
	enum kg_end end;
	u32 value = 0x5a5a;
	u64 unit;

	ktap_diag("system management mode, with an address space of its own");
	fresh_vm(KG_MEMFD);
	if (!kg_smm_setup(vm)) {
		ktap_skip("this KVM has no SMM", "system management mode");
		kg_free(vm);
		return;
	}
	end = kg_smm_do(bsp, true, (u32)UNIT(8), &value);
	ktap_ok(end == KG_ANSWER && *(u32 *)kg_hva(vm, UNIT(8)) == 0x5a5a,
		"what is granted can be written: %s", kg_end_name(end));
	end = kg_do(bsp, KG_CMD_READ, UNIT(8), 0, 0);
	ktap_ok(end == KG_ANSWER && bsp->mb->result == 0x5a5a, "and is read outside: %s",
		kg_end_name(end));
	/* Mapped in both, given up in one */
	a = kg_release_mem(bsp, 8, 1);
	for (unit = 8; unit <= FIRST; unit += FIRST - 8) {
		end = kg_smm_do(bsp, unit == 8, (u32)UNIT(unit), &value);
		ktap_ok(a.status == ELASTIC_OK && end == KG_EFAULT,
			"%s is refused: %s", unit == 8 ? "what was given up" : "what is not granted",
			kg_end_name(end));
		/* It is in SMM still, at that instruction */
		kg_reset(vm);
		kg_must_hello(bsp, 7, absent, 2);
		if (unit == 8)
			a = kg_release_mem(bsp, 8, 1);
	}
	ktap_ok(lseek(vm->ram_fd, (off_t)UNIT(FIRST), SEEK_DATA) >= (off_t)UNIT(FIRST + NR) ||
		lseek(vm->ram_fd, (off_t)UNIT(FIRST), SEEK_DATA) < 0,
		"nothing of it is populated");
	kg_free(vm);
}

/* All of it at once, while vCPUs ask, give up and touch */

static volatile bool race_over;
static u64 race_calls, race_faults;

static void fill_list(struct kg_vcpu *vcpu, unsigned int turn)
{
	struct kg_list_call *list = kg_hva(vm, KG_LISTS + vcpu->index * 0x1000ULL);
	struct elastic_range *r = kg_hva(vm, KG_ARGS + vcpu->index * 0x4000ULL);
	unsigned int i, unit;

	for (i = 0; i < KG_LIST_MAX; i++) {
		memset((void *)&list[i], 0, sizeof(list[i]));
		unit = turn + i / 4 * 5 + vcpu->index;
		unit = unit & 1 ? 10 + unit / 2 % 12 : HIGH_FIRST + unit / 2 % HIGH_UNITS;
		switch (i % 4) {
		case 0:
			list[i].rbx = ELASTIC_OP_REQUEST;
			list[i].rcx = vm->cookie;
			list[i].rsi = ELASTIC_RANGE(unit, 2);
			break;
		case 1:
		case 2:
			/* Of RAM that is always there; else it would be a device's */
			list[i].rbx = ~0ULL;
			list[i].rdx = UNIT(10 + (turn + i) % 12) + 0x1000 * i;
			break;
		case 3:
			r[i] = (struct elastic_range) { unit, 1 };
			list[i].rbx = ELASTIC_OP_RELEASE_MEM;
			list[i].rcx = vm->cookie;
			list[i].rdx = KG_ARGS + vcpu->index * 0x4000ULL + i * sizeof(*r);
			list[i].rsi = 1;
			break;
		}
	}
}

/* Whether all that was told is within what may be */
static bool run_list(struct kg_vcpu *vcpu)
{
	u64 base = KG_LISTS + vcpu->index * 0x1000ULL;
	struct kg_list_call *list = kg_hva(vm, base);
	unsigned int i = 0;

	vcpu->mb->counter = 0;
	while (i < KG_LIST_MAX) {
		enum kg_end end = kg_do(vcpu, KG_CMD_CALLS, base + i * KG_LIST_SIZE,
					KG_LIST_MAX - i, 0);

		i = (unsigned int)vcpu->mb->counter;
		if (end == KG_ANSWER)
			break;
		kg_abandon(vcpu);
		if (end != KG_EFAULT || i == KG_LIST_MAX || list[i].rbx != ~0ULL) {
			ktap_diag("vCPU %u, call %u: %s, errno %d", vcpu->id, i, kg_end_name(end),
				  vcpu->error);
			return false;
		}
		__atomic_add_fetch(&race_faults, 1, __ATOMIC_RELAXED);
		vcpu->mb->counter = ++i;
	}
	for (i = 0; i < KG_LIST_MAX; i++) {
		s64 status = (s64)list[i].out[0];

		if (list[i].rbx != ~0ULL && status < 0 &&
		    (status != ELASTIC_E_INVAL || list[i].out[1] != ELASTIC_R_NOT_GRANTED)) {
			ktap_diag("vCPU %u, call %u: status %lld", vcpu->id, i, (long long)status);
			return false;
		}
	}
	__atomic_add_fetch(&race_calls, KG_LIST_MAX / 2, __ATOMIC_RELAXED);
	return true;
}

static void *racer(void *arg)
{
	struct kg_vcpu *vcpu = arg;
	unsigned int turn = 0;

	while (!race_over) {
		fill_list(vcpu, turn += 7);
		if (!run_list(vcpu))
			return vcpu;
	}
	return NULL;
}

static u64 count_granted(void)
{
	u64 u, n = 0;

	for (u = 1; u < HIGH_FIRST + HIGH_UNITS; u++) {
		struct kg_answer a;

		if (u == RAM_UNITS)
			u = HIGH_FIRST;
		a = kg_call(bsp, KG_OP(ELASTIC_OP_REQUEST, 0, 0, ELASTIC_F_WHOLE), vm->cookie,
			    1ULL << 63, ELASTIC_RANGE(u, 1));
		n += a.rdx;
		if ((look(UNIT(u)) == KG_ANSWER) != !!a.rdx)
			ktap_diag("unit 0x%llx: granted %llu, and touched otherwise",
				  (unsigned long long)u, (unsigned long long)a.rdx);
	}
	return n;
}

static void race(void)
{
	unsigned int i, changes = 0, bad = 0;
	pthread_t threads[3];
	u64 granted, end_ms;

	ktap_diag("slots change while vCPUs ask, give up and touch");
	fresh_vm(KG_MEMFD);
	for (i = 1; i < 3; i++) {
		kg_go(&vm->vcpu[i]);
		kg_start_ap(&vm->vcpu[i]);
		if (kg_wait(&vm->vcpu[i], SOON_MS) != KG_ANSWER)
			ktap_bail("vCPU %u does not start", i);
	}
	for (i = 0; i < 3; i++)
		if (pthread_create(&threads[i], NULL, racer, &vm->vcpu[i]))
			ktap_bail("cannot create a thread");
	for (end_ms = kg_now_ms() + RACE_MS; kg_now_ms() < end_ms; changes++) {
		ram(changes & 1 ? 0 : KVM_MEM_LOG_DIRTY_PAGES);
		no_high();
		high(high_memory(), changes & 2 ? KVM_MEM_LOG_DIRTY_PAGES : 0);
	}
	race_over = true;
	for (i = 0; i < 3; i++) {
		void *failed;

		pthread_join(threads[i], &failed);
		bad += !!failed;
	}
	ktap_ok(!bad && changes > 3, "%u times changed, during %llu calls and %llu refused writes",
		changes, (unsigned long long)race_calls, (unsigned long long)race_faults);
	granted = count_granted();
	ktap_eq(kg_stat(vm, "memory/grant_mib"), (long long)(2 * granted),
		"memory/grant_mib is what the guest is told and finds granted");
	kg_free(vm);
}

int main(void)
{
	host_module_need();
	deleted();
	begins_late();
	replaced();
	moved();
	read_only(KG_MEMFD, "memfd");
	read_only(KG_ANON, "anonymous");
	dirty_log(KG_MEMFD, "memfd");
	dirty_log(KG_ANON, "anonymous");
	smm();
	race();
	return ktap_finish();
}
