// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/kernel/elastic_host: every file's presence, mode and owner, good writes,
 * bad writes with their errno (and nothing changed by them), and directories
 * that come and go with their VMs.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ktap.h"
#include "kvm_guest.h"

#define SOON_MS	30000

struct file {
	const char *path;
	mode_t mode;
};

static const struct file host_files[] = {
	{ "abi_version", 0444 }, { "cpu/pool", 0644 }, { "cpu/used", 0444 },
	{ "cpu/overcommit", 0644 }, { "cpu/reserve", 0644 }, { "cpu/default_min", 0644 },
	{ "cpu/deadline_ms", 0644 }, { "cpu/growth", 0644 }, { "cpu/advice", 0444 },
	{ "cpu/placement", 0644 },
	{ "advice_ms", 0644 }, { "memory/advice", 0444 },
	{ "memory/pool_mib", 0644 }, { "memory/used_mib", 0444 }, { "memory/now_mib", 0444 },
	{ "memory/reserve_mib", 0644 }, { "memory/low_mib", 0644 },
	{ "memory/default_min_mib", 0644 }, { "memory/deadline_ms", 0644 },
	{ "memory/growth", 0644 },
};

static const struct file vm_files[] = {
	{ "state", 0444 }, { "uncooperative", 0444 },
	{ "cpu/ceiling", 0444 }, { "cpu/grant", 0444 }, { "cpu/list", 0444 },
	{ "cpu/use", 0444 }, { "cpu/min", 0644 }, { "cpu/max", 0644 },
	{ "memory/ceiling_mib", 0444 }, { "memory/grant_mib", 0444 },
	{ "cpu/weight", 0644 }, { "cpu/entitled", 0444 }, { "cpu/busy", 0444 },
	{ "cpu/need", 0444 }, { "cpu/target", 0444 }, { "cpu/seized", 0444 },
	{ "cpu/placed", 0444 },
	{ "memory/weight", 0644 }, { "memory/entitled_mib", 0444 },
	{ "memory/busy_mib", 0444 }, { "memory/need_mib", 0444 },
	{ "memory/target_mib", 0444 },
	{ "memory/use_mib", 0444 }, { "memory/min_mib", 0644 }, { "memory/max_mib", 0644 },
	{ "stats/hello", 0444 }, { "stats/report", 0444 }, { "stats/request", 0444 },
	{ "stats/release_cpu", 0444 }, { "stats/release_mem", 0444 },
	{ "stats/discard", 0444 }, { "stats/bye", 0444 },
	{ "stats/stale", 0444 }, { "stats/invalid", 0444 }, { "stats/fault", 0444 },
	{ "stats/nosys", 0444 }, { "stats/refused_max", 0444 },
	{ "stats/refused_pool", 0444 }, { "stats/refused_ceiling", 0444 },
	{ "stats/refused_rate", 0444 }, { "stats/uncooperative", 0444 },
	{ "stats/forgiven", 0444 }, { "stats/seized", 0444 },
	{ "stats/held", 0444 }, { "stats/gated", 0444 }, { "stats/taken_bytes", 0444 },
	{ "stats/unreclaimed_bytes", 0444 }, { "stats/discarded_bytes", 0444 },
};

#define NR(array) (sizeof(array) / sizeof(*(array)))

static struct kg_vm *vm;
static struct kg_vcpu *bsp;

static int read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, text, size - 1);
	int ret = len < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	text[len > 0 ? len : 0] = 0;
	if (len > 0 && text[len - 1] == '\n')
		text[len - 1] = 0;
	return ret;
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

/* Files below @dir that are not in @files, and all that there is counted */
static unsigned int strangers(const char *dir, const char *below, const struct file *files,
			      unsigned int nr, unsigned int *found)
{
	char path[768], name[512];
	unsigned int n = 0, i;
	struct dirent *entry;
	struct stat st;
	DIR *d;

	snprintf(path, sizeof(path), "%s/%s", dir, below);
	d = opendir(path);
	while (d && (entry = readdir(d))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s%s%.200s", below, *below ? "/" : "",
			 entry->d_name);
		snprintf(path, sizeof(path), "%s/%s", dir, name);
		if (lstat(path, &st) || st.st_uid || st.st_gid) {
			ktap_diag("%s does not belong to root", path);
			n++;
		}
		if (S_ISDIR(st.st_mode)) {
			if (strcmp(name, "vms"))
				n += strangers(dir, name, files, nr, found);
			continue;
		}
		for (i = 0; i < nr && strcmp(files[i].path, name); i++)
			;
		if (i == nr) {
			ktap_diag("what is %s?", path);
			n++;
		}
		++*found;
	}
	if (d)
		closedir(d);
	return n;
}

