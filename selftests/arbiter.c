// SPDX-License-Identifier: GPL-2.0-only
/*
 * Several VMs and one host that has not enough for all: who gets what, who must
 * come down, what becomes of a VM that does not, of one that lies, and of one
 * that comes when there is no minimum left; where vCPUs run, and which had best go.
 *
 * The numbers follow from the policy (selftests/policy_host.c has it table by table);
 * here it is about what comes of it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ktap.h"
#include "kvm_guest.h"

#define SOON_MS		30000
#define DEADLINE_MS	1000
#define SLACK_MS	4000	/* two looks, the timer, and a slow emulator */
#define MEASURE_MS	600	/* longer than the host measures */
#define UNITS		512	/* of a VM: 1 GiB */
#define BOOT		63	/* of them granted at HELLO; unit 0 is not in the ceiling */

static const struct elastic_range absent = { BOOT + 1, UNITS - BOOT - 1 };

/* Files that are written, and what was in them */
static struct { const char *file; s64 was; } tunables[] = {
	{ "cpu/pool", 0 }, { "memory/pool_mib", 0 }, { "cpu/deadline_ms", 0 },
	{ "memory/deadline_ms", 0 }, { "cpu/default_min", 0 }, { "memory/default_min_mib", 0 },
	{ "advice_ms", 0 }, { "memory/growth", 0 }, { "memory/low_mib", 0 }, { "cpu/growth", 0 },
	{ "cpu/placement", 0 },
};

#define NR(a) (sizeof(a) / sizeof(*(a)))

static pid_t main_pid;

static void host(const char *file, s64 value)
{
	char text[32];
	int ret;

	snprintf(text, sizeof(text), "%lld", (long long)value);
	ret = host_write(file, text);
	if (ret)
		ktap_bail("writing %s to %s: %s", text, file, strerror(-ret));
}

static void restore(void)
{
	char text[32];
	size_t i;

	if (getpid() != main_pid)
		return;
	for (i = 0; i < NR(tunables); i++) {
		snprintf(text, sizeof(text), "%lld", (long long)tunables[i].was);
		host_write(tunables[i].file, text);
	}
}

static void remember(void)
{
	size_t i;

	main_pid = getpid();
	for (i = 0; i < NR(tunables); i++)
		tunables[i].was = host_stat(tunables[i].file);
	atexit(restore);
}

static void limit(struct kg_vm *vm, const char *file, s64 value)
{
	char text[32];
	int ret;

	snprintf(text, sizeof(text), "%lld", (long long)value);
	ret = kg_write(vm, file, text);
	if (ret)
		ktap_bail("writing %s to %s: %s", text, file, strerror(-ret));
}

static struct kg_vm *new_vm(void)
{
	struct kg_config cfg = { .nr_vcpus = 4, .ram = (u64)UNITS << ELASTIC_UNIT_SHIFT };

	return kg_new(&cfg);
}

/* One vCPU and BOOT units */
static struct kg_vm *managed(void)
{
	struct kg_vm *vm = new_vm();

	kg_must_hello(&vm->vcpu[0], 1, &absent, 1);
	return vm;
}

static bool text_is(struct kg_vm *vm, const char *file, const char *want)
{
	char text[256];

	kg_file(vm, file, text, sizeof(text));
	return !strcmp(text, want);
}

static void file_is(struct kg_vm *vm, const char *file, const char *want, const char *what)
{
	char text[256];

	kg_file(vm, file, text, sizeof(text));
	if (strcmp(text, want))
		ktap_diag("want %s", want);
	ktap_ok(!strcmp(text, want), "%s: %s: %s", what, file, text);
}

static struct kg_answer report(struct kg_vm *vm, const struct elastic_report *r)
{
	memcpy(kg_hva(vm, KG_ARGS), r, sizeof(*r));
	return kg_call(&vm->vcpu[0], ELASTIC_OP_REPORT, vm->cookie, KG_ARGS, sizeof(*r));
}

/* One that says what it has, and that it is content */
static struct kg_answer content(struct kg_vm *vm)
{
	struct elastic_report r = { .period_ns = 1000000000 };

	r.cpus_online = (u32)kg_stat(vm, "cpu/grant");
	r.cpus_wanted = r.cpus_online;
	r.units_online = (u64)kg_stat(vm, "memory/grant_mib") / 2;
	r.units_wanted = r.units_online;
	return report(vm, &r);
}

static unsigned int cpu_target(const struct kg_answer *a)
{
	return a->rbx & 0xffffffff;
}

static void spin(struct kg_vm *vm, unsigned int i)
{
	struct kg_vcpu *ap = &vm->vcpu[i];
	u64 before;

	kg_go(ap);
	kg_start_ap(ap);
	if (kg_wait(ap, SOON_MS) != KG_ANSWER)
		ktap_bail("vCPU %u does not start", ap->id);
	kg_cmd(ap, KG_CMD_SPIN, 0, 0, 0);
	kg_go(ap);
	before = ap->mb->counter;
	if (!kg_until(ap->mb->counter > before + 1000, SOON_MS))
		ktap_bail("vCPU %u does not count", ap->id);
}

