// SPDX-License-Identifier: GPL-2.0-only
/*
 * A unit outside the grant has no page frames: whoever touches it, in whatever
 * way, is stopped, alone, and can go on when the unit is granted.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ktap.h"
#include "kvm_guest.h"

#define RAM_UNITS	64
#define HIGH_UNITS	16
#define HIGH_FIRST	(KG_HIGH >> ELASTIC_UNIT_SHIFT)
#define UNIT(n)		((u64)(n) << ELASTIC_UNIT_SHIFT)
#define FIRST		16	/* not granted: [FIRST, FIRST + NR) */
#define NR		8
#define SOON_MS		30000

static const struct elastic_range absent[] = {
	{ FIRST, NR }, { HIGH_FIRST, HIGH_UNITS / 2 },
};

static struct kg_vm *vm;
static struct kg_vcpu *bsp;

static struct kg_vm *fresh_vm(enum kg_backend backend)
{
	struct kg_config cfg = {
		.nr_vcpus = 3, .backend = backend, .ram = UNIT(RAM_UNITS),
		.high = UNIT(HIGH_UNITS),
	};

	vm = kg_new(&cfg);
	bsp = &vm->vcpu[0];
	return vm;
}

static void start(struct kg_vcpu *ap)
{
	kg_go(ap);
	kg_start_ap(ap);
	if (kg_wait(ap, SOON_MS) != KG_ANSWER)
		ktap_bail("vCPU %u does not start", ap->id);
}

static enum kg_end touch(struct kg_vcpu *vcpu, u64 cmd, u64 address)
{
	enum kg_end end = kg_do(vcpu, cmd, address, 0x5555, 0);

	if (end != KG_ANSWER)
		kg_abandon(vcpu);
	return end;
}

/* Is there a page in the memory file at this guest address? */
static bool has_page(u64 gpa)
{
	off_t offset = (off_t)((uint8_t *)kg_hva(vm, gpa) - vm->ram);
	off_t data = lseek(vm->ram_fd, offset, SEEK_DATA);

	return data >= offset && data < offset + 4096;
}

static const char *command_name(u64 cmd)
{
	return cmd == KG_CMD_READ ? "read" : cmd == KG_CMD_WRITE ? "write" : "execute";
}

static const u64 commands[] = { KG_CMD_READ, KG_CMD_WRITE, KG_CMD_EXEC };

static void firmware(void)
{
	unsigned int i, k, good = 0;

	for (i = FIRST; i < FIRST + NR; i++) {
		/* A return instruction at the place that is executed */
		*(uint8_t *)kg_hva(vm, UNIT(i) + 64) = 0xc3;
		for (k = 0; k < 3; k++)
			good += touch(bsp, commands[k], UNIT(i) + (k == 2 ? 64 : 0)) == KG_ANSWER;
		good += touch(bsp, KG_CMD_WRITE, UNIT(HIGH_FIRST + i - FIRST)) == KG_ANSWER;
	}
	ktap_eq(good, 4 * NR, "before HELLO all of RAM can be used");
}

static void refused(u64 via, const char *pages)
{
	unsigned int k;
	s64 gated;

	for (k = 0; k < 3; k++) {
		u64 address = UNIT(FIRST + k) + 0x1340 + via;
		enum kg_end first, second;
		bool page;

		gated = kg_stat(vm, "stats/gated");
		first = kg_do(bsp, commands[k], address, 0x5555, 0);
		/* Once more, as a VMM does that does not know better */
		second = kg_run(bsp, SOON_MS);
		kg_abandon(bsp);
		page = has_page(UNIT(FIRST + k) + 0x1340);
		ktap_ok(first == KG_EFAULT && second == KG_EFAULT && !page,
			"%s through %s pages: %s, and again: %s%s", command_name(commands[k]),
			pages, kg_end_name(first), kg_end_name(second),
			page ? ", and the host has populated it" : "");
		ktap_ok(kg_stat(vm, "stats/gated") >= gated + 2, "stats/gated: %lld more",
			(long long)(kg_stat(vm, "stats/gated") - gated));
	}
}

static void above_4g(void)
{
	enum kg_end end = touch(bsp, KG_CMD_READ, KG_HIGH + 0x1000);

	ktap_ok(end == KG_EFAULT, "above 4 GiB, not granted: %s", kg_end_name(end));
	end = touch(bsp, KG_CMD_WRITE, KG_HIGH + UNIT(HIGH_UNITS / 2));
	ktap_ok(end == KG_ANSWER, "above 4 GiB, granted: %s", kg_end_name(end));
}