static void check_files(const char *what, const char *dir, const struct file *files,
			unsigned int nr)
{
	unsigned int found = 0, i, odd;
	char path[512], text[256];
	struct stat st;

	for (i = 0; i < nr; i++) {
		int ret;

		snprintf(path, sizeof(path), "%s/%s", dir, files[i].path);
		if (stat(path, &st)) {
			ktap_ok(false, "%s: %s: %s", what, files[i].path, strerror(errno));
			continue;
		}
		ret = read_text(path, text, sizeof(text));
		ktap_ok((st.st_mode & 07777) == files[i].mode && !ret && text[0] &&
			!strchr(text, '\n'), "%s: %s: mode %o, one line: \"%s\"", what,
			files[i].path, st.st_mode & 07777, text);
	}
	odd = strangers(dir, "", files, nr, &found);
	ktap_ok(!odd && found == nr, "%s: these %u files and no others, all of root's", what, nr);
}

/* Files that are 0444 cannot be written even by root, and nothing changes */
static void check_read_only(const char *what, const char *dir, const struct file *files,
			    unsigned int nr)
{
	char path[512], before[256], after[256];
	unsigned int i, good = 0, all = 0;

	for (i = 0; i < nr; i++) {
		int ret;

		if (files[i].mode != 0444)
			continue;
		all++;
		snprintf(path, sizeof(path), "%s/%s", dir, files[i].path);
		read_text(path, before, sizeof(before));
		ret = write_text(path, "1\n");
		read_text(path, after, sizeof(after));
		if (ret < 0 && !strcmp(before, after))
			good++;
		else
			ktap_diag("%s: %d, \"%s\" before, \"%s\" after", path, ret, before, after);
	}
	ktap_eq(good, all, "%s: read-only files refuse to be written", what);
}

static const char *short_name(const char *path)
{
	const char *vms = strstr(path, "/vms/");
	const char *rest = vms ? strchr(vms + 5, '/') : NULL;

	return rest ? rest + 1 : path + strlen(KG_SYSFS) + 1;
}

static void bad(const char *path, const char *value, int error, const char *what)
{
	char before[256], after[256];
	int ret;

	read_text(path, before, sizeof(before));
	ret = write_text(path, value);
	read_text(path, after, sizeof(after));
	if (ret != error || strcmp(before, after))
		ktap_diag("\"%s\": %s; \"%s\" before, \"%s\" after", value, strerror(-ret),
			  before, after);
	ktap_ok(ret == error && !strcmp(before, after), "%s: %s: %s", short_name(path), what,
		strerror(-error));
}

static void good(const char *path, const char *value)
{
	char after[256];
	int ret = write_text(path, value);

	read_text(path, after, sizeof(after));
	ktap_ok(!ret && !strcmp(after, value), "%s: %s is taken: %s, \"%s\"", short_name(path),
		value, ret ? strerror(-ret) : "yes", after);
}

static void bad_numbers(const char *path)
{
	bad(path, "\n", -EINVAL, "nothing");
	bad(path, "many\n", -EINVAL, "a word");
	bad(path, "-2\n", -EINVAL, "a negative number");
	bad(path, "2.0\n", -EINVAL, "a fraction");
	bad(path, "2 4\n", -EINVAL, "two numbers");
	bad(path, "2MiB\n", -EINVAL, "a number with a unit");
	bad(path, "36893488147419103232\n", -ERANGE, "2^65");
}

static const char *vm_path(const char *file)
{
	static char path[4][512];
	static unsigned int i;

	i = (i + 1) % 4;
	snprintf(path[i], sizeof(path[i]), "%s/%s", vm->dir, file);
	return path[i];
}