static bool gets_on(struct kg_vcpu *vcpu)
{
	u64 before = vcpu->mb->counter;

	return kg_until(vcpu->mb->counter > before, SOON_MS);
}

static void wait_ms(unsigned int ms)
{
	u64 end = kg_now_ms() + ms;

	while (kg_now_ms() < end)
		kg_pause();
}

/* Lend, and get back: vCPUs */
static void lend_cpus(void)
{
	struct kg_vm *a, *b;
	struct kg_answer r;

	ktap_diag("vCPUs: a pool of 6 for two VMs of 4");
	host("cpu/pool", 6);
	a = managed();
	b = managed();
	r = kg_request(&a->vcpu[0], 0xe, 0, 0);
	ktap_ok(r.status == ELASTIC_OK && kg_stat(a, "cpu/grant") == 4,
		"one borrows what the other does not need");
	r = content(b);
	ktap_ok(cpu_target(&r) == 3, "the other may still have its part: %u", cpu_target(&r));
	ktap_eq(kg_stat(a, "cpu/entitled"), 3, "which is half of the pool");
	r = content(a);
	ktap_ok(cpu_target(&r) == 4, "nobody is short: nobody must come down");
	r = kg_request(&b->vcpu[0], 0xe, 0, 0);
	ktap_ok(r.status == ELASTIC_PARTIAL && r.rbx == ELASTIC_R_POOL && r.rcx == 2,
		"it asks for it, and gets what is left");
	r = content(a);
	ktap_ok(cpu_target(&r) == 3, "the borrower is told to give one back: %u", cpu_target(&r));
	kg_release_cpu(&a->vcpu[0], 8);
	r = kg_request(&b->vcpu[0], 0xe, 0, 0);
	ktap_ok(r.status == ELASTIC_PARTIAL && r.rcx == 6 && kg_stat(b, "cpu/grant") == 3,
		"and the owner has its part");
	r = content(a);
	ktap_ok(cpu_target(&r) == 3 && r.rbx >> 32 == 3, "both keep theirs");

	limit(b, "cpu/weight", 50);
	ktap_ok(cpu_target(&(struct kg_answer){ .rbx = content(b).rbx }) == 3,
		"half the weight: nobody is short, so it keeps what it has");
	ktap_eq(kg_stat(b, "cpu/entitled"), 2, "but is entitled to a third at the next REPORT");
	ktap_eq(host_stat("cpu/used"), 6, "the pool is used up, not more");
	kg_free(a);
	kg_free(b);
}