/*
 * Next door: the frames beside a touched one, which KVM maps in advance, and
 * accesses across the edge.
 */
static void neighbours(void)
{
	enum kg_end low, high, end;

	low = touch(bsp, KG_CMD_WRITE, UNIT(FIRST) - 8);
	high = touch(bsp, KG_CMD_WRITE, UNIT(FIRST + NR));
	ktap_ok(low == KG_ANSWER && high == KG_ANSWER, "the words beside can be written: %s, %s",
		kg_end_name(low), kg_end_name(high));
	low = touch(bsp, KG_CMD_READ, UNIT(FIRST));
	high = touch(bsp, KG_CMD_READ, UNIT(FIRST + NR) - 8);
	ktap_ok(low == KG_EFAULT && high == KG_EFAULT,
		"then the first and the last cannot: %s, %s", kg_end_name(low), kg_end_name(high));
	end = touch(bsp, KG_CMD_READ, UNIT(FIRST) - 4);
	ktap_ok(end == KG_EFAULT, "a word across the edge: %s", kg_end_name(end));
	end = touch(bsp, KG_CMD_WRITE, UNIT(FIRST + NR) - 4);
	ktap_ok(end == KG_EFAULT, "a word across the other edge: %s", kg_end_name(end));
	/* Nothing of it is in the host's memory */
	ktap_ok(!has_page(UNIT(FIRST)) && !has_page(UNIT(FIRST + NR) - 4096),
		"the host has populated nothing");
}

/* What walks memory by itself: the page tables of the guest */
static void page_tables(void)
{
	struct kvm_sregs sregs, saved;
	enum kg_end end;

	if (ioctl(bsp->fd, KVM_GET_SREGS, &saved))
		ktap_bail("KVM_GET_SREGS: %s", strerror(errno));
	sregs = saved;
	sregs.cr3 = UNIT(FIRST + 1);
	if (ioctl(bsp->fd, KVM_SET_SREGS, &sregs))
		ktap_bail("KVM_SET_SREGS: %s", strerror(errno));
	kg_cmd(bsp, KG_CMD_NOP, 0, 0, 0);
	end = kg_run(bsp, SOON_MS);
	ktap_ok(end == KG_EFAULT && !has_page(UNIT(FIRST + 1)),
		"page tables in a unit that is not granted: %s", kg_end_name(end));
	if (ioctl(bsp->fd, KVM_SET_SREGS, &saved))
		ktap_bail("KVM_SET_SREGS: %s", strerror(errno));
	kg_abandon(bsp);
}

static void others_run_on(void)
{
	struct kg_config cfg = { .ram = UNIT(RAM_UNITS) };
	struct kg_vcpu *ap = &vm->vcpu[1];
	struct kg_vm *other = kg_new(&cfg);
	enum kg_end end;
	u64 counter;

	start(ap);
	kg_cmd(ap, KG_CMD_SPIN, 0, 0, 0);
	kg_go(ap);
	end = touch(bsp, KG_CMD_READ, UNIT(FIRST));
	counter = ap->mb->counter;
	ktap_ok(end == KG_EFAULT && kg_until(ap->mb->counter > counter + 1000, SOON_MS),
		"one vCPU is stopped, another of the same VM runs on");
	end = touch(bsp, KG_CMD_WRITE, UNIT(8));
	ktap_ok(end == KG_ANSWER, "and the stopped one has the rest of memory: %s",
		kg_end_name(end));
	ktap_ok(touch(&other->vcpu[0], KG_CMD_WRITE, UNIT(FIRST)) == KG_ANSWER,
		"another VM has the unit of the same number");
	kg_must_hello(&other->vcpu[0], 1, &(struct elastic_range) { 40, 1 }, 1);
	ktap_ok(touch(&other->vcpu[0], KG_CMD_WRITE, UNIT(FIRST)) == KG_ANSWER &&
		touch(&other->vcpu[0], KG_CMD_WRITE, UNIT(40)) == KG_EFAULT &&
		touch(bsp, KG_CMD_WRITE, UNIT(40)) == KG_ANSWER,
		"managed, each has its own grant");
	kg_free(other);
	ap->mb->stop = 1;
	kg_wait(ap, SOON_MS);
}

