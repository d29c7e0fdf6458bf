// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ordinary programs for a guest, and stop-watches; see usage().
 *
 * Times are printed as TSC values too: KVM tells the offset between a guest's
 * and its host's counter, so that events of both sides fit on one time line.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "elastic_hypercall.h"

#define MIB		(1ULL << 20)
#define NSEC		1000000000ULL
/* Looking costs time, too, more so where CPUs are emulated. */
#define LOOK_NS		2000000
#define SETTLED_NS	500000000ULL
/* A worker looks every so often whether so much memory is left. */
#define POLITE_STEP	(4 * MIB)
#define POLITE_LEFT	(32 * MIB)
#define ONLINE_LIMIT	(30 * NSEC)	/* how long to wait for CPUs or memory */

static void usage(void)
{
	fputs("usage: load spin N SECONDS [CPUS]   N busy processes; with CPUS: time from one to so many\n"
	      "       load touch MIB [SECONDS]     write MIB of memory, hold it, check it\n"
	      "       load pin MIB HOLD SECONDS    the same; then all of it goes but for one page of each\n"
	      "                                    32 MiB, which a pipe holds in its place for SECONDS\n"
	      "       load work N MIB SECONDS MS   N workers that fill MIB each, no faster than there is\n"
	      "                                    memory, and until SECONDS have passed look at a quarter\n"
	      "                                    of it and wait MS, again and again: items done\n"
	      "       load kernel KIND MIB         have the kernel take MIB for itself; KIND is one of\n"
	      "                                    pipes, sockets, files (small ones of tmpfs)\n"
	      "       load cpus N [FILE]           write N to FILE; bring CPUs that are added online, as\n"
	      "                                    udev would; time until tasks have run on N (0: never)\n"
	      "       load write FILE TEXT         one write: its errno and its time\n"
	      "       load grown MIB               wait until the kernel has so much memory more\n"
	      "       load call                    a HELLO from user space: its status\n"
	      "       load tsc                     the TSC and CLOCK_MONOTONIC now\n", stderr);
	exit(2);
}

static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("load: ", stderr);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, 0);
	if (errno || end == text || *end)
		usage();
	return n;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC + ts.tv_nsec;
}

static void nap_ns(uint64_t ns)
{
	struct timespec ts = { .tv_sec = ns / NSEC, .tv_nsec = ns % NSEC };

	nanosleep(&ts, NULL);
}

/* "WHAT tsc=T ns=N": when something happened, and how long after @start. */
static void event(const char *what, uint64_t start)
{
	uint64_t tsc = __rdtsc();
	uint64_t ns = now_ns();

	printf("%s tsc=%llu ns=%llu\n", what, (unsigned long long)tsc,
	       (unsigned long long)(ns - start));
	fflush(stdout);
}

/* A stop-watch must run when its moment comes, whatever load there is. */
static void be_prompt(void)
{
	struct sched_param param = { .sched_priority = 1 };

	sched_setscheduler(0, SCHED_FIFO, &param);
}

static pid_t start_spinner(void)
{
	struct sched_param param = { 0 };
	volatile uint64_t n = 0;
	pid_t pid = fork();

	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid)
		return pid;
	sched_setscheduler(0, SCHED_OTHER, &param);
	for (;;)
		n = n + 1;
}

static uint64_t cpus_online(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN);
}

/*
 * Starting this program may have been reason enough for a CPU more, and giving
 * it back takes a while, too: begin when that is over.
 */
static void settle(void)
{
	uint64_t now = now_ns(), begin = now, since = now;

	while (now - since < SETTLED_NS && now - begin < ONLINE_LIMIT) {
		nap_ns(LOOK_NS);
		now = now_ns();
		if (cpus_online() > 1)
			since = now;
	}
}