/* Deadlines: vCPUs are seized */
static void stubborn_cpus(void)
{
	struct kg_vm *a, *b;
	struct kg_answer r;
	u64 begin;

	ktap_diag("vCPUs: a VM that does not come down");
	host("cpu/deadline_ms", DEADLINE_MS);
	host("cpu/pool", 6);
	a = managed();
	b = managed();
	kg_request(&b->vcpu[0], 6, 0, 0);
	spin(b, 2);
	ktap_eq(kg_stat(b, "cpu/grant"), 3, "it has three: one boots, one is idle, one works");
	begin = kg_now_ms();
	limit(b, "cpu/max", 2);
	r = content(b);
	ktap_ok(cpu_target(&r) == 2 && r.rbx >> 32 == 3, "it is told, and has time");
	file_is(b, "uncooperative", "none", "before the deadline");
	ktap_ok(kg_until(kg_stat(b, "cpu/seized") == 1, SOON_MS), "after the deadline one is seized");
	begin = kg_now_ms() - begin;
	ktap_ok(begin >= DEADLINE_MS && begin <= DEADLINE_MS + SLACK_MS,
		"that took %llu ms, deadline %d ms", (unsigned long long)begin, DEADLINE_MS);
	file_is(b, "cpu/list", "0,2", "the idle one");
	file_is(b, "uncooperative", "cpu", "after the deadline");
	ktap_eq(kg_stat(b, "cpu/grant"), 2, "it is not granted any more");
	ktap_eq(host_stat("cpu/used"), 3, "and the pool has it back");
	ktap_eq(kg_stat(b, "stats/uncooperative"), 1, "counted");
	ktap_eq(kg_stat(b, "stats/seized"), 1, "counted, too");
	ktap_ok(gets_on(&b->vcpu[2]), "the one that works goes on");
	r = kg_request(&b->vcpu[0], 2, 0, 0);
	ktap_ok(r.status == ELASTIC_REFUSED, "it does not get it back by asking");
	r = kg_hello(&b->vcpu[0], 7, &absent, 1);
	ktap_ok(r.status == ELASTIC_OK && kg_stat(b, "cpu/grant") == 2 &&
		kg_stat(b, "cpu/seized") == 1, "nor by saying HELLO");

	limit(b, "cpu/max", 1);
	ktap_ok(kg_until(kg_stat(b, "cpu/seized") == 2, SOON_MS), "then the one that works, too");
	file_is(b, "cpu/list", "0", "the one that booted stays");
	r = content(b);
	ktap_ok(r.status == ELASTIC_OK, "and answers");
	/* It says one online: that does not say which one, so nothing follows from it. */
	ktap_eq(kg_stat(b, "cpu/seized"), 2, "a number of vCPUs does not say which ones it gave up");
	r = kg_release_cpu(&b->vcpu[0], 2);
	ktap_eq(kg_stat(b, "cpu/seized"), 1, "one is given up");
	r = kg_release_cpu(&b->vcpu[0], 4);
	ktap_ok(kg_until(text_is(b, "uncooperative", "none"), SOON_MS) &&
		kg_stat(b, "cpu/seized") == 0, "who has given up both is forgiven");
	ktap_eq(kg_stat(b, "stats/forgiven"), 1, "counted");
	limit(b, "cpu/max", 4);
	r = kg_request(&b->vcpu[0], 4, 0, 0);
	ktap_ok(r.status == ELASTIC_OK && gets_on(&b->vcpu[2]), "and is granted again");

	ktap_diag("vCPUs: moments in which it can come down");
	limit(b, "cpu/max", 1);
	ktap_ok(kg_until(kg_stat(b, "cpu/seized") == 1, SOON_MS), "seized once more");
	ktap_ok(gets_on(&b->vcpu[2]), "a seized vCPU runs now and then");
	ktap_ok(kg_stat(b, "cpu/grant") == 1 && kg_stat(b, "cpu/seized") == 1,
		"without being granted");
	r = kg_release_cpu(&b->vcpu[0], 4);
	ktap_ok(r.status == ELASTIC_OK && r.rcx == 1 && kg_stat(b, "cpu/grant") == 1,
		"it is given up");
	ktap_ok(kg_until(text_is(b, "uncooperative", "none"), SOON_MS), "and forgiven");

	ktap_diag("vCPUs: given back when there is room");
	limit(b, "cpu/max", 4);
	kg_request(&b->vcpu[0], 4, 0, 0);
	limit(b, "cpu/max", 1);
	ktap_ok(kg_until(kg_stat(b, "cpu/seized") == 1, SOON_MS), "seized");
	limit(b, "cpu/max", 4);
	ktap_ok(kg_until(kg_stat(b, "cpu/seized") == 0 && kg_stat(b, "cpu/grant") == 2, SOON_MS),
		"with a higher maximum it has it back without asking");
	ktap_ok(gets_on(&b->vcpu[2]), "and it runs");
	ktap_ok(kg_until(text_is(b, "uncooperative", "none"), SOON_MS), "forgiven");

	ktap_diag("vCPUs: BYE is no way out");
	kg_request(&b->vcpu[0], 0xe, 0, 0);
	ktap_eq(kg_stat(b, "cpu/grant"), 4, "it borrows");
	kg_bye(&b->vcpu[0]);
	kg_request(&a->vcpu[0], 0xe, 0, 0);
	ktap_ok(kg_until(kg_stat(b, "cpu/grant") == 3, SOON_MS), "what it borrowed is seized");
	r = kg_request(&a->vcpu[0], 0xe, 0, 0);
	ktap_ok(kg_stat(a, "cpu/grant") == 3, "and its owner has it");
	kg_reset(b);
	ktap_ok(kg_until(kg_stat(b, "cpu/seized") == 0, SOON_MS) && text_is(b, "state", "unmanaged"),
		"a reset ends it");
	kg_free(a);
	kg_free(b);
}