static void granted(void)
{
	struct kg_vcpu *ap = &vm->vcpu[1];
	struct kg_answer a;
	enum kg_end end;

	/* It waits at its instruction until another vCPU asks */
	end = kg_do(bsp, KG_CMD_WRITE, UNIT(FIRST + 2) + 0x2000, 0x77, 0);
	a = kg_request(ap, 0, FIRST + 2, 1);
	ktap_ok(end == KG_EFAULT && a.status == ELASTIC_OK, "the unit of a stopped vCPU is granted");
	end = kg_run(bsp, SOON_MS);
	ktap_ok(end == KG_ANSWER && *(u64 *)kg_hva(vm, UNIT(FIRST + 2) + 0x2000) == 0x77,
		"run again, it goes on: %s", kg_end_name(end));
	ktap_ok(touch(bsp, KG_CMD_READ, UNIT(FIRST + 1)) == KG_EFAULT &&
		touch(bsp, KG_CMD_READ, UNIT(FIRST + 3)) == KG_EFAULT,
		"the units beside it are still refused");
	a = kg_release_mem(ap, FIRST + 2, 1);
	end = touch(bsp, KG_CMD_READ, UNIT(FIRST + 2) + 0x2000);
	ktap_ok(a.status == ELASTIC_OK && end == KG_EFAULT,
		"given back, what was mapped is refused: %s", kg_end_name(end));
	end = touch(ap, KG_CMD_READ, UNIT(FIRST + 2) + 0x2000);
	ktap_ok(end == KG_EFAULT, "on the other vCPU, too: %s", kg_end_name(end));
}

/* A hypercall's argument is read by the host: it must not populate anything */
static void arguments(void)
{
	static const struct { const char *what; u64 op, rsi; } calls[] = {
		{ "REPORT", ELASTIC_OP_REPORT, sizeof(struct elastic_report) },
		{ "RELEASE_MEM", ELASTIC_OP_RELEASE_MEM, 1 },
		{ "HELLO", ELASTIC_OP_HELLO, sizeof(struct elastic_hello) + 8 },
	};
	unsigned int i;

	for (i = 0; i < 3; i++) {
		u64 gpa = UNIT(FIRST + 4) + 0x1000 * i;
		struct kg_answer a = kg_call(bsp, calls[i].op,
					     calls[i].op == ELASTIC_OP_HELLO ? 0 : vm->cookie,
					     gpa, calls[i].rsi);

		ktap_ok(a.status == ELASTIC_E_FAULT && !has_page(gpa),
			"%s with its argument there: %lld%s", calls[i].what, (long long)a.status,
			has_page(gpa) ? ", and the host has populated it" : "");
	}
}

/* Memory that the host does not take is refused all the same */
static void not_taken(const char *what, u64 unit, bool lock)
{
	void *hva = kg_hva(vm, UNIT(unit));
	struct kg_answer a;
	enum kg_end end;

	if (lock && mlock(hva, ELASTIC_UNIT_SIZE))
		ktap_bail("mlock: %s", strerror(errno));
	if (touch(bsp, KG_CMD_WRITE, UNIT(unit)) != KG_ANSWER)
		ktap_bail("unit %llu is not granted", (unsigned long long)unit);
	a = kg_release_mem(bsp, unit, 1);
	end = touch(bsp, KG_CMD_READ, UNIT(unit));
	ktap_ok(a.status == ELASTIC_OK && a.rbx == ELASTIC_R_PINNED && end == KG_EFAULT,
		"%s, given up: answer %lld, reason %llu; touched: %s", what, (long long)a.status,
		(unsigned long long)a.rbx, kg_end_name(end));
	if (lock)
		munlock(hva, ELASTIC_UNIT_SIZE);
}

static void states(void)
{
	enum kg_end end;

	kg_bye(bsp);
	end = touch(bsp, KG_CMD_READ, UNIT(FIRST));
	ktap_ok(end == KG_EFAULT, "after BYE the gate stays: %s", kg_end_name(end));
	kg_must_hello(bsp, 1, NULL, 0);
	end = touch(bsp, KG_CMD_READ, UNIT(FIRST));
	ktap_ok(end == KG_EFAULT, "a HELLO that claims the unit does not open it: %s",
		kg_end_name(end));
	kg_reset(vm);
	end = touch(bsp, KG_CMD_WRITE, UNIT(FIRST));
	ktap_ok(end == KG_ANSWER, "after a reset all of RAM can be used: %s", kg_end_name(end));
	kg_must_hello(bsp, 1, absent, 2);
	end = touch(bsp, KG_CMD_READ, UNIT(FIRST));
	ktap_ok(end == KG_EFAULT, "and HELLO closes it again, mapped or not: %s",
		kg_end_name(end));
}