static int spin(uint64_t n, uint64_t seconds, uint64_t cpus)
{
	uint64_t start, begin, i;
	pid_t *pids = calloc(n, sizeof(*pids));
	bool late = false;

	if (!pids || !n)
		usage();
	if (cpus) {
		be_prompt();
		settle();
	}
	start = now_ns();
	event("start", start);
	for (i = 0; i < n; i++)
		pids[i] = start_spinner();
	if (cpus) {
		while (cpus_online() < cpus && !late) {
			nap_ns(LOOK_NS);
			late = now_ns() - start > ONLINE_LIMIT;
		}
		event(late ? "late" : "online", start);
	}
	/* As long after they came, else a slow guest has them for a moment only. */
	begin = now_ns();
	while (now_ns() - begin < seconds * NSEC)
		nap_ns(10000000);
	for (i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	event("end", start);
	free(pids);
	return late;
}

/* A page's content follows from its number, so that a lost one is seen. */
static uint64_t mark(uint64_t i)
{
	return (i + 1) * 0x9e3779b97f4a7c15ULL;
}

static int touch(uint64_t mib, uint64_t seconds)
{
	uint64_t step = 4096 / sizeof(uint64_t), words = mib * MIB / sizeof(uint64_t);
	uint64_t start = now_ns(), i, bad = 0;
	uint64_t *mem;

	event("start", start);
	mem = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	for (i = 0; i < words; i += step) {
		mem[i] = mark(i);
		if (i % (256 * MIB / sizeof(uint64_t)) == 0 && i) {
			printf("touched %llu MiB\n",
			       (unsigned long long)(i * sizeof(uint64_t) / MIB));
			fflush(stdout);
		}
	}
	event("touched", start);
	nap_ns(seconds * NSEC);
	for (i = 0; i < words; i += step)
		bad += mem[i] != mark(i);
	event("end", start);
	if (bad)
		die("%llu pages have lost their content", (unsigned long long)bad);
	munmap(mem, mib * MIB);
	return 0;
}

/* Pages in a pipe stay where they are: the kernel cannot tell who looks at them. */
static void pin_page(void *page)
{
	struct iovec iov = { .iov_base = page, .iov_len = 4096 };
	int fds[2];

	if (pipe(fds) || vmsplice(fds[1], &iov, 1, 0) != (ssize_t)iov.iov_len)
		die("a page for a pipe: %s", strerror(errno));
}

static int pin(uint64_t mib, uint64_t hold, uint64_t seconds)
{
	uint64_t start = now_ns(), at;
	char *mem;

	mem = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	for (at = 0; at < mib * MIB; at += 4096)
		mem[at] = 1;
	event("touched", start);
	nap_ns(hold * NSEC);
	for (at = 0; at < mib * MIB; at += 32 * MIB)
		pin_page(mem + at);
	munmap(mem, mib * MIB);
	event("pinned", start);
	nap_ns(seconds * NSEC);
	return 0;
}

/* What the kernel could hand out now. */
static uint64_t available_ram(void)
{
	unsigned long long kib = 0;
	char line[128];
	FILE *file = fopen("/proc/meminfo", "r");

	if (!file)
		die("/proc/meminfo: %s", strerror(errno));
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	fclose(file);
	return kib << 10;
}

static void fill_politely(uint64_t *mem, uint64_t words, uint64_t step, uint64_t end)
{
	uint64_t i;

	for (i = 0; i < words; i += step) {
		if (i % (POLITE_STEP / sizeof(*mem)) == 0)
			while (available_ram() < POLITE_LEFT && now_ns() < end)
				nap_ns(LOOK_NS * 10);
		if (now_ns() >= end)
			exit(3);
		mem[i] = mark(i);
	}
}

static void be_worker(uint64_t mib, uint64_t end, uint64_t wait_ns, uint64_t *items)
{
	uint64_t start = now_ns();
	uint64_t step = (uint64_t)sysconf(_SC_PAGESIZE) / sizeof(uint64_t);
	uint64_t words = mib * MIB / sizeof(uint64_t);
	uint64_t *mem, i, first = 0;

	mem = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	fill_politely(mem, words, step, end);
	event("filled", start);
	while (now_ns() < end) {
		/* Every fourth page, beginning with another one each time. */
		for (i = first * step; i < words; i += 4 * step)
			if (mem[i] != mark(i))
				die("a page has lost its content");
		first = (first + 1) % 4;
		__atomic_add_fetch(items, 1, __ATOMIC_RELAXED);
		nap_ns(wait_ns);
	}
	exit(0);
}

/*
 * A service with a working set: what it gets done depends on how many workers it has, and that
 * on the memory that it has for them. "late": workers that did not get their memory in time.
 */
static int work(uint64_t n, uint64_t mib, uint64_t seconds, uint64_t wait_ms)
{
	uint64_t end = now_ns() + seconds * NSEC, i, late = 0;
	int status, bad = 0;
	uint64_t *items;

	items = mmap(NULL, sizeof(*items), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (items == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	for (i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork: %s", strerror(errno));
		if (!pid)
			be_worker(mib, end, wait_ms * 1000000, items);
	}
	for (i = 0; i < n; i++) {
		if (wait(&status) < 0)
			die("wait: %s", strerror(errno));
		if (WIFEXITED(status) && WEXITSTATUS(status) == 3)
			late++;
		else if (!WIFEXITED(status) || WEXITSTATUS(status))
			bad++;
	}
	printf("items=%llu late=%llu bad=%d\n", (unsigned long long)*items,
	       (unsigned long long)late, bad);
	return bad != 0;
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	int ret = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		ret = errno;
	close(fd);
	return ret;
}

/* What is in use; what can be dropped, such as a cache of files, is part of it. */
static uint64_t used_ram(void)
{
	struct sysinfo info;

	if (sysinfo(&info))
		die("sysinfo: %s", strerror(errno));
	return (uint64_t)(info.totalram - info.freeram) * info.mem_unit;
}

static void fill(int fd)
{
	static const char data[65536];

	while (write(fd, data, sizeof(data)) > 0)
		;
	if (errno != EAGAIN)
		die("write: %s", strerror(errno));
}

/* A pipe's pages can be neither moved nor reclaimed. */
static void take_by_pipe(void)
{
	int fds[2];

	if (pipe2(fds, O_NONBLOCK))
		die("pipe: %s", strerror(errno));
	if (fcntl(fds[1], F_SETPIPE_SZ, MIB) < 0)
		die("F_SETPIPE_SZ: %s", strerror(errno));
	fill(fds[1]);
}

/* Nor can the buffers of a socket. */
static void take_by_socket(void)
{
	int fds[2], size = 2 * MIB;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds))
		die("socketpair: %s", strerror(errno));
	if (setsockopt(fds[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
		die("SO_SNDBUFFORCE: %s", strerror(errno));
	fill(fds[0]);
}

/* Inodes and dentries are slab; two pages of data each. */
static void take_by_files(void)
{
	static const char data[8192];
	static unsigned int dirs;
	char path[64];
	int i, fd;

	snprintf(path, sizeof(path), "/tmp/%u", dirs);
	if (mkdir(path, 0700))
		die("%s: %s", path, strerror(errno));
	for (i = 0; i < 256; i++) {
		snprintf(path, sizeof(path), "/tmp/%u/%d", dirs, i);
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
		if (fd < 0 || write(fd, data, sizeof(data)) != sizeof(data))
			die("%s: %s", path, strerror(errno));
		close(fd);
	}
	dirs++;
}

/* A tmpfs without bounds that goes when this process ends, however it ends. */
static void mount_own_tmpfs(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("load", "/tmp", "tmpfs", 0, "size=0,nr_inodes=0"))
		die("a tmpfs: %s", strerror(errno));
}

/*
 * Have the kernel take @mib for itself. If that ends in an OOM kill, this program is to
 * be the one that is killed, not whoever waits for it.
 */
static int kernel(const char *kind, uint64_t mib)
{
	struct rlimit files = { .rlim_cur = 1 << 16, .rlim_max = 1 << 16 };
	uint64_t start, before;
	void (*take)(void);

	if (!strcmp(kind, "pipes"))
		take = take_by_pipe;
	else if (!strcmp(kind, "sockets"))
		take = take_by_socket;
	else if (!strcmp(kind, "files"))
		take = take_by_files;
	else
		usage();
	if (write_file("/proc/self/oom_score_adj", "1000") || setrlimit(RLIMIT_NOFILE, &files))
		die("preparing: %s", strerror(errno));
	if (take == take_by_files)
		mount_own_tmpfs();
	start = now_ns();
	event("start", start);
	before = used_ram();
	while (used_ram() < before + mib * MIB)
		take();
	event("taken", start);
	return 0;
}

static int open_uevents(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die("uevents: %s", strerror(errno));
	return fd;
}

/* What udev's rule for CPUs does: ACTION=="add", SUBSYSTEM=="cpu", ATTR{online}="1". */
static void bring_online(const char *uevent)
{
	char path[128];
	int ret;

	if (strncmp(uevent, "add@/devices/system/cpu/cpu", 27))
		return;
	snprintf(path, sizeof(path), "/sys%.100s/online", uevent + strlen("add@"));
	ret = write_file(path, "1");
	if (ret)
		die("%s: %s", path, strerror(ret));
}

/* The first words of a task on each CPU. */
static void run_everywhere(void)
{
	cpu_set_t all, one;
	int cpu;

	if (sched_getaffinity(0, sizeof(all), &all))
		die("sched_getaffinity: %s", strerror(errno));
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (sched_setaffinity(0, sizeof(one), &one) || sched_getcpu() != cpu)
			die("no task can run on CPU %d: %s", cpu, strerror(errno));
	}
}

static int cpus(uint64_t n, const char *file)
{
	char text[4096];
	struct pollfd uevents = { .fd = open_uevents(), .events = POLLIN };
	uint64_t start = now_ns();
	ssize_t size;
	int ret;

	event("start", start);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	ret = file ? write_file(file, text) : 0;
	if (ret)
		die("%s: %s", file, strerror(ret));
	while (!n || cpus_online() < n) {
		if (poll(&uevents, 1, n ? (int)(ONLINE_LIMIT / 1000000) : -1) != 1)
			die("%llu CPUs are online", (unsigned long long)cpus_online());
		size = recv(uevents.fd, text, sizeof(text) - 1, 0);
		if (size < 0)
			die("uevents: %s", strerror(errno));
		text[size] = 0;
		bring_online(text);
	}
	run_everywhere();
	event("usable", start);
	return 0;
}

static int timed_write(const char *path, const char *text)
{
	uint64_t start = now_ns();
	int ret = write_file(path, text);

	event(ret ? strerrorname_np(ret) : "OK", start);
	return 0;
}

static uint64_t total_ram(void)
{
	struct sysinfo info;

	if (sysinfo(&info))
		die("sysinfo: %s", strerror(errno));
	return (uint64_t)info.totalram * info.mem_unit;
}

static int grown(uint64_t mib)
{
	uint64_t start = now_ns(), before = total_ram();

	event("start", start);
	while (total_ram() < before + mib * MIB) {
		if (now_ns() - start > ONLINE_LIMIT)
			die("no more memory than before");
		nap_ns(LOOK_NS);
	}
	event("grown", start);
	return 0;
}

/* What a program of the guest gets that calls the host itself. */
static int call(void)
{
	long status = ELASTIC_HC_NR;
	unsigned int eax, ebx, ecx, edx;

	if (!__get_cpuid(0, &eax, &ebx, &ecx, &edx))
		die("no CPUID");
	if (ebx == signature_INTEL_ebx)
		asm volatile("vmcall" : "+a"(status) : "b"(0L), "c"(0L), "d"(0L), "S"(0L) : "memory");
	else
		asm volatile("vmmcall" : "+a"(status) : "b"(0L), "c"(0L), "d"(0L), "S"(0L) : "memory");
	printf("status=%ld\n", status);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		usage();
	if (!strcmp(argv[1], "spin") && (argc == 4 || argc == 5))
		return spin(number(argv[2]), number(argv[3]), argc == 5 ? number(argv[4]) : 0);
	if (!strcmp(argv[1], "touch") && (argc == 3 || argc == 4))
		return touch(number(argv[2]), argc == 4 ? number(argv[3]) : 0);
	if (!strcmp(argv[1], "pin") && argc == 5)
		return pin(number(argv[2]), number(argv[3]), number(argv[4]));
	if (!strcmp(argv[1], "work") && argc == 6)
		return work(number(argv[2]), number(argv[3]), number(argv[4]), number(argv[5]));
	if (!strcmp(argv[1], "kernel") && argc == 4)
		return kernel(argv[2], number(argv[3]));
	if (!strcmp(argv[1], "cpus") && (argc == 3 || argc == 4))
		return cpus(number(argv[2]), argc == 4 ? argv[3] : NULL);
	if (!strcmp(argv[1], "write") && argc == 4)
		return timed_write(argv[2], argv[3]);
	if (!strcmp(argv[1], "grown") && argc == 3)
		return grown(number(argv[2]));
	if (!strcmp(argv[1], "call") && argc == 2)
		return call();
	if (!strcmp(argv[1], "tsc") && argc == 2) {
		event("now", 0);
		return 0;
	}
	usage();
}