/* Memory: entitled to 128 units each */
static void memory(void)
{
	struct kg_vm *a, *b;
	struct kg_answer r;

	ktap_diag("memory: a pool of 256 units for two VMs of %d", UNITS - 1);
	host("memory/pool_mib", 512);
	host("memory/deadline_ms", DEADLINE_MS);
	a = managed();
	b = managed();
	r = kg_request(&a->vcpu[0], 0, BOOT + 1, 190);
	ktap_ok(r.status == ELASTIC_PARTIAL && r.rbx == (u64)ELASTIC_R_POOL << 16 && r.rdx == 130,
		"one borrows: %llu units", (unsigned long long)r.rdx);
	r = kg_request(&b->vcpu[0], 0, BOOT + 1, 65);
	ktap_ok(r.status == ELASTIC_REFUSED && r.rbx == (u64)ELASTIC_R_POOL << 16,
		"the other has to wait");
	r = content(a);
	ktap_ok(r.rcx == 128, "the borrower is told: %llu units", (unsigned long long)r.rcx);
	ktap_ok(kg_until(text_is(a, "uncooperative", "memory"), SOON_MS),
		"after the deadline it is uncooperative");
	ktap_eq(kg_stat(a, "memory/grant_mib"), 2 * 193, "nothing is taken from it");
	r = kg_request(&a->vcpu[0], 0, BOOT + 131, 1);
	ktap_ok(r.status == ELASTIC_REFUSED && r.rbx == (u64)ELASTIC_R_POOL << 16,
		"and nothing is given");
	kg_release_mem(&a->vcpu[0], BOOT + 66, 65);
	ktap_ok(kg_until(text_is(a, "uncooperative", "none"), SOON_MS), "it comes down: forgiven");
	ktap_eq(kg_stat(a, "stats/forgiven"), 1, "counted");
	r = kg_request(&b->vcpu[0], 0, BOOT + 1, 65);
	ktap_ok(r.status == ELASTIC_OK && kg_stat(b, "memory/grant_mib") == 256,
		"and the owner has its part");
	ktap_eq(host_stat("memory/used_mib"), 512, "the pool is used up, not more");
	kg_free(b);
	ktap_ok(kg_until(host_stat("memory/used_mib") == 256, SOON_MS), "its owner goes");

	ktap_diag("memory: growth");
	host("memory/growth", 1);
	b = managed();
	r = kg_request(&b->vcpu[0], 0, BOOT + 1, 65);
	ktap_eq(r.status, ELASTIC_OK, "up to its part at once");
	kg_free(a);
	ktap_ok(kg_until(host_stat("memory/used_mib") == 256, SOON_MS), "the other goes");
	a = managed();
	r = kg_request(&b->vcpu[0], 0, BOOT + 66, 16);
	ktap_ok(r.status == ELASTIC_PARTIAL && r.rbx == (u64)ELASTIC_R_RATE << 16 && r.rdx >= 3 &&
		r.rdx < 16, "beyond it slowly: %llu of 16 units", (unsigned long long)r.rdx);
	ktap_eq(kg_stat(b, "stats/refused_rate"), 1, "counted");
	ktap_ok(kg_until(kg_request(&b->vcpu[0], 0, BOOT + 66, 16).status == ELASTIC_OK, SOON_MS),
		"until it has all");
	kg_free(a);
	kg_free(b);
}

/* What the guest says is bounded by what the host sees */
static void liars(void)
{
	struct elastic_report lie = {
		.period_ns = 1000000000, .busy_ns = 4000000000, .runnable_milli = 100000,
		.cpus_online = 4, .cpus_wanted = 4, .units_online = UNITS, .units_wanted = UNITS,
		.reclaims = 1000, .ooms = 10,
	};
	s64 need, rss;
	struct kg_vm *vm;
	FILE *f;

	ktap_diag("a VM that lies");
	host("cpu/pool", 64);
	host("memory/pool_mib", 4096);
	vm = managed();
	kg_request(&vm->vcpu[0], 0xe, BOOT + 1, UNITS - BOOT - 1);
	report(vm, &lie);
	wait_ms(MEASURE_MS);
	report(vm, &lie);
	ktap_eq(kg_stat(vm, "cpu/busy"), 0, "no vCPU is busy, whatever it says");
	wait_ms(MEASURE_MS);
	report(vm, &lie);
	wait_ms(MEASURE_MS);
	report(vm, &lie);
	ktap_eq(kg_stat(vm, "cpu/need"), 1, "nor does it need more than one");
	f = fopen("/proc/self/statm", "r");
	if (!f || fscanf(f, "%*s %lld", (long long *)&rss) != 1)
		ktap_bail("/proc/self/statm");
	fclose(f);
	rss = rss / 256 + 2;
	ktap_ok(kg_stat(vm, "memory/busy_mib") <= rss, "busy_mib: %lld, of %lld resident",
		(long long)kg_stat(vm, "memory/busy_mib"), (long long)rss);
	need = kg_stat(vm, "memory/need_mib");
	/* Half as much again and 256 MiB; it fell to that, and the last sixteenth is nothing */
	ktap_ok(need <= (rss + rss / 2 + 256) * 16 / 15 + 2,
		"need_mib: %lld, of %d granted", (long long)need, 2 * (UNITS - 1));

	ktap_diag("one that works");
	spin(vm, 1);
	spin(vm, 2);
	wait_ms(MEASURE_MS);
	report(vm, &lie);
	wait_ms(2 * MEASURE_MS);
	report(vm, &lie);
	ktap_ok(kg_stat(vm, "cpu/busy") >= 2, "cpu/busy: %lld", (long long)kg_stat(vm, "cpu/busy"));
	ktap_eq(kg_stat(vm, "cpu/need"), 4, "it is believed");
	memset(kg_hva(vm, 256 << 20), 1, 512 << 20);
	report(vm, &lie);
	ktap_ok(kg_stat(vm, "memory/busy_mib") >= 512, "busy_mib: %lld",
		(long long)kg_stat(vm, "memory/busy_mib"));
	kg_free(vm);
}

