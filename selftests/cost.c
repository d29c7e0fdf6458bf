// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the host module costs a VM that has nothing to do with it, and one that it
 * manages and that wants nothing. One VM does the same things in turn
 *
 *	absent		with the module not loaded
 *	unmanaged	with the module loaded
 *	managed		after its HELLO
 *
 * and so on, ROUNDS times; each batch is timed by the guest's own TSC. What else a machine
 * does only ever adds time: of many short batches in a row the fastest counts.
 *
 *	cost ROUNDS
 *
 * prints "sample ROUND SIDE OPERATION NS", nanoseconds of one operation:
 *
 *	hypercall	KVM_HC_VAPIC_POLL_IRQ, which does nothing
 *	page-fault	first touch of a page of 4 KiB that the host does not have
 *	interrupt	an IPI to itself: sent, taken, acknowledged
 *
 * Needs $ELASTIC_HOST_KO and a host on which the module is not loaded.
 */
#define _GNU_SOURCE
#include <linux/kvm_para.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#include <x86intrin.h>

#include "ktap.h"
#include "kvm_guest.h"

#define BATCH_NS	4000000ULL
#define BATCHES		40		/* per operation, side and round */
#define FIRST_PAGE	(16ULL << 20)
#define MAX_PAGES	4096ULL
#define MAX_COUNT	1000000ULL

static struct kg_vm *vm;
static struct kg_vcpu *bsp;
static double ticks_per_ns;

static u64 calls(u64 count)
{
	return kg_must(bsp, KG_CMD_TIMED_CALLS, KVM_HC_VAPIC_POLL_IRQ, count, 0);
}

static u64 faults(u64 count)
{
	if (madvise(kg_hva(vm, FIRST_PAGE), count * 4096, MADV_DONTNEED))
		ktap_bail("madvise: %s", strerror(errno));
	return kg_must(bsp, KG_CMD_TOUCH, FIRST_PAGE, count, 0);
}

static u64 interrupts(u64 count)
{
	u64 before = bsp->mb->ipis, ticks;

	ticks = kg_must(bsp, KG_CMD_IPIS, 0, count, 0);
	if (bsp->mb->ipis - before != count)
		ktap_bail("%llu of %llu interrupts came", (unsigned long long)(bsp->mb->ipis - before),
			  (unsigned long long)count);
	return ticks;
}

static struct operation {
	const char *name;
	u64 (*run)(u64 count);	/* returns ticks */
	u64 most;
	u64 count;		/* of a batch */
	u64 best;		/* ticks of one, in this round on this side */
} operations[] = {
	{ "hypercall", calls, MAX_COUNT, 200, 0 },
	{ "page-fault", faults, MAX_PAGES, 200, 0 },
	{ "interrupt", interrupts, MAX_COUNT, 200, 0 },
};

#define NR_OPERATIONS	(sizeof(operations) / sizeof(operations[0]))

static u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000 + (u64)ts.tv_nsec;
}

static void calibrate_tsc(void)
{
	struct timespec nap = { .tv_nsec = 200000000 };
	u64 ns = now_ns(), ticks = __rdtsc();

	nanosleep(&nap, NULL);
	ticks_per_ns = (double)(__rdtsc() - ticks) / (double)(now_ns() - ns);
}

/* So many that a batch takes about BATCH_NS; the first one is for the caches */
static void calibrate(struct operation *op)
{
	double ns;

	op->run(op->count);
	ns = (double)op->run(op->count) / ticks_per_ns / (double)op->count;
	op->count = (u64)((double)BATCH_NS / ns);
	if (op->count > op->most)
		op->count = op->most;
	if (!op->count)
		op->count = 1;
	printf("batch %s %llu\n", op->name, (unsigned long long)op->count);
}

static void measure(unsigned int round, const char *side)
{
	unsigned int i, k;
	u64 ticks;

	for (i = 0; i < NR_OPERATIONS; i++)
		operations[i].best = ~0ULL;
	for (k = 0; k < BATCHES; k++)
		for (i = 0; i < NR_OPERATIONS; i++) {
			ticks = operations[i].run(operations[i].count);
			if (ticks < operations[i].best)
				operations[i].best = ticks;
		}
	for (i = 0; i < NR_OPERATIONS; i++)
		printf("sample %u %s %s %.2f\n", round, side, operations[i].name,
		       (double)operations[i].best / ticks_per_ns / (double)operations[i].count);
	fflush(stdout);
}

/* All threads on one CPU: no time is lost or won by moving. */
static void stay(void)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(sched_getcpu(), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		ktap_bail("sched_setaffinity: %s", strerror(errno));
}

static void must_be_zero(int ret, const char *what)
{
	if (ret)
		ktap_bail("%s: %s", what, strerror(-ret));
}

int main(int argc, char **argv)
{
	struct kg_config cfg = { .nr_vcpus = 1, .backend = KG_ANON, .ram = 64ULL << 20 };
	unsigned int rounds = argc == 2 ? (unsigned int)atoi(argv[1]) : 0;
	unsigned int round, i;

	if (!rounds) {
		fputs("usage: cost ROUNDS\n", stderr);
		return 2;
	}
	if (host_module_loaded())
		ktap_bail("elastic_host is loaded");
	stay();
	calibrate_tsc();
	vm = kg_new(&cfg);
	bsp = &vm->vcpu[0];
	/* A page is a page, on every host. */
	if (madvise(vm->ram, vm->ram_size, MADV_NOHUGEPAGE))
		ktap_bail("madvise: %s", strerror(errno));
	kg_must(bsp, KG_CMD_WRMSR, 0x80f, 0x1ff, 0);	/* its APIC is on */
	for (i = 0; i < NR_OPERATIONS; i++)
		calibrate(&operations[i]);
	for (round = 0; round < rounds; round++) {
		measure(round, "absent");
		must_be_zero(host_module_load(), "loading elastic_host");
		measure(round, "unmanaged");
		kg_must_hello(bsp, 1, NULL, 0);
		measure(round, "managed");
		must_be_zero(host_module_unload(), "unloading elastic_host");
	}
	kg_free(vm);
	return 0;
}
