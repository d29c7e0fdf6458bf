// SPDX-License-Identifier: GPL-2.0-only
/*
 * A vCPU outside the grant does not run, whatever it did before, whoever pokes
 * it; and the VMM can always get it out, look at it, reset it and die.
 *
 * That something does not happen can only be watched for a while (QUIET_MS);
 * each such watch has a counterpart that shows that it would have happened.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ktap.h"
#include "kvm_guest.h"

#define QUIET_MS	300	/* how long nothing may happen */
#define SOON_MS		30000	/* bound of what must happen; slow emulators included */
#define PROMPT_MS	1000	/* bound of what must happen at once, but for a stall of the host */
#define UNLOAD_MS	60000	/* bound of unloading the module */
#define NR_VCPUS	5

static struct kg_vm *vm;
static struct kg_vcpu *bsp;

static struct kg_vm *fresh_vm(void)
{
	struct kg_config cfg = { .nr_vcpus = NR_VCPUS };

	vm = kg_new(&cfg);
	bsp = &vm->vcpu[0];
	return vm;
}

/* Does the vCPU, which is in KG_CMD_SPIN or should be, get on? */
static bool counts(struct kg_vcpu *vcpu)
{
	u64 before = vcpu->mb->counter;

	return kg_until(vcpu->mb->counter > before + 1000, SOON_MS);
}

static bool stands(struct kg_vcpu *vcpu)
{
	u64 before = vcpu->mb->counter, end = kg_now_ms() + QUIET_MS;

	while (kg_now_ms() < end)
		kg_pause();
	return vcpu->mb->counter == before;
}