/* The directory of a VM whose HELLO was refused: the one that is not theirs */
static void name_of_third(struct kg_vm *c, const struct kg_vm *a, const struct kg_vm *b)
{
	char path[sizeof(c->dir)];
	unsigned int i;

	for (i = 0; i < 10; i++) {
		snprintf(path, sizeof(path), i ? KG_SYSFS "/vms/%d-%u" : KG_SYSFS "/vms/%d",
			 (int)getpid(), i);
		if (strcmp(path, a->dir) && strcmp(path, b->dir) && !access(path, F_OK))
			snprintf(c->dir, sizeof(c->dir), "%s", path);
	}
}

static void admission(void)
{
	struct kg_vm *a, *b, *c;
	struct kg_answer r;

	ktap_diag("admission");
	ktap_ok(kg_until(!host_stat("cpu/used"), SOON_MS), "no VM is left");
	host("cpu/pool", 5);
	host("memory/pool_mib", 4096);
	host("cpu/default_min", 2);
	a = managed();
	b = managed();
	ktap_eq(kg_stat(a, "cpu/min"), 2, "a new VM has the default minimum");
	ktap_eq(host_stat("cpu/used"), 4, "which is kept free");
	c = new_vm();
	r = kg_hello(&c->vcpu[0], 1, &absent, 1);
	ktap_ok(r.status == ELASTIC_REFUSED && r.rbx == ELASTIC_R_ADMISSION,
		"no minimum is left for a third");
	name_of_third(c, a, b);
	ktap_ok(!strcmp(kg_state(c), "unmanaged"), "it stays unmanaged: %s", kg_state(c));
	ktap_eq(kg_stat(c, "cpu/grant"), 4, "with what it has");
	ktap_eq(host_stat("cpu/used"), 4, "and no pool pays");
	host("cpu/default_min", 3);
	kg_hello(&a->vcpu[0], 1, &absent, 1);
	ktap_eq(kg_stat(a, "cpu/min"), 2, "who is admitted keeps its minimum at the next HELLO");
	host("cpu/default_min", 2);
	ktap_eq(kg_write(c, "cpu/min", "1"), 0, "a lower minimum");
	r = kg_hello(&c->vcpu[0], 1, &absent, 1);
	ktap_ok(r.status == ELASTIC_OK, "is admitted");
	ktap_eq(kg_write(c, "cpu/min", "2"), -ENOSPC, "cpu/min: no more than there is");
	ktap_eq(host_write("cpu/pool", "4"), -EBUSY, "cpu/pool: no less than the minimums");
	host("cpu/default_min", 0);
	kg_free(c);
	ktap_ok(kg_until(host_stat("cpu/used") == 4, SOON_MS), "it goes");

	host("memory/default_min_mib", 3000);
	c = new_vm();
	r = kg_hello(&c->vcpu[0], 1, &absent, 1);
	ktap_ok(r.status == ELASTIC_OK && kg_stat(c, "memory/min_mib") == 2 * (UNITS - 1),
		"a default above the ceiling is the ceiling");
	host("memory/default_min_mib", 0);
	kg_free(a);
	kg_free(b);
	kg_free(c);
}

/* The host itself runs short */
static void pressure(void)
{
	struct kg_vm *vm;
	struct kg_answer r;
	s64 low;

	ktap_diag("a host that is short of memory");
	host("cpu/pool", 64);
	host("memory/pool_mib", 1024);
	vm = managed();
	ktap_eq(host_stat("memory/now_mib"), 1024, "now_mib: all of the pool");
	host("memory/low_mib", 1 << 24);
	ktap_ok(kg_until(host_stat("memory/now_mib") == 0, SOON_MS), "the pool shrinks");
	r = kg_request(&vm->vcpu[0], 0, BOOT + 1, 1);
	ktap_ok(r.status == ELASTIC_REFUSED && r.rbx == (u64)ELASTIC_R_POOL << 16,
		"and has nothing to give");
	ktap_eq(host_stat("memory/pool_mib"), 1024, "what was set is as it was");
	host("memory/low_mib", 0);
	ktap_ok(kg_until(host_stat("memory/now_mib") > 0, SOON_MS), "it grows back");
	low = host_stat("memory/now_mib");
	ktap_ok(low < 1024 / 4, "slowly: %lld MiB", (long long)low);
	ktap_ok(kg_until(host_stat("memory/now_mib") > low, SOON_MS), "on and on");
	host("memory/pool_mib", 1024);
	ktap_eq(host_stat("memory/now_mib"), 1024, "and at once, if the administrator says so");
	kg_free(vm);
}

