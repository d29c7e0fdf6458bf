// SPDX-License-Identifier: GPL-2.0-only
/*
 * A VM at the command of a script: one command per line of standard input, one
 * line of answer each, "ok ..." or "error ...". Ends with its input.
 *
 *	vmctl [-v VCPUS] [-m MIB] [-b memfd|anon|hugetlb]
 *
 * What the guest does on vCPU 0:
 *	hello MASK [FIRST NR]	vCPUs held, units absent
 *	request MASK FIRST NR	release_cpu MASK	release_mem FIRST NR
 *	report			bye
 *	call RBX RCX RDX RSI	any call	stale	one with a wrong cookie
 *	touch UNIT		write into a unit: "ok" or "error EFAULT"
 *	start VCPU		INIT and SIPI, then count; does not wait
 * and answers to a call are "ok STATUS RBX RCX RDX" in signed and hexadecimal.
 * What the VMM does:
 *	count VCPU		how far the vCPU has counted
 *	kick VCPU		a signal, and KVM_RUN again
 *	reset			as system_reset
 *	dir			the VM's directory in sysfs
 *	storm SECONDS		hypercalls of all kinds as fast as it goes: how many
 *	ping
 */
#include <unistd.h>

#include "ktap.h"
#include "kvm_guest.h"

static struct kg_vm *vm;
static struct kg_vcpu *bsp;
static u64 arg[4];
static unsigned int nr_args;

static void answer(struct kg_answer a)
{
	printf("ok %lld %llx %llx %llx\n", (long long)a.status, (unsigned long long)a.rbx,
	       (unsigned long long)a.rcx, (unsigned long long)a.rdx);
}

static void do_hello(void)
{
	struct elastic_range absent = { arg[1], arg[2] };

	answer(kg_hello(bsp, arg[0], &absent, arg[2] ? 1 : 0));
}

static void do_request(void)
{
	answer(kg_request(bsp, arg[0], arg[1], arg[2]));
}

static void do_release_cpu(void)
{
	answer(kg_release_cpu(bsp, arg[0]));
}

static void do_release_mem(void)
{
	answer(kg_release_mem(bsp, arg[0], arg[1]));
}

static void do_report(void)
{
	answer(kg_report(bsp));
}

static void do_bye(void)
{
	answer(kg_bye(bsp));
}

static void do_call(void)
{
	answer(kg_call(bsp, arg[0], arg[1], arg[2], arg[3]));
}

static void do_stale(void)
{
	answer(kg_call(bsp, ELASTIC_OP_REQUEST, vm->cookie ^ 1, 0, 0));
}

static void do_touch(void)
{
	enum kg_end end = kg_do(bsp, KG_CMD_WRITE, arg[0] << ELASTIC_UNIT_SHIFT, 1, 0);

	if (end == KG_ANSWER) {
		printf("ok\n");
	} else {
		printf("error %s\n", kg_end_name(end));
		kg_abandon(bsp);
	}
}

static struct kg_vcpu *the_vcpu(void)
{
	return arg[0] < vm->nr_vcpus ? &vm->vcpu[arg[0]] : NULL;
}

static void do_start(void)
{
	struct kg_vcpu *ap = the_vcpu();

	if (!ap || ap == bsp) {
		printf("error no such vCPU\n");
		return;
	}
	if (!kg_is_running(ap))
		kg_go(ap);
	kg_start_ap(ap);
	printf("ok\n");
}

/* An AP that has answered its start is sent on to count */
static void keep_counting(void)
{
	unsigned int i;

	for (i = 1; i < vm->nr_vcpus; i++) {
		struct kg_vcpu *ap = &vm->vcpu[i];

		if (!ap->has_thread || kg_is_running(ap))
			continue;
		if (kg_wait(ap, 0) == KG_ANSWER)
			kg_cmd(ap, KG_CMD_SPIN, 0, 0, 0);
		kg_go(ap);
	}
}

static void do_count(void)
{
	struct kg_vcpu *ap = the_vcpu();

	if (!ap)
		printf("error no such vCPU\n");
	else
		printf("ok %llu\n", (unsigned long long)ap->mb->counter);
}