static void is(const char *file, const char *want, const char *what)
{
	char text[256];

	read_text(vm_path(file), text, sizeof(text));
	ktap_ok(!strcmp(text, want), "%s: %s: %s", what, file, text);
	if (strcmp(text, want))
		ktap_diag("want %s", want);
}

static unsigned int nr_vms(void)
{
	DIR *d = opendir(KG_SYSFS "/vms");
	struct dirent *entry;
	unsigned int n = 0;

	if (!d)
		ktap_bail(KG_SYSFS "/vms: %s", strerror(errno));
	while ((entry = readdir(d)))
		n += entry->d_name[0] != '.';
	closedir(d);
	return n;
}

#define CPU_POOL KG_SYSFS "/cpu/pool"
#define MEM_POOL KG_SYSFS "/memory/pool_mib"

static char cpu_pool[32], mem_pool[32];
static pid_t main_pid;

static void restore_pools(void)
{
	if (getpid() == main_pid) {
		write_text(CPU_POOL, cpu_pool);
		write_text(MEM_POOL, mem_pool);
	}
}

static void pools(void)
{
	main_pid = getpid();
	read_text(CPU_POOL, cpu_pool, sizeof(cpu_pool));
	read_text(MEM_POOL, mem_pool, sizeof(mem_pool));
	atexit(restore_pools);

	check_files("host", KG_SYSFS, host_files, NR(host_files));
	check_read_only("host", KG_SYSFS, host_files, NR(host_files));
	ktap_eq(host_stat("abi_version"), ELASTIC_VERSION, "abi_version");
	ktap_ok(host_stat("cpu/pool") > 0 && host_stat("memory/pool_mib") > 0,
		"by default the pools have something to give");
	ktap_eq(host_stat("memory/pool_mib") % 2, 0, "memory/pool_mib is whole units");
	ktap_eq(host_stat("cpu/used") + host_stat("memory/used_mib"), 0,
		"nothing is used without a VM");
	ktap_eq(nr_vms(), 0, "no directory without a VM");
	bad_numbers(CPU_POOL);
	bad_numbers(MEM_POOL);
	bad(CPU_POOL, "4294967296\n", -ERANGE, "2^32");
	bad(MEM_POOL, "3\n", -EINVAL, "half a unit");
	bad(MEM_POOL, "4001\n", -EINVAL, "half a unit too much");
	good(CPU_POOL, "0");
	good(CPU_POOL, "4000");
	good(MEM_POOL, "0");
	good(MEM_POOL, "4000");
	good(MEM_POOL, "4000000");
}

/* Numbers in bounds: taken, refused, and as they were again */
static void tunable(const char *file, const char *value, const char *low, const char *high)
{
	char path[128], before[32];

	snprintf(path, sizeof(path), KG_SYSFS "/%s", file);
	read_text(path, before, sizeof(before));
	bad_numbers(path);
	good(path, value);
	if (low)
		bad(path, low, -ERANGE, "too little");
	bad(path, high, -ERANGE, "too much");
	good(path, before);
}