/* With transparent huge pages behind it KVM maps 2 MiB at once */
static void huge(void)
{
	enum kg_end end;
	unsigned int i, good = 0;

	fresh_vm(KG_ANON);
	if (madvise(vm->ram, vm->ram_size, MADV_HUGEPAGE))
		ktap_diag("no transparent huge pages: %s", strerror(errno));
	memset(vm->ram + UNIT(8), 1, UNIT(32));
	for (i = 8; i < 40; i++)
		good += touch(bsp, KG_CMD_WRITE, UNIT(i)) == KG_ANSWER;
	kg_must_hello(bsp, 1, absent, 2);
	end = touch(bsp, KG_CMD_READ, UNIT(FIRST));
	ktap_ok(good == 32 && end == KG_EFAULT, "huge pages, mapped before HELLO: %s",
		kg_end_name(end));
	ktap_ok(touch(bsp, KG_CMD_WRITE, UNIT(FIRST - 1)) == KG_ANSWER &&
		touch(bsp, KG_CMD_WRITE, UNIT(FIRST + NR)) == KG_ANSWER &&
		touch(bsp, KG_CMD_READ, UNIT(FIRST)) == KG_EFAULT &&
		touch(bsp, KG_CMD_READ, UNIT(FIRST + NR) - 8) == KG_EFAULT,
		"huge pages: a granted unit's page does not reach into the next");
	kg_free(vm);
}

/* One slot from 0, as machines without the PC's holes have: unit 0 counts, too */
static void flat(void)
{
	struct kg_config cfg = { .ram = UNIT(RAM_UNITS), .flat = true };
	enum kg_end end;

	vm = kg_new(&cfg);
	bsp = &vm->vcpu[0];
	kg_must_hello(bsp, 1, &(struct elastic_range) { 63, 1 }, 1);
	ktap_eq(kg_stat(vm, "memory/ceiling_mib"), 2 * RAM_UNITS, "RAM from 0 on: the ceiling");
	end = touch(bsp, KG_CMD_READ, UNIT(63));
	ktap_ok(end == KG_EFAULT, "RAM from 0 on: the last unit: %s", kg_end_name(end));
	kg_free(vm);
}

/* RAM from 1 TiB on, where QEMU puts what does not fit below on AMD */
static void far_away(void)
{
	struct kg_config cfg = { .ram = UNIT(RAM_UNITS), .far = UNIT(100) };
	const u64 first = KG_FAR >> ELASTIC_UNIT_SHIFT;
	struct kg_answer a;

	/* KVM takes no slot beyond what the processor can address */
	if (kg_phys_bits() <= 40) {
		ktap_skip("the host's physical addresses end at 1 TiB", "RAM from 1 TiB on");
		return;
	}
	vm = kg_new(&cfg);
	bsp = &vm->vcpu[0];
	kg_must_hello(bsp, 1, &(struct elastic_range) { first + 10, 90 }, 1);
	ktap_eq(kg_stat(vm, "memory/ceiling_mib"), 2 * (RAM_UNITS - 1 + 100),
		"RAM from 1 TiB on: the ceiling");
	ktap_eq(kg_stat(vm, "memory/grant_mib"), 2 * (RAM_UNITS - 1 + 10),
		"RAM from 1 TiB on: the grant");
	a = kg_request(bsp, 0, first + 8, 100);
	ktap_ok(a.status == ELASTIC_PARTIAL && a.rdx == 92 && a.rbx >> 16 == ELASTIC_R_CEILING,
		"RAM from 1 TiB on: units are granted up to its end");
	kg_free(vm);
}

int main(void)
{
	host_module_need();
	fresh_vm(KG_MEMFD);
	firmware();
	kg_must_hello(bsp, 7, absent, 2);
	refused(KG_VIA_2M, "2 MiB");
	refused(KG_VIA_4K, "4 KiB");
	if (vm->has_1g)
		refused(KG_VIA_1G, "1 GiB");
	else
		ktap_skip("the processor has none", "1 GiB pages");
	above_4g();
	neighbours();
	page_tables();
	others_run_on();
	granted();
	arguments();
	not_taken("a unit locked by the VMM", 44, true);
	states();
	kg_free(vm);

	fresh_vm(KG_PRIVATE_FILE);
	kg_must_hello(bsp, 7, NULL, 0);
	not_taken("memory of an unknown kind", 44, false);
	kg_free(vm);

	huge();
	flat();
	far_away();
	return ktap_finish();
}