static void advice_is(const char *file, const char *want, const char *what)
{
	char text[256] = "";
	char *ms;
	FILE *f = fopen(file, "r");

	if (!f || !fgets(text, sizeof(text), f))
		ktap_bail("%s: %s", file, strerror(errno));
	fclose(f);
	text[strcspn(text, "\n")] = 0;
	/* Its time is any number */
	ms = strstr(text, "for_ms=");
	if (ms)
		memmove(ms + 7, ms + 7 + strspn(ms + 7, "0123456789"),
			strlen(ms + 7 + strspn(ms + 7, "0123456789")) + 1);
	ktap_ok(!strcmp(text, want), "%s: %s", what, text);
	if (strcmp(text, want))
		ktap_diag("want %s", want);
}

static bool changes(int fd, unsigned int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLPRI };

	return poll(&p, 1, (int)ms) == 1 && p.revents & POLLPRI;
}

/* An uevent of the kernel with all of these strings in it */
static bool hears(int fd, const char *const *strings, unsigned int nr)
{
	u64 end = kg_now_ms() + SOON_MS;
	char buf[4096];

	while (kg_now_ms() < end) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		unsigned int found = 0, i;
		ssize_t len, at;

		if (poll(&p, 1, 1000) != 1)
			continue;
		len = recv(fd, buf, sizeof(buf) - 1, 0);
		for (at = 0; at < len; at += (ssize_t)strlen(buf + at) + 1) {
			buf[len] = 0;
			for (i = 0; i < nr; i++)
				found += !strcmp(buf + at, strings[i]);
		}
		if (found == nr)
			return true;
	}
	return false;
}

/* More is needed than there is: which VM should go */
static void advice(void)
{
	struct sockaddr_nl all = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int uevents = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	int fd = open(KG_SYSFS "/cpu/advice", O_RDONLY | O_CLOEXEC);
	char text[256], want[128], move[128];
	const char *strings[4] = { "ACTION=change", "ELASTIC_SHORT=cpu", "ELASTIC_MISSING=2", move };
	const char *names;
	struct kg_vm *a, *b;

	ktap_diag("advice to move a VM");
	if (fd < 0 || uevents < 0 || bind(uevents, (struct sockaddr *)&all, sizeof(all)))
		ktap_bail("no advice, or no uevents: %s", strerror(errno));
	host("advice_ms", 1000);
	host("cpu/pool", 4);
	host("memory/pool_mib", 4096);
	a = managed();
	b = managed();
	kg_request(&a->vcpu[0], 2, 0, 0);
	kg_request(&b->vcpu[0], 2, 0, 0);
	ktap_ok(read(fd, text, sizeof(text)) > 0, "the file is read");
	advice_is(KG_SYSFS "/cpu/advice", "none", "there is enough");
	/* Both are believed to need three */
	kg_request(&a->vcpu[0], 4, 0, 0);
	kg_request(&b->vcpu[0], 4, 0, 0);
	snprintf(move, sizeof(move), "ELASTIC_MOVE=%s:enough,%s:enough",
		 strrchr(a->dir, '/') + 1, strrchr(b->dir, '/') + 1);
	names = strchr(move, '=') + 1;
	snprintf(want, sizeof(want), "missing=2 for_ms= move=%s", names);
	ktap_ok(changes(fd, SOON_MS), "it is short: who polls is woken");
	advice_is(KG_SYSFS "/cpu/advice", want, "the advice");
	advice_is(KG_SYSFS "/memory/advice", "none", "there is enough memory");
	ktap_ok(hears(uevents, strings, NR(strings)), "an uevent tells of it");
	ktap_ok(lseek(fd, 0, SEEK_SET) == 0 && read(fd, text, sizeof(text)) > 0, "read again");
	kg_free(a);
	ktap_ok(changes(fd, SOON_MS), "one goes: who polls is woken again");
	advice_is(KG_SYSFS "/cpu/advice", "none", "it is over");
	kg_free(b);
	close(fd);
	close(uevents);
}

/* The VMM dies at any instant: before, while and after vCPUs are seized */
/* APIC id plus 1 of the vCPU that had best go */
static unsigned int hint(struct kg_vm *vm)
{
	return content(vm).rdx >> ELASTIC_HINT_SHIFT;
}