static void tunables(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	s64 pool = host_stat("memory/pool_mib"), reserve;
	char text[32];

	tunable("cpu/deadline_ms", "1000", "99\n", "3600001\n");
	tunable("memory/deadline_ms", "1000", "99\n", "3600001\n");
	tunable("advice_ms", "1000", "99\n", "3600001\n");
	tunable("cpu/growth", "50", "0\n", "1001\n");
	tunable("memory/growth", "50", "0\n", "1001\n");
	tunable("cpu/default_min", "2", NULL, "4097\n");
	tunable("memory/default_min_mib", "64", NULL, "8589934592\n");
	tunable("memory/low_mib", "64", NULL, "8589934592\n");
	bad(KG_SYSFS "/memory/default_min_mib", "63\n", -EINVAL, "half a unit");

	bad_numbers(KG_SYSFS "/cpu/overcommit");
	bad(KG_SYSFS "/cpu/overcommit", "0\n", -ERANGE, "nothing for a CPU");
	bad(KG_SYSFS "/cpu/overcommit", "10001\n", -ERANGE, "too much");
	good(KG_SYSFS "/cpu/overcommit", "250");
	ktap_eq(host_stat("cpu/pool"), cpus * 250 / 100, "2.5 vCPUs for each CPU");
	bad_numbers(KG_SYSFS "/cpu/reserve");
	snprintf(text, sizeof(text), "%ld\n", cpus);
	bad(KG_SYSFS "/cpu/reserve", text, -ERANGE, "all CPUs");
	good(KG_SYSFS "/cpu/overcommit", "400");
	if (cpus > 1) {
		good(KG_SYSFS "/cpu/reserve", "1");
		ktap_eq(host_stat("cpu/pool"), (cpus - 1) * 4, "4 for each but one");
	} else {
		ktap_skip("the host has one CPU", "a CPU in reserve");
	}
	good(KG_SYSFS "/cpu/reserve", "0");
	ktap_eq(host_stat("cpu/pool"), cpus * 4, "4 for each CPU");

	reserve = host_stat("memory/reserve_mib");
	bad_numbers(KG_SYSFS "/memory/reserve_mib");
	bad(KG_SYSFS "/memory/reserve_mib", "8589934592\n", -ERANGE, "more than there is");
	bad(KG_SYSFS "/memory/reserve_mib", "63\n", -EINVAL, "half a unit");
	snprintf(text, sizeof(text), "%lld", (long long)reserve + 64);
	good(KG_SYSFS "/memory/reserve_mib", text);
	ktap_eq(host_stat("memory/pool_mib"), pool - 64, "64 MiB more in reserve");
	snprintf(text, sizeof(text), "%lld", (long long)reserve);
	good(KG_SYSFS "/memory/reserve_mib", text);
	ktap_eq(host_stat("memory/pool_mib"), pool, "and back in the pool");
	ktap_eq(host_stat("memory/now_mib"), pool, "all of the pool is there");
}

static void one_vm(void)
{
	struct kg_config cfg = { .nr_vcpus = 4 };	/* 64 MiB: 31 units */
	struct elastic_range absent = { 16, 8 };
	char path[64];

	vm = kg_new(&cfg);
	bsp = &vm->vcpu[0];
	ktap_eq(nr_vms(), 0, "a VM that never said HELLO has no directory");
	kg_must_hello(bsp, 1, &absent, 1);
	snprintf(path, sizeof(path), KG_SYSFS "/vms/%d", (int)getpid());
	ktap_ok(!strcmp(vm->dir, path) && nr_vms() == 1, "HELLO makes the directory %s", vm->dir);
	check_files("VM", vm->dir, vm_files, NR(vm_files));
	check_read_only("VM", vm->dir, vm_files, NR(vm_files));
	is("state", "managed", "after HELLO");
	is("cpu/ceiling", "4", "after HELLO");
	is("cpu/grant", "1", "after HELLO");
	is("cpu/list", "0", "after HELLO");
	is("cpu/min", "0", "by default");
	is("cpu/max", "4", "by default");
	is("memory/ceiling_mib", "62", "after HELLO");
	is("memory/grant_mib", "46", "after HELLO");
	is("memory/min_mib", "0", "by default");
	is("memory/max_mib", "62", "by default");
	is("cpu/weight", "100", "by default");
	is("memory/weight", "100", "by default");
	is("uncooperative", "none", "after HELLO");
	is("stats/hello", "1", "after HELLO");
	ktap_eq(host_stat("cpu/used"), 1, "cpu/used");
	ktap_eq(host_stat("memory/used_mib"), 46, "memory/used_mib");
}