static void do_kick(void)
{
	struct kg_vcpu *ap = the_vcpu();

	if (!ap || !ap->has_thread || !kg_is_running(ap)) {
		printf("error it does not run\n");
		return;
	}
	printf("ok %s\n", kg_end_name(kg_kick(ap, 10000)));
}

static void do_reset(void)
{
	kg_reset(vm);
	printf("ok\n");
}

static void do_dir(void)
{
	if (vm->dir[0])
		printf("ok %s\n", vm->dir);
	else
		printf("error no HELLO yet\n");
}

/* Everything that changes the grant, and REPORTs, in turn */
static void do_storm(void)
{
	u64 end = kg_now_ms() + arg[0] * 1000, calls = 0;

	while (kg_now_ms() < end) {
		kg_request(bsp, ~1ULL, 8, 8);
		/* Refused by a limit: then the gate stops it */
		if (kg_do(bsp, KG_CMD_WRITE, 8ULL << ELASTIC_UNIT_SHIFT, 1, 0) != KG_ANSWER)
			kg_abandon(bsp);
		kg_report(bsp);
		kg_release_mem(bsp, 8, 8);
		kg_release_cpu(bsp, ~1ULL);
		calls += 4;
		/* The module went and came: the guest's way to go on */
		if (kg_report(bsp).status == ELASTIC_E_STALE) {
			vm->dir[0] = 0;
			kg_hello(bsp, 1, NULL, 0);
		}
		keep_counting();
	}
	printf("ok %llu\n", (unsigned long long)calls);
}

static void do_ping(void)
{
	printf("ok\n");
}

static const struct {
	const char *name;
	unsigned int min_args;
	void (*run)(void);
} commands[] = {
	{ "hello", 1, do_hello }, { "request", 3, do_request },
	{ "release_cpu", 1, do_release_cpu }, { "release_mem", 2, do_release_mem },
	{ "report", 0, do_report }, { "bye", 0, do_bye }, { "call", 4, do_call },
	{ "stale", 0, do_stale }, { "touch", 1, do_touch }, { "start", 1, do_start },
	{ "count", 1, do_count }, { "kick", 1, do_kick }, { "reset", 0, do_reset },
	{ "dir", 0, do_dir }, { "storm", 1, do_storm }, { "ping", 0, do_ping },
};

static void command(char *line)
{
	char *state, *name = strtok_r(line, " \t\n", &state), *word;
	unsigned int i;

	if (!name)
		return;
	memset(arg, 0, sizeof(arg));
	for (nr_args = 0; nr_args < 4 && (word = strtok_r(NULL, " \t\n", &state)); nr_args++)
		arg[nr_args] = strtoull(word, NULL, 0);
	for (i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		if (strcmp(commands[i].name, name))
			continue;
		if (nr_args < commands[i].min_args)
			break;
		keep_counting();
		commands[i].run();
		return;
	}
	printf("error what is \"%s\"?\n", name);
}

int main(int argc, char **argv)
{
	struct kg_config cfg = { .nr_vcpus = 4 };
	char line[256];
	int opt;

	while ((opt = getopt(argc, argv, "v:m:b:")) != -1) {
		switch (opt) {
		case 'v':
			cfg.nr_vcpus = (unsigned int)atoi(optarg);
			break;
		case 'm':
			cfg.ram = strtoull(optarg, NULL, 0) << 20;
			break;
		case 'b':
			cfg.backend = !strcmp(optarg, "anon") ? KG_ANON :
				      !strcmp(optarg, "hugetlb") ? KG_HUGETLB : KG_MEMFD;
			break;
		default:
			fprintf(stderr, "usage: vmctl [-v VCPUS] [-m MIB] [-b BACKEND]\n");
			return 2;
		}
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	vm = kg_new(&cfg);
	bsp = &vm->vcpu[0];
	while (fgets(line, sizeof(line), stdin))
		command(line);
	kg_free(vm);
	return 0;
}