static void hints(void)
{
	struct kg_vm *vm = managed();
	struct kg_answer r;
	unsigned int first;

	ktap_diag("which vCPU to give up first");
	kg_request(&vm->vcpu[0], 0xe, 0, 0);
	r = content(vm);
	ktap_eq(r.rdx, BOOT, "who did not ask for hints has none");
	vm->more_features = ELASTIC_FEAT_HINT;
	kg_must_hello(&vm->vcpu[0], 0xf, &absent, 1);
	r = content(vm);
	ktap_ok((r.rdx & ELASTIC_REPORT_UNITS_MASK) == BOOT, "the units are where they were");
	ktap_eq(hint(vm), 3 + 1, "none has run: the last");
	spin(vm, 1);
	spin(vm, 3);
	wait_ms(MEASURE_MS);
	hint(vm);
	wait_ms(MEASURE_MS);
	ktap_eq(hint(vm), 2 + 1, "the one that ran least");
	kg_release_cpu(&vm->vcpu[0], 4);
	wait_ms(MEASURE_MS);
	first = hint(vm);
	ktap_ok(first == 1 + 1 || first == 3 + 1, "not one that is given up: %u", first);
	kg_release_cpu(&vm->vcpu[0], 0xa);
	ktap_eq(hint(vm), 0, "not the one that booted");
	kg_free(vm);
}

static cpu_set_t cpus_of(struct kg_vcpu *vcpu)
{
	cpu_set_t set;

	if (pthread_getaffinity_np(vcpu->thread, sizeof(set), &set))
		ktap_bail("pthread_getaffinity_np");
	return set;
}

static bool may_use(struct kg_vcpu *vcpu, const cpu_set_t *want)
{
	cpu_set_t set = cpus_of(vcpu);

	return CPU_EQUAL(&set, want);
}

static void allow(struct kg_vcpu *vcpu, const cpu_set_t *set)
{
	if (pthread_setaffinity_np(vcpu->thread, sizeof(*set), set))
		ktap_bail("pthread_setaffinity_np");
}

static bool within(struct kg_vcpu *vcpu, const cpu_set_t *all)
{
	cpu_set_t set = cpus_of(vcpu), both;

	CPU_AND(&both, &set, all);
	return CPU_COUNT(&set) && CPU_EQUAL(&both, &set);
}

/* The @nr-th CPU of a set, counted from 0 */
static cpu_set_t nth(const cpu_set_t *set, int nr)
{
	cpu_set_t one;
	int cpu;

	CPU_ZERO(&one);
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, set) && !nr--)
			CPU_SET(cpu, &one);
	return one;
}

/* A process that keeps the CPUs of a set busy, one each */
static void keep_busy(const cpu_set_t *set, pid_t *pids)
{
	cpu_set_t one;
	int i;

	for (i = 0; i < CPU_COUNT(set); i++) {
		one = nth(set, i);
		pids[i] = fork();
		if (pids[i] < 0)
			ktap_bail("fork: %s", strerror(errno));
		if (pids[i])
			continue;
		if (sched_setaffinity(0, sizeof(one), &one))
			_exit(1);
		for (;;)
			;
	}
}

static bool is_placed(struct kg_vm *vm, int nr)
{
	return kg_stat(vm, "cpu/placed") == nr;
}

static void place(struct kg_vm *vm)
{
	kg_request(&vm->vcpu[0], 2, 0, 0);
	if (!kg_until(is_placed(vm, 1), SOON_MS))
		ktap_bail("the vCPU is not placed");
}

static void places(void)
{
	struct kg_vm *vm = managed();
	struct kg_vcpu *ap = &vm->vcpu[1];
	cpu_set_t all, some, other;
	pid_t pids[2];
	int i;

	ktap_diag("placement");
	kg_request(&vm->vcpu[0], 2, 0, 0);
	spin(vm, 1);
	all = cpus_of(ap);
	wait_ms(MEASURE_MS);
	ktap_ok(is_placed(vm, 0), "off: no vCPU is placed");
	host("cpu/placement", 1);
	ktap_ok(kg_until(is_placed(vm, 1), SOON_MS), "on: the vCPU that was granted is placed");
	ktap_ok(within(ap, &all), "on CPUs that it was allowed");
	ktap_ok(gets_on(ap), "and runs");
	host("cpu/placement", 0);
	ktap_ok(is_placed(vm, 0) && may_use(ap, &all), "off: it is allowed what it was, at once");

	host("cpu/placement", 1);
	place(vm);
	kg_release_cpu(&vm->vcpu[0], 2);
	ktap_ok(kg_until(is_placed(vm, 0), SOON_MS) && may_use(ap, &all), "released: the same");

	some = nth(&all, 0);
	allow(ap, &some);
	place(vm);
	ktap_ok(may_use(ap, &some), "who is allowed one CPU stays there");
	kg_release_cpu(&vm->vcpu[0], 2);
	ktap_ok(kg_until(is_placed(vm, 0), SOON_MS) && may_use(ap, &some), "and afterwards, too");

	if (CPU_COUNT(&all) >= 4) {
		other = nth(&all, 1);
		CPU_OR(&some, &some, &other);
		allow(ap, &all);
		keep_busy(&some, pids);
		wait_ms(3000);
		place(vm);
		other = cpus_of(ap);
		CPU_AND(&other, &other, &some);
		ktap_ok(!CPU_COUNT(&other) && within(ap, &all), "not where others keep CPUs busy");
		for (i = 0; i < 2; i++) {
			kill(pids[i], SIGKILL);
			waitpid(pids[i], NULL, 0);
		}
		/* It is there, and not alone; whatever it has been set to, this is another one. */
		other = cpus_of(ap);
		some = nth(&all, CPU_ISSET(0, &other) && CPU_COUNT(&other) == 1);
		allow(ap, &some);
		ktap_ok(kg_until(is_placed(vm, 0), SOON_MS) && may_use(ap, &some),
			"the administrator sets something else: that counts");
		wait_ms(3000);
		ktap_ok(is_placed(vm, 0) && may_use(ap, &some), "and goes on to");
		host("cpu/placement", 0);
		ktap_ok(may_use(ap, &some), "also when placement is turned off");
	} else {
		ktap_skip("the host has fewer than four CPUs", "busy CPUs");
		host("cpu/placement", 0);
	}

	allow(ap, &all);
	host("cpu/placement", 1);
	kg_release_cpu(&vm->vcpu[0], 2);
	ktap_ok(kg_until(is_placed(vm, 0), SOON_MS), "released");
	place(vm);
	kg_reset(vm);
	ktap_ok(kg_until(may_use(ap, &all) && is_placed(vm, 0), SOON_MS), "reset: as it was");
	host("cpu/placement", 0);
	ktap_eq(host_write("cpu/placement", "2"), -ERANGE, "2 is refused");
	kg_free(vm);
}