static s64 cpu_us(struct kg_vcpu *vcpu)
{
	struct timespec time;
	clockid_t clock;

	pthread_getcpuclockid(vcpu->thread, &clock);
	clock_gettime(clock, &time);
	return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

/*
 * Until it counts no more: how long that took, in ms; negative: it goes on. One that
 * takes CPU time and does not count is not held: its host stands still.
 */
static int stops_in(struct kg_vcpu *vcpu)
{
	u64 begin = kg_now_ms(), last = vcpu->mb->counter, since = begin;
	s64 cpu = cpu_us(vcpu);

	while (kg_now_ms() - begin < SOON_MS) {
		kg_pause();
		if (vcpu->mb->counter != last || cpu_us(vcpu) - cpu > 5000) {
			last = vcpu->mb->counter;
			cpu = cpu_us(vcpu);
			since = kg_now_ms();
		} else if (kg_now_ms() - since >= 100) {
			return (int)(since - begin);
		}
	}
	return -1;
}

/* From its trampoline into KG_CMD_SPIN; must not be held */
static void spin(struct kg_vcpu *ap)
{
	kg_go(ap);
	kg_start_ap(ap);
	if (kg_wait(ap, SOON_MS) != KG_ANSWER)
		ktap_bail("vCPU %u does not start", ap->id);
	kg_cmd(ap, KG_CMD_SPIN, 0, 0, 0);
	kg_go(ap);
	if (!counts(ap))
		ktap_bail("vCPU %u does not count", ap->id);
}

static void running_at_hello(void)
{
	struct kg_vcpu *ap = &vm->vcpu[1];
	s64 held;
	int ms;

	spin(ap);
	ktap_ok(true, "unmanaged: every vCPU runs");
	kg_must_hello(bsp, 1, NULL, 0);
	ms = stops_in(ap);
	ktap_ok(ms >= 0 && stands(ap), "a running vCPU outside HELLO's set stops, in %d ms", ms);
	held = kg_stat(vm, "stats/held");
	ktap_ok(held > 0, "stats/held: %lld", (long long)held);
	ktap_ok(kg_is_running(ap), "its KVM_RUN does not return");
	kg_request(bsp, 2, 0, 0);
	ktap_ok(counts(ap), "granted, it goes on where it was");
}

static void released(void)
{
	struct kg_vcpu *ap = &vm->vcpu[1];
	int ms, worst = 0, prompt = 0, i;
	bool good = true;

	for (i = 0; i < 10 && good; i++) {
		struct kg_answer a = kg_release_cpu(bsp, 2);

		good = a.status == ELASTIC_OK && !(a.rcx & 2);
		ms = stops_in(ap);
		good = good && ms >= 0;
		worst = ms > worst ? ms : worst;
		prompt += ms < PROMPT_MS;
		if (i == 0)
			good = good && stands(ap);
		a = kg_request(bsp, 2, 0, 0);
		good = good && a.status == ELASTIC_OK && a.rcx == 2 && counts(ap);
	}
	ktap_ok(good && prompt >= 5,
		"ten times given up and granted: stops (in %d ms at most) and goes on", worst);
}

static void dormant(void)
{
	struct kg_vcpu *pending = &vm->vcpu[2], *fresh = &vm->vcpu[3];
	struct kg_answer a;
	unsigned int tries;
	enum kg_end end;
	u64 begin;

	kg_go(pending);
	kg_go(fresh);
	kg_start_ap(pending);
	kg_start_ap(fresh);
	begin = kg_now_ms();
	while (kg_now_ms() - begin < QUIET_MS)
		kg_pause();
	ktap_ok(!pending->mb->starts && !fresh->mb->starts && kg_is_running(pending) &&
		kg_is_running(fresh), "INIT and SIPI do not start a vCPU that is not granted");
	a = kg_request(bsp, 4, 0, 0);
	ktap_ok(a.status == ELASTIC_OK && kg_wait(pending, SOON_MS) == KG_ANSWER &&
		pending->mb->starts == 1, "granted, it takes the INIT and SIPI that are pending");
	ktap_ok(!fresh->mb->starts && kg_is_running(fresh), "its neighbour does not");

	/* As a guest does that gave up in between: from the beginning */
	a = kg_request(bsp, 8, 0, 0);
	/*
	 * More than once, as an operating system does: KVM looks at its pending INIT and
	 * SIPI first and clears them later, so a second SIPI that comes while it takes the
	 * first one can be lost.
	 */
	for (end = KG_TIMEOUT, tries = 0; end == KG_TIMEOUT && tries < 3; tries++) {
		kg_start_ap(fresh);
		end = kg_wait(fresh, SOON_MS);
	}
	if (end == KG_OTHER)
		ktap_diag("errno %d, exit reason %u", fresh->error, fresh->run->exit_reason);
	if (end == KG_TIMEOUT)
		ktap_diag("REQUEST: status %lld, granted 0x%llx, reason %lld",
			  (long long)a.status, (unsigned long long)a.rcx, (long long)a.rbx);
	ktap_ok(a.status == ELASTIC_OK && end == KG_ANSWER && fresh->mb->starts >= 1,
		"granted, a fresh INIT and SIPI start a vCPU: %s, %llu starts", kg_end_name(end),
		(unsigned long long)fresh->mb->starts);
	kg_release_cpu(bsp, 0xc);
	kg_start_ap(pending);
	kg_go(pending);
	begin = kg_now_ms();
	while (kg_now_ms() - begin < QUIET_MS)
		kg_pause();
	ktap_eq((long long)pending->mb->starts, 1, "given up, it does not start again");
	kg_kick(pending, SOON_MS);
	kg_kick(fresh, SOON_MS);
}

static void signals(struct kg_vcpu *ap, const char *what)
{
	u64 before = ap->mb->counter, starts = ap->mb->starts, begin, ms, worst = 0;
	enum kg_end end = KG_EINTR;
	int i, prompt = 0;

	for (i = 0; i < 20 && end == KG_EINTR; i++) {
		/* Some while it sleeps, some on its way there */
		if (i % 2)
			kg_pause();
		begin = kg_now_ms();
		end = kg_kick(ap, SOON_MS);
		ms = kg_now_ms() - begin;
		worst = ms > worst ? ms : worst;
		prompt += ms < PROMPT_MS;
		kg_go(ap);
	}
	ktap_ok(end == KG_EINTR && prompt >= 10, "%s: a signal ends KVM_RUN: %s in %llu ms",
		what, kg_end_name(end), (unsigned long long)worst);
	ktap_ok(ap->mb->counter == before && ap->mb->starts == starts,
		"%s: it did not run meanwhile", what);
	if (kg_kick(ap, SOON_MS) != KG_EINTR)
		ktap_bail("a signal does not end KVM_RUN");
	begin = kg_now_ms();
	end = kg_run_immediate(ap);
	ktap_ok(end == KG_EINTR && kg_now_ms() - begin < SOON_MS,
		"%s: immediate_exit ends KVM_RUN: %s", what, kg_end_name(end));
	ktap_ok(ap->mb->counter == before && ap->mb->starts == starts,
		"%s: it did not run in it", what);
}

static void signals_and_queries(void)
{
	struct kg_vcpu *ap = &vm->vcpu[1], *idle = &vm->vcpu[4];
	struct kvm_sregs sregs;
	struct kvm_regs regs, again;
	u64 begin, ms, counter;
	u32 state;

	kg_release_cpu(bsp, 2);
	stops_in(ap);
	signals(ap, "held while running");
	kg_go(idle);
	kg_start_ap(idle);
	signals(idle, "held while dormant");

	/* Both are out of KVM_RUN now, as in a VM that is stopped */
	counter = ap->mb->counter;
	begin = kg_now_ms();
	state = kg_get_mp_state(ap);
	kg_get_regs(ap, &regs);
	if (ioctl(ap->fd, KVM_GET_SREGS, &sregs))
		ktap_bail("KVM_GET_SREGS: %s", strerror(errno));
	kg_get_regs(ap, &again);
	ms = kg_now_ms() - begin;
	ktap_ok(ms < SOON_MS, "queries of a held vCPU return, in %llu ms", (unsigned long long)ms);
	ktap_eq(state, KVM_MP_STATE_RUNNABLE, "the state of one that ran");
	ktap_ok(regs.rip == again.rip && regs.rip >= KG_CODE && regs.rip < KG_TRAMPOLINE,
		"its registers are its own: rip 0x%llx", regs.rip);
	begin = kg_now_ms();
	state = kg_get_mp_state(idle);
	ms = kg_now_ms() - begin;
	ktap_ok(ms < SOON_MS && state == KVM_MP_STATE_UNINITIALIZED,
		"the state of one with INIT and SIPI pending: %u, in %llu ms", state,
		(unsigned long long)ms);
	kg_go(ap);
	kg_go(idle);
	ktap_ok(stands(ap) && ap->mb->counter == counter && !idle->mb->starts,
		"queries let none of them run");
	kg_request(bsp, 0x12, 0, 0);
	ktap_ok(counts(ap), "granted after signals and queries, it goes on");
	ktap_ok(kg_wait(idle, SOON_MS) == KG_ANSWER && idle->mb->starts == 1,
		"granted after signals and queries, INIT and SIPI are still there");
}

static void interrupts(void)
{
	struct kg_vcpu *ap = &vm->vcpu[1], *halted = &vm->vcpu[4];
	u64 nmis = ap->mb->nmis;

	kg_cmd(halted, KG_CMD_HLT, 0, 0, 0);
	kg_go(halted);
	kg_release_cpu(bsp, 0x12);
	stops_in(ap);
	/* x2APIC ICR: an NMI */
	kg_must(bsp, KG_CMD_WRMSR, 0x830, (u64)ap->id << 32 | 0x4400, 0);
	ktap_ok(stands(ap) && ap->mb->nmis == nmis, "an NMI does not make a held vCPU run");
	kg_send_ipi(bsp, halted->id);
	ktap_ok(kg_wait(halted, QUIET_MS) == KG_TIMEOUT && !halted->mb->ipis,
		"an interrupt does not make a held vCPU run that was halted");
	kg_request(bsp, 0x12, 0, 0);
	ktap_ok(counts(ap) && ap->mb->nmis == nmis + 1, "granted, it takes the NMI and goes on");
	ktap_ok(kg_wait(halted, SOON_MS) == KG_ANSWER && halted->mb->ipis == 1,
		"granted, the halted one takes its interrupt");
}

/* It sleeps: not more CPU time than waking up now and then would need */
static void sleeps(void)
{
	struct kg_vcpu *ap = &vm->vcpu[1];
	s64 us = QUIET_MS * 1000;
	int i;

	kg_release_cpu(bsp, 2);
	stops_in(ap);
	/* One that polls takes time each time; a host that stands still, now and then */
	for (i = 0; i < 5 && us >= QUIET_MS * 1000 / 20; i++) {
		us = cpu_us(ap);
		stands(ap);
		us = cpu_us(ap) - us;
	}
	ktap_ok(us < QUIET_MS * 1000 / 20, "a held vCPU takes no time: %lld us in %d ms",
		(long long)us, QUIET_MS);
}

/* A VMM changes memslots at any time: that waits for readers of kvm->srcu */
static bool slot_done;

static void *change_slots(void *arg)
{
	struct kvm_userspace_memory_region region = {
		.slot = 6, .guest_phys_addr = KG_VGA, .memory_size = KG_VGA_SIZE,
		.userspace_addr = (uintptr_t)vm->vga,
	};
	int i;

	(void)arg;
	for (i = 0; i < 5; i++) {
		region.memory_size = 0;
		if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region))
			return NULL;
		region.memory_size = KG_VGA_SIZE;
		if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region))
			return NULL;
	}
	__atomic_store_n(&slot_done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static void memslots(void)
{
	pthread_t thread;
	u64 begin = kg_now_ms();

	if (pthread_create(&thread, NULL, change_slots, NULL))
		ktap_bail("cannot create a thread");
	if (!ktap_ok(kg_until(__atomic_load_n(&slot_done, __ATOMIC_SEQ_CST), SOON_MS),
		     "memslots can be changed while a vCPU is held: %llu ms",
		     (unsigned long long)(kg_now_ms() - begin)))
		ktap_bail("KVM_SET_USER_MEMORY_REGION hangs");
	pthread_join(thread, NULL);
}

static void bye(void)
{
	struct kg_vcpu *ap = &vm->vcpu[1], *idle = &vm->vcpu[2];
	struct kg_answer a = kg_bye(bsp);

	ktap_ok(a.status == ELASTIC_OK && !strcmp(kg_state(vm), "detached"), "BYE: state: %s",
		kg_state(vm));
	ktap_ok(stands(ap), "BYE keeps the hold");
	kg_go(idle);
	kg_start_ap(idle);
	ktap_ok(kg_wait(idle, QUIET_MS) == KG_TIMEOUT, "BYE keeps the hold of a dormant one");
	kg_kick(idle, SOON_MS);
	kg_must_hello(bsp, 1, NULL, 0);
	ktap_ok(stands(ap), "the next HELLO keeps it, too");
}

static void reset(void)
{
	struct kg_vcpu *ap = &vm->vcpu[1];

	kg_set_mp_state(&vm->vcpu[3], KVM_MP_STATE_UNINITIALIZED);
	ktap_ok(!strcmp(kg_state(vm), "managed") && stands(ap),
		"the state of another vCPU set: still %s", kg_state(vm));
	/* The held one stays in KVM_RUN, so nothing but the reset can free it */
	kg_set_mp_state(bsp, KVM_MP_STATE_RUNNABLE);
	ktap_ok(counts(ap), "the state of the BSP set: the held vCPU runs");
	ktap_ok(!strcmp(kg_state(vm), "unmanaged"), "state: %s", kg_state(vm));
	ktap_ok(kg_until(kg_stat(vm, "cpu/grant") == NR_VCPUS, SOON_MS),
		"the grant is the whole ceiling");
	kg_reset(vm);
	kg_must_hello(bsp, 1, NULL, 0);
	kg_go(ap);
	kg_start_ap(ap);
	ktap_ok(kg_wait(ap, QUIET_MS) == KG_TIMEOUT, "after a reset HELLO holds again");
	kg_reset(vm);
	kg_go(ap);
	kg_start_ap(ap);
	ktap_ok(kg_wait(ap, SOON_MS) == KG_ANSWER, "after a reset firmware starts all vCPUs");
}

/* Two VMs of one process: nothing of the one is the other's */
static void two_vms(void)
{
	struct kg_config cfg = { .nr_vcpus = 2 };
	struct kg_vm *other = kg_new(&cfg), *first = vm;
	struct kg_vcpu *ap = &other->vcpu[1];

	kg_reset(first);
	kg_must_hello(&first->vcpu[0], 1, NULL, 0);
	spin(ap);
	kg_must_hello(&other->vcpu[0], 3, NULL, 0);
	ktap_ok(counts(ap), "a VM that holds all its vCPUs runs beside one that does not");
	ktap_ok(strcmp(first->dir, other->dir), "two directories: %s, %s",
		strrchr(first->dir, '/') + 1, strrchr(other->dir, '/') + 1);
	ktap_eq(kg_stat(first, "cpu/grant"), 1, "the grant of the first");
	ktap_eq(kg_stat(other, "cpu/grant"), 2, "the grant of the second");
	kg_release_cpu(&other->vcpu[0], 2);
	ktap_ok(stops_in(ap) >= 0, "the second's vCPU can be held, too");
	kg_request(&first->vcpu[0], 2, 0, 0);
	ktap_ok(stands(ap), "a grant to the first does not free it");
	kg_free(other);
}

/* APIC ids beyond the first word of the set, with gaps */
static void high_ids(void)
{
	static const u32 ids[] = { 0, 64, 130, 4095 };
	struct kg_config cfg = { .nr_vcpus = 4, .ids = ids };
	struct kg_vm *wide = kg_new(&cfg);
	struct kg_vcpu *boot = &wide->vcpu[0];
	struct kg_answer a;
	char list[64];
	unsigned int i;

	kg_must_hello(boot, 1, NULL, 0);
	ktap_eq(kg_stat(wide, "cpu/ceiling"), 4, "ids 0, 64, 130, 4095: cpu/ceiling");
	for (i = 1; i < 4; i++) {
		kg_go(&wide->vcpu[i]);
		kg_start_ap(&wide->vcpu[i]);
	}
	ktap_ok(kg_wait(&wide->vcpu[1], QUIET_MS) == KG_TIMEOUT &&
		kg_wait(&wide->vcpu[3], 1) == KG_TIMEOUT, "none of them starts");
	for (i = 1; i < 4; i++) {
		a = kg_call(boot, KG_OP(ELASTIC_OP_REQUEST, ids[i] / 64, 0, 0), wide->cookie,
			    1ULL << (ids[i] % 64), 0);
		ktap_ok(a.status == ELASTIC_OK && a.rcx == 1ULL << (ids[i] % 64) &&
			kg_wait(&wide->vcpu[i], SOON_MS) == KG_ANSWER,
			"vCPU %u is granted and starts", ids[i]);
	}
	kg_file(wide, "cpu/list", list, sizeof(list));
	ktap_ok(!strcmp(list, "0,64,130,4095"), "cpu/list: %s", list);
	a = kg_call(boot, KG_OP(ELASTIC_OP_RELEASE_CPU, 63, 0, 0), wide->cookie, 1ULL << 63, 0);
	kg_cmd(&wide->vcpu[3], KG_CMD_SPIN, 0, 0, 0);
	kg_go(&wide->vcpu[3]);
	ktap_ok(a.status == ELASTIC_OK && stands(&wide->vcpu[3]), "vCPU 4095 is held again");
	kg_free(wide);
}

/*
 * A VMM that dies. The child brings its VM into the state, says so, and waits
 * for its end.
 */
static void dies(const char *what, void (*bring)(struct kg_vm *vm))
{
	int ready[2];
	char path[64], byte;
	u64 begin;
	pid_t pid;
	int status;

	if (pipe2(ready, O_CLOEXEC))
		ktap_bail("pipe: %s", strerror(errno));
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		ktap_bail("fork: %s", strerror(errno));
	if (!pid) {
		/* The parent's VM stays the parent's: nothing of it is used here */
		bring(fresh_vm());
		byte = access(vm->dir, F_OK) ? 'x' : 'r';
		if (write(ready[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	snprintf(path, sizeof(path), KG_SYSFS "/vms/%d", (int)pid);
	byte = 0;
	if (read(ready[0], &byte, 1) != 1)
		byte = 0;
	close(ready[0]);
	ktap_ok(byte == 'r' && !access(path, F_OK), "VMM %s: it has a directory", what);
	begin = kg_now_ms();
	kill(pid, SIGKILL);
	ktap_ok(kg_until(waitpid(pid, &status, WNOHANG) == pid, SOON_MS) &&
		kg_now_ms() - begin < SOON_MS, "killed %s: it is dead after %llu ms", what,
		(unsigned long long)(kg_now_ms() - begin));
	ktap_ok(kg_until(access(path, F_OK), SOON_MS), "killed %s: its directory is gone", what);
}

static void bring_managed(struct kg_vm *v)
{
	kg_must_hello(&v->vcpu[0], 1, NULL, 0);
}

static void bring_held(struct kg_vm *v)
{
	spin(&v->vcpu[1]);
	bring_managed(v);
	if (stops_in(&v->vcpu[1]) < 0)
		_exit(1);
}

static void bring_dormant(struct kg_vm *v)
{
	bring_managed(v);
	kg_go(&v->vcpu[1]);
	kg_start_ap(&v->vcpu[1]);
}

static void bring_detached(struct kg_vm *v)
{
	bring_held(v);
	kg_bye(&v->vcpu[0]);
}

static void bring_all(struct kg_vm *v)
{
	bring_held(v);
	kg_go(&v->vcpu[2]);
	kg_start_ap(&v->vcpu[2]);
	/* The BSP goes on calling: let it be killed in the middle of a call */
	kg_cmd(&v->vcpu[0], KG_CMD_SPIN, 0, 0, 0);
	kg_go(&v->vcpu[0]);
}

static void killed(void)
{
	dies("managed", bring_managed);
	dies("with a held vCPU", bring_held);
	dies("with a dormant held vCPU", bring_dormant);
	dies("detached with a held vCPU", bring_detached);
	dies("with all kinds", bring_all);
	ktap_ok(kg_until(host_stat("cpu/used") == 0, SOON_MS), "nothing is used of the pool: %lld",
		(long long)host_stat("cpu/used"));
}

/* The module goes: what it held runs */
static void unloaded(void)
{
	struct kg_vcpu *ap, *idle;
	struct kg_answer a;
	u64 begin;
	int ret;

	if (!getenv("ELASTIC_HOST_KO")) {
		ktap_skip("ELASTIC_HOST_KO names no module to load afterwards",
			  "the module is unloaded");
		return;
	}
	fresh_vm();
	ap = &vm->vcpu[1];
	idle = &vm->vcpu[2];
	spin(ap);
	kg_must_hello(bsp, 1, NULL, 0);
	kg_go(idle);
	kg_start_ap(idle);
	ktap_ok(stops_in(ap) >= 0 && kg_wait(idle, QUIET_MS) == KG_TIMEOUT,
		"two vCPUs are held when the module goes");
	begin = kg_now_ms();
	ret = host_module_unload();
	ktap_ok(!ret && kg_now_ms() - begin < UNLOAD_MS, "it can be unloaded: %s, in %llu ms",
		ret ? strerror(-ret) : "yes", (unsigned long long)(kg_now_ms() - begin));
	ktap_ok(counts(ap), "the one that ran runs on");
	ktap_ok(kg_wait(idle, SOON_MS) == KG_ANSWER, "the dormant one starts");
	a = kg_call(bsp, ELASTIC_OP_REPORT, vm->cookie, KG_ARGS, 128);
	ktap_eq(a.status, KG_ENOSYS, "without the module");
	ktap_eq(host_module_load(), 0, "it can be loaded again");
	a = kg_call(bsp, ELASTIC_OP_REPORT, vm->cookie, KG_ARGS, 128);
	ktap_eq(a.status, ELASTIC_E_STALE, "the session of before is stale");
	ktap_ok(counts(ap), "a VM that has not said HELLO to it runs");
	vm->dir[0] = 0;
	kg_must_hello(bsp, 1, NULL, 0);
	ktap_ok(stops_in(ap) >= 0, "HELLO holds again");
	kg_free(vm);
}

int main(void)
{
	host_module_need();
	fresh_vm();
	running_at_hello();
	released();
	dormant();
	signals_and_queries();
	interrupts();
	sleeps();
	memslots();
	bye();
	reset();
	two_vms();
	kg_free(vm);
	high_ids();
	killed();
	unloaded();
	return ktap_finish();
}