static void limits(void)
{
	bad_numbers(vm_path("cpu/min"));
	bad_numbers(vm_path("cpu/max"));
	bad_numbers(vm_path("memory/min_mib"));
	bad_numbers(vm_path("memory/max_mib"));
	bad(vm_path("cpu/max"), "0\n", -ERANGE, "no vCPU at all");
	bad(vm_path("cpu/max"), "5\n", -ERANGE, "above the ceiling");
	bad(vm_path("cpu/max"), "4294967297\n", -ERANGE, "2^32 + 1");
	good(vm_path("cpu/max"), "3");
	bad(vm_path("cpu/min"), "4\n", -EINVAL, "above the maximum");
	good(vm_path("cpu/min"), "2");
	bad(vm_path("cpu/max"), "1\n", -EINVAL, "below the minimum");
	ktap_eq(host_stat("cpu/used"), 2, "the pool keeps the minimum free");
	good(vm_path("cpu/min"), "3");
	good(vm_path("cpu/min"), "0");
	ktap_eq(host_stat("cpu/used"), 1, "and gets it back");
	good(vm_path("cpu/max"), "4");
	bad(vm_path("memory/max_mib"), "61\n", -EINVAL, "half a unit less");
	bad(vm_path("memory/max_mib"), "64\n", -ERANGE, "above the ceiling");
	bad(vm_path("memory/min_mib"), "3\n", -EINVAL, "half a unit more");
	good(vm_path("memory/max_mib"), "40");
	bad(vm_path("memory/min_mib"), "42\n", -EINVAL, "above the maximum");
	good(vm_path("memory/min_mib"), "20");
	bad(vm_path("memory/max_mib"), "18\n", -EINVAL, "below the minimum");
	good(vm_path("memory/min_mib"), "40");
	good(vm_path("memory/min_mib"), "0");
	good(vm_path("memory/max_mib"), "62");

	bad_numbers(vm_path("cpu/weight"));
	bad_numbers(vm_path("memory/weight"));
	bad(vm_path("cpu/weight"), "0\n", -ERANGE, "no weight at all");
	bad(vm_path("cpu/weight"), "10001\n", -ERANGE, "too much");
	bad(vm_path("memory/weight"), "0\n", -ERANGE, "no weight at all");
	good(vm_path("cpu/weight"), "10000");
	good(vm_path("memory/weight"), "1");
	good(vm_path("cpu/weight"), "100");
	good(vm_path("memory/weight"), "100");

	good(CPU_POOL, "3");
	good(MEM_POOL, "40");
	bad(vm_path("cpu/min"), "4\n", -ENOSPC, "more than the pool");
	bad(vm_path("memory/min_mib"), "42\n", -ENOSPC, "more than the pool");
	good(vm_path("cpu/min"), "3");
	bad(CPU_POOL, "2\n", -EBUSY, "less than the minimums");
	good(CPU_POOL, "4");
	good(vm_path("cpu/min"), "0");
	good(CPU_POOL, "4000");
	good(MEM_POOL, "4000000");
}

/* Limits lowered while in use: nothing is taken, the next REPORT says it */
static void lowered(void)
{
	struct kg_answer a = kg_request(bsp, 0xe, 16, 8);

	ktap_ok(a.status == ELASTIC_OK && a.rcx == 0xe && a.rdx == 8, "all is granted");
	is("cpu/list", "0-3", "all is granted");
	good(vm_path("cpu/max"), "2");
	good(vm_path("memory/max_mib"), "50");
	is("cpu/grant", "4", "lower maximums take nothing");
	is("memory/grant_mib", "62", "lower maximums take nothing");
	a = kg_report(bsp);
	ktap_ok(a.status == ELASTIC_OK && (a.rbx & 0xffffffff) == 2 && a.rcx == 25,
		"REPORT brings the lower targets: %llu vCPUs, %llu units",
		(unsigned long long)(a.rbx & 0xffffffff), (unsigned long long)a.rcx);
	ktap_ok(a.rbx >> 32 == 4 && a.rdx == 31, "and what is granted: %llu, %llu",
		(unsigned long long)(a.rbx >> 32), (unsigned long long)a.rdx);
	kg_release_cpu(bsp, 0xc);
	kg_release_mem(bsp, 16, 6);
	is("cpu/grant", "2", "the guest comes down");
	is("memory/grant_mib", "50", "the guest comes down");
	a = kg_request(bsp, 4, 0, 0);
	ktap_ok(a.status == ELASTIC_REFUSED && a.rbx == ELASTIC_R_MAX, "and gets no more");
	is("stats/refused_max", "1", "refused");
	good(vm_path("cpu/max"), "4");
	good(vm_path("memory/max_mib"), "62");

	good(CPU_POOL, "1");
	ktap_eq(host_stat("cpu/used"), 2, "a pool below its use takes nothing");
	is("cpu/grant", "2", "a pool below its use");
	a = kg_request(bsp, 4, 0, 0);
	ktap_ok(a.status == ELASTIC_REFUSED && a.rbx == ELASTIC_R_POOL, "and gives nothing");
	is("stats/refused_pool", "1", "refused");
	good(CPU_POOL, "4000");
	ktap_eq(kg_request(bsp, 4, 0, 0).status, ELASTIC_OK, "until it has more");
}