#define MPOL_DEFAULT	0	/* of <linux/mempolicy.h> */
#define MPOL_BIND	2

/* The CPUs of a node, as "2-3" or "2,4-5"; false: there is no such node */
static bool node_cpus(int node, cpu_set_t *set)
{
	char path[64], text[256] = "", *p = text;
	unsigned long from, to;
	int fd;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	CPU_ZERO(set);
	while (*p >= '0' && *p <= '9') {
		from = to = strtoul(p, &p, 10);
		if (*p == '-')
			to = strtoul(p + 1, &p, 10);
		for (; from <= to; from++)
			CPU_SET(from, set);
		if (*p == ',')
			p++;
	}
	return CPU_COUNT(set);
}

static void near_memory(void)
{
	struct kg_config cfg = { .nr_vcpus = 2, .ram = 64ULL << ELASTIC_UNIT_SHIFT,
				 .populate = true };
	struct kg_vm *vm;
	cpu_set_t cpus;
	unsigned long nodes;
	int node;

	ktap_diag("placement near the memory");
	if (!node_cpus(1, &cpus)) {
		ktap_skip("the host has one node", "near the memory");
		return;
	}
	for (node = 0; node < 2; node++) {
		nodes = 1UL << node;
		if (syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 8 * sizeof(nodes)))
			ktap_bail("set_mempolicy: %s", strerror(errno));
		vm = kg_new(&cfg);
		kg_must_hello(&vm->vcpu[0], 1, NULL, 0);
		syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0);
		host("cpu/placement", 1);
		content(vm);
		kg_request(&vm->vcpu[0], 2, 0, 0);
		spin(vm, 1);
		node_cpus(node, &cpus);
		ktap_ok(kg_until(is_placed(vm, 1), SOON_MS) && within(&vm->vcpu[1], &cpus),
			"on the CPUs of node %d, where its memory is", node);
		host("cpu/placement", 0);
		kg_free(vm);
	}
}

static void deaths(void)
{
	unsigned int i, fine = 0;
	struct kg_vm *vm;
	int status;
	pid_t pid;

	ktap_diag("VMMs that die");
	host("cpu/pool", 64);
	host("cpu/deadline_ms", 100);
	fflush(stdout);
	for (i = 0; i < 12; i++) {
		pid = fork();
		if (!pid) {
			vm = managed();
			kg_request(&vm->vcpu[0], 0xe, 0, 0);
			spin(vm, 1);
			limit(vm, "cpu/max", 1);
			if (i % 2 && !kg_until(kg_stat(vm, "cpu/seized") == 3, SOON_MS))
				_exit(1);
			wait_ms(i * 60);
			kill(getpid(), SIGKILL);
		}
		if (pid > 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
		    WTERMSIG(status) == SIGKILL)
			fine++;
	}
	ktap_eq(fine, 12, "all of them died as they should");
	ktap_ok(kg_until(!host_stat("cpu/used") && !host_stat("memory/used_mib"), SOON_MS),
		"the pools have all of it back");
}

int main(void)
{
	host_module_need();
	remember();
	lend_cpus();
	stubborn_cpus();
	memory();
	liars();
	admission();
	pressure();
	advice();
	hints();
	places();
	near_memory();
	deaths();
	return ktap_finish();
}