static void states(void)
{
	kg_bye(bsp);
	is("state", "detached", "after BYE");
	is("cpu/grant", "3", "after BYE");
	good(vm_path("cpu/max"), "3");
	kg_reset(vm);
	is("state", "unmanaged", "after a reset");
	ktap_ok(kg_until(kg_stat(vm, "cpu/grant") == 4 && kg_stat(vm, "memory/grant_mib") == 62,
			 SOON_MS), "after a reset the grant is the ceiling");
	is("cpu/list", "0-3", "after a reset");
	ktap_ok(kg_until(!host_stat("cpu/used") && !host_stat("memory/used_mib"), SOON_MS),
		"after a reset no pool pays");
	kg_must_hello(bsp, 1, NULL, 0);
	is("cpu/max", "3", "the administrator's maximum outlives a reset");
	is("stats/hello", "2", "counters do, too");
}

static void end_of_vm(void)
{
	char dir[256], text[16];
	int fd = open(vm_path("state"), O_RDONLY | O_CLOEXEC);
	ssize_t len;

	snprintf(dir, sizeof(dir), "%s", vm->dir);
	kg_free(vm);
	ktap_ok(kg_until(access(dir, F_OK), SOON_MS), "the directory goes with the VM");
	len = read(fd, text, sizeof(text));
	ktap_ok(fd >= 0 && len < 0 && errno == ENODEV, "a file that is open does not outlive it");
	close(fd);
	ktap_ok(kg_until(!host_stat("cpu/used") && !host_stat("memory/used_mib"), SOON_MS),
		"the pools have all of it back");
}

/* Reads and writes whatever there is, for ever */
static void stir(const char *dir)
{
	char path[512], text[4096];
	struct dirent *entry;
	unsigned int i;
	DIR *d;

	d = opendir(dir);
	while (d && (entry = readdir(d))) {
		if (entry->d_name[0] == '.')
			continue;
		for (i = 0; i < NR(vm_files); i++) {
			snprintf(path, sizeof(path), "%s/%.200s/%s", dir, entry->d_name,
				 vm_files[i].path);
			read_text(path, text, sizeof(text));
			if (vm_files[i].mode == 0644)
				write_text(path, i % 2 ? "2" : "0");
		}
	}
	if (d)
		closedir(d);
}

static void come_and_go(void)
{
	struct kg_config cfg = { .nr_vcpus = 2, .ram = 32 << 20 };
	pid_t reader, pid;
	unsigned int i, fine = 0;
	int status;

	fflush(stdout);
	reader = fork();
	if (!reader) {
		for (;;)
			stir(KG_SYSFS "/vms");
	}
	for (i = 0; i < 20; i++) {
		pid = fork();
		if (!pid) {
			vm = kg_new(&cfg);
			kg_must_hello(&vm->vcpu[0], 1, NULL, 0);
			kg_request(&vm->vcpu[0], 2, 0, 0);
			if (i % 2)
				kill(getpid(), SIGKILL);
			kg_free(vm);
			_exit(0);
		}
		if (pid > 0 && waitpid(pid, &status, 0) == pid &&
		    (i % 2 ? WIFSIGNALED(status) : WIFEXITED(status) && !WEXITSTATUS(status)))
			fine++;
	}
	ktap_ok(kg_until(nr_vms() == 0, SOON_MS) && fine == 20,
		"%u of 20 VMs came and went while their files were in use", fine);
	kill(reader, SIGKILL);
	waitpid(reader, &status, 0);
	ktap_ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "whoever used them is well");
	ktap_ok(kg_until(!host_stat("cpu/used") && !host_stat("memory/used_mib"), SOON_MS),
		"the pools have all of it back");
}

int main(void)
{
	host_module_need();
	tunables();
	pools();
	one_vm();
	limits();
	lowered();
	states();
	end_of_vm();
	come_and_go();
	return ktap_finish();
}
