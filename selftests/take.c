// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the guest gives up the host has: measured where the kernel accounts for
 * it (the memory file's blocks, this process' resident memory, the pool of huge
 * pages), not where the module says so. What is granted keeps its content; what
 * others have pinned or locked, and what nobody knows, is never taken.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/io_uring.h>

#include "ktap.h"
#include "kvm_guest.h"

#define UNIT(n)		((u64)(n) << ELASTIC_UNIT_SHIFT)
#define RAM_UNITS	48
#define WORDS		(ELASTIC_UNIT_SIZE / 8)
#define FILLED_FIRST	2	/* units that the guest fills */
#define FILLED_NR	40
#define TAKEN_FIRST	10	/* of which it gives these up */
#define TAKEN_NR	16

static struct kg_vm *vm;
static struct kg_vcpu *bsp;

static const char *backend_name(enum kg_backend backend)
{
	static const char *const names[] = {
		[KG_MEMFD] = "memfd", [KG_ANON] = "anonymous", [KG_HUGETLB] = "huge pages",
		[KG_PRIVATE_FILE] = "private file",
	};

	return names[backend];
}

static void fresh_vm(enum kg_backend backend)
{
	struct kg_config cfg = { .backend = backend, .ram = UNIT(RAM_UNITS), .nr_vcpus = 1 };

	vm = kg_new(&cfg);
	bsp = &vm->vcpu[0];
}

/* A pattern that differs from unit to unit */
static u64 seed(u64 unit)
{
	return unit << 40 | 0x123;
}

static void fill(u64 unit)
{
	kg_must(bsp, KG_CMD_FILL, UNIT(unit), WORDS, seed(unit));
}

static bool intact(u64 unit)
{
	return kg_must(bsp, KG_CMD_CHECK, UNIT(unit), WORDS, seed(unit)) == WORDS;
}

static unsigned int intact_units(u64 first, u64 nr)
{
	unsigned int n = 0;
	u64 i;

	for (i = first; i < first + nr; i++)
		n += intact(i);
	return n;
}

static u64 mem_counter(const char *path, const char *name)
{
	FILE *file = fopen(path, "re");
	unsigned long long value = 0;
	bool found = false;
	char line[128];

	while (file && fgets(line, sizeof(line), file)) {
		if (!strncmp(line, name, strlen(name)) &&
		    sscanf(line + strlen(name), " %llu", &value) == 1) {
			found = true;
			break;
		}
	}
	if (file)
		fclose(file);
	if (!found)
		ktap_bail("%s has no %s", path, name);
	return value;
}

/* Bytes of host memory behind the VM's RAM, as its kind is accounted for */
static s64 behind(void)
{
	struct stat st;

	switch (vm->cfg.backend) {
	case KG_MEMFD:
		if (fstat(vm->ram_fd, &st))
			ktap_bail("fstat: %s", strerror(errno));
		return (s64)st.st_blocks * 512;
	case KG_HUGETLB:
		return -(s64)(mem_counter("/proc/meminfo", "HugePages_Free:") << 21);
	default:
		return (s64)mem_counter("/proc/self/smaps_rollup", "Anonymous:") * 1024;
	}
}

/* How many pages of the guest's memory are there, for any kind of mapping */
static u64 resident(u64 first, u64 nr)
{
	static unsigned char map[RAM_UNITS * 512];
	u64 i, n = 0;

	if (mincore(vm->ram + UNIT(first), UNIT(nr), map))
		ktap_bail("mincore: %s", strerror(errno));
	for (i = 0; i < nr * 512; i++)
		n += map[i] & 1;
	return n;
}

/* RELEASE_MEM of [first, first + nr): falls host memory by as much? */
static void release(enum kg_backend backend)
{
	const char *name = backend_name(backend);
	s64 before = behind(), fell, taken = kg_stat(vm, "stats/taken_bytes");
	struct kg_answer a = kg_release_mem(bsp, TAKEN_FIRST, TAKEN_NR);
	u64 left = resident(TAKEN_FIRST, TAKEN_NR);

	fell = before - behind();
	ktap_ok(a.status == ELASTIC_OK && a.rbx == ELASTIC_R_NONE && a.rdx == TAKEN_NR,
		"%s: %d units given up: %llu taken back", name, TAKEN_NR,
		(unsigned long long)a.rdx);
	/* Page tables and this process' own doings are within 256 KiB */
	ktap_ok(fell <= (s64)UNIT(TAKEN_NR) + 262144 && fell >= (s64)UNIT(TAKEN_NR) - 262144,
		"%s: the host's memory falls by %lld KiB of %llu", name, (long long)fell / 1024,
		(unsigned long long)UNIT(TAKEN_NR) / 1024);
	ktap_eq((long long)left, 0, "%s: pages of them that are left", name);
	ktap_eq(kg_stat(vm, "stats/taken_bytes") - taken, UNIT(TAKEN_NR),
		"%s: stats/taken_bytes", name);
}

static void hole_in_file(void)
{
	off_t data = lseek(vm->ram_fd, (off_t)UNIT(TAKEN_FIRST), SEEK_DATA);
	off_t hole = lseek(vm->ram_fd, (off_t)UNIT(FILLED_FIRST), SEEK_HOLE);

	ktap_ok(hole == (off_t)UNIT(TAKEN_FIRST) && data == (off_t)UNIT(TAKEN_FIRST + TAKEN_NR),
		"memfd: the hole in the file is just these units: %llu to %llu",
		(unsigned long long)hole >> 21, (unsigned long long)data >> 21);
}

static void basics(enum kg_backend backend)
{
	const char *name = backend_name(backend);
	unsigned int kept, zero = 0;
	struct kg_answer a;
	u64 i;

	fresh_vm(backend);
	for (i = FILLED_FIRST; i < FILLED_FIRST + FILLED_NR; i++)
		fill(i);
	/* Units 42 to 45 are populated, and HELLO says they are not held */
	for (i = 42; i < 46; i++)
		fill(i);
	{
		s64 before = behind();
		struct elastic_range absent = { 42, 4 };

		kg_must_hello(bsp, 1, &absent, 1);
		ktap_ok(before - behind() >= (s64)UNIT(4) - 262144 && !resident(42, 4),
			"%s: HELLO takes what is not held: %lld KiB", name,
			(long long)(before - behind()) / 1024);
	}
	release(backend);
	if (backend == KG_MEMFD)
		hole_in_file();
	kept = intact_units(FILLED_FIRST, TAKEN_FIRST - FILLED_FIRST) +
	       intact_units(TAKEN_FIRST + TAKEN_NR,
			    FILLED_FIRST + FILLED_NR - TAKEN_FIRST - TAKEN_NR);
	ktap_eq(kept, FILLED_NR - TAKEN_NR, "%s: granted units that kept their content", name);

	a = kg_request(bsp, 0, TAKEN_FIRST, TAKEN_NR);
	ktap_ok(a.status == ELASTIC_OK && a.rdx == TAKEN_NR, "%s: granted again", name);
	ktap_eq((long long)resident(TAKEN_FIRST, TAKEN_NR), 0,
		"%s: a grant alone populates nothing", name);
	for (i = TAKEN_FIRST; i < TAKEN_FIRST + TAKEN_NR; i++)
		zero += kg_must(bsp, KG_CMD_ONES, UNIT(i), WORDS, 0) == 0;
	ktap_eq(zero, TAKEN_NR, "%s: units granted again that read as zero", name);
	for (i = TAKEN_FIRST; i < TAKEN_FIRST + TAKEN_NR; i++)
		fill(i);
	ktap_eq(intact_units(FILLED_FIRST, FILLED_NR), FILLED_NR, "%s: and can be used", name);
	ktap_eq(kg_stat(vm, "stats/unreclaimed_bytes"), 0, "%s: stats/unreclaimed_bytes", name);
	kg_free(vm);
}

/* DISCARD: as given up, but the grant stays, and the memory can be used at once. */
static void discarded(enum kg_backend backend)
{
	const char *name = backend_name(backend);
	s64 before, fell, counted;
	struct kg_answer a;
	unsigned int zero = 0;
	u64 i;

	fresh_vm(backend);
	for (i = FILLED_FIRST; i < FILLED_FIRST + FILLED_NR; i++)
		fill(i);
	kg_must_hello(bsp, 1, NULL, 0);
	before = behind();
	counted = kg_stat(vm, "stats/discarded_bytes");
	a = kg_discard(bsp, TAKEN_FIRST, TAKEN_NR);
	fell = before - behind();
	if (backend == KG_HUGETLB) {
		ktap_ok(a.status == ELASTIC_OK && a.rdx == 0 && fell == 0,
			"%s: nothing is taken that could not be given back", name);
		ktap_eq(intact_units(FILLED_FIRST, FILLED_NR), FILLED_NR,
			"%s: all units kept their content", name);
		kg_free(vm);
		return;
	}
	ktap_ok(a.status == ELASTIC_OK && a.rdx == TAKEN_NR, "%s: %d units discarded: %llu taken",
		name, TAKEN_NR, (unsigned long long)a.rdx);
	ktap_ok(fell <= (s64)UNIT(TAKEN_NR) + 262144 && fell >= (s64)UNIT(TAKEN_NR) - 262144,
		"%s: the host's memory falls by %lld KiB of %llu", name, (long long)fell / 1024,
		(unsigned long long)UNIT(TAKEN_NR) / 1024);
	ktap_eq(kg_stat(vm, "stats/discarded_bytes") - counted, UNIT(TAKEN_NR),
		"%s: stats/discarded_bytes", name);
	for (i = TAKEN_FIRST; i < TAKEN_FIRST + TAKEN_NR; i++)
		zero += kg_must(bsp, KG_CMD_ONES, UNIT(i), WORDS, 0) == 0;
	ktap_eq(zero, TAKEN_NR, "%s: discarded units that can be read, as zero", name);
	for (i = TAKEN_FIRST; i < TAKEN_FIRST + TAKEN_NR; i++)
		fill(i);
	ktap_eq(intact_units(FILLED_FIRST, FILLED_NR), FILLED_NR,
		"%s: and written; the others kept their content", name);
	kg_free(vm);
}

/* Nothing there: taken without a fuss, and nothing is populated by it */
static void empty(enum kg_backend backend)
{
	const char *name = backend_name(backend);
	struct kg_answer a;

	fresh_vm(backend);
	fill(20);
	kg_must_hello(bsp, 1, NULL, 0);
	a = kg_release_mem(bsp, 16, 16);
	ktap_ok(a.status == ELASTIC_OK && a.rdx == 16 && !resident(16, 16),
		"%s: units of which one was ever touched: %llu taken back", name,
		(unsigned long long)a.rdx);
	kg_free(vm);
}

/* Pinned as for a device: registered buffers of io_uring */
static int pin(void *buffer, size_t size)
{
	struct io_uring_params params = { 0 };
	struct iovec iov = { buffer, size };
	int fd = (int)syscall(SYS_io_uring_setup, 1, &params);

	if (fd < 0)
		return -errno;
	if (syscall(SYS_io_uring_register, fd, IORING_REGISTER_BUFFERS, &iov, 1)) {
		int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

/*
 * Units 10 to 15 are given up in one batch, and 12 is @what. Only that one may
 * stay, and it stays as it was.
 */
static void left_alone(enum kg_backend backend, const char *what, bool locked)
{
	const char *name = backend_name(backend);
	void *hva;
	struct kg_answer a;
	unsigned int kept;
	s64 unreclaimed;
	int fd = -1;
	u64 i, *words;

	fresh_vm(backend);
	for (i = 8; i < 18; i++)
		fill(i);
	hva = kg_hva(vm, UNIT(12));
	if (locked) {
		if (mlock(hva, ELASTIC_UNIT_SIZE))
			ktap_bail("mlock: %s", strerror(errno));
	} else {
		/* A few pages in the middle will do */
		fd = pin((uint8_t *)hva + 0x10000, 0x4000);
		if (fd < 0) {
			kg_free(vm);
			ktap_skip(strerror(-fd), "%s: %s", name, what);
			return;
		}
	}
	kg_must_hello(bsp, 1, NULL, 0);
	unreclaimed = kg_stat(vm, "stats/unreclaimed_bytes");
	a = kg_release_mem(bsp, 10, 6);
	ktap_ok(a.status == ELASTIC_OK && a.rbx == ELASTIC_R_PINNED,
		"%s: %s: answer %lld, reason %llu", name, what, (long long)a.status,
		(unsigned long long)a.rbx);
	ktap_ok(a.rdx == 5, "%s: %s: %llu of 6 units are taken back", name, what,
		(unsigned long long)a.rdx);
	ktap_eq(kg_stat(vm, "stats/unreclaimed_bytes") - unreclaimed, ELASTIC_UNIT_SIZE,
		"%s: %s: stats/unreclaimed_bytes", name, what);
	/* As whoever has it pinned or locked sees it */
	words = hva;
	for (i = 0; i < WORDS && words[i] == seed(12) + i; i++)
		;
	ktap_ok(i == WORDS, "%s: %s: its content is as it was (%llu of %llu words)", name, what,
		(unsigned long long)i, (unsigned long long)WORDS);
	ktap_eq((long long)resident(12, 1), 512, "%s: %s: its pages are there", name, what);
	ktap_ok(!resident(10, 2) && !resident(13, 3), "%s: %s: the units beside it are taken",
		name, what);
	ktap_eq(kg_stat(vm, "memory/grant_mib"), 2 * (RAM_UNITS - 1 - 6),
		"%s: %s: it is not granted any more", name, what);
	kept = intact_units(8, 2) + intact_units(16, 2);
	ktap_eq(kept, 4, "%s: %s: granted units that kept their content", name, what);
	a = kg_request(bsp, 0, 12, 1);
	ktap_ok(a.status == ELASTIC_OK && (intact(12) ||
		kg_must(bsp, KG_CMD_ONES, UNIT(12), WORDS, 0) == 0),
		"%s: %s: granted again, it reads as before or as zero", name, what);
	if (fd >= 0) {
		/* Unpinned, it is like any other: what was registered is dropped late */
		close(fd);
		ktap_ok(kg_until(kg_release_mem(bsp, 12, 1).rdx == 1 ||
				 (kg_request(bsp, 0, 12, 1), false), 5000),
			"%s: %s: when it is not any more, it is taken", name, what);
	} else {
		munlock(hva, ELASTIC_UNIT_SIZE);
		a = kg_release_mem(bsp, 12, 1);
		ktap_ok(a.rdx == 1, "%s: %s: when it is not any more, it is taken", name, what);
	}
	kg_free(vm);
}

/* A mapping of a kind that nobody has thought of */
static void unknown_kind(void)
{
	struct kg_answer a;
	u64 i, *words;

	fresh_vm(KG_PRIVATE_FILE);
	for (i = 8; i < 18; i++)
		fill(i);
	kg_must_hello(bsp, 1, NULL, 0);
	a = kg_release_mem(bsp, 10, 6);
	ktap_ok(a.status == ELASTIC_OK && a.rbx == ELASTIC_R_PINNED && a.rdx == 0,
		"private file: answer %lld, reason %llu, %llu taken back", (long long)a.status,
		(unsigned long long)a.rbx, (unsigned long long)a.rdx);
	ktap_eq(kg_stat(vm, "stats/unreclaimed_bytes"), UNIT(6),
		"private file: stats/unreclaimed_bytes");
	words = kg_hva(vm, UNIT(10));
	for (i = 0; i < WORDS && words[i] == seed(10) + i; i++)
		;
	ktap_ok(i == WORDS, "private file: the content is as it was");
	kg_free(vm);
}

/* A piece of the VM's RAM that the VMM has unmapped or protected in between */
static void hole_in_mapping(void)
{
	struct kg_answer a;

	fresh_vm(KG_MEMFD);
	fill(10);
	fill(12);
	kg_must_hello(bsp, 1, NULL, 0);
	if (munmap(kg_hva(vm, UNIT(11)), ELASTIC_UNIT_SIZE))
		ktap_bail("munmap: %s", strerror(errno));
	a = kg_release_mem(bsp, 10, 3);
	ktap_ok(a.status == ELASTIC_OK && a.rdx == 2 && a.rbx == ELASTIC_R_PINNED,
		"a unit that is not mapped: answer %lld, %llu of 3 taken back",
		(long long)a.status, (unsigned long long)a.rdx);
	ktap_ok(lseek(vm->ram_fd, (off_t)UNIT(10), SEEK_DATA) >= (off_t)UNIT(13) ||
		lseek(vm->ram_fd, (off_t)UNIT(10), SEEK_DATA) < 0,
		"a unit that is not mapped: its neighbours are taken");
	kg_free(vm);
}

static long reserve(const char *path, long want, long *before)
{
	FILE *file = fopen(path, "r+e");
	long got = -1;

	if (!file)
		return -1;
	if (fscanf(file, "%ld", before) != 1)
		*before = 0;
	rewind(file);
	fprintf(file, "%ld\n", want);
	fflush(file);
	rewind(file);
	if (fscanf(file, "%ld", &got) != 1)
		got = -1;
	fclose(file);
	return got;
}

static void huge_pages(void)
{
	static const char path[] = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
	long before = 0, got, ignored;

	got = reserve(path, RAM_UNITS + 8, &before);
	if (got < RAM_UNITS) {
		ktap_skip("no huge pages can be reserved", "huge pages (%ld of %d)", got,
			  RAM_UNITS);
	} else {
		basics(KG_HUGETLB);
		discarded(KG_HUGETLB);
		left_alone(KG_HUGETLB, "pinned", false);
	}
	reserve(path, before, &ignored);
}

int main(void)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };

	host_module_need();
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	basics(KG_MEMFD);
	basics(KG_ANON);
	discarded(KG_MEMFD);
	discarded(KG_ANON);
	empty(KG_MEMFD);
	empty(KG_ANON);
	left_alone(KG_MEMFD, "pinned", false);
	left_alone(KG_ANON, "pinned", false);
	left_alone(KG_MEMFD, "locked", true);
	left_alone(KG_ANON, "locked", true);
	unknown_kind();
	hole_in_mapping();
	huge_pages();
	return ktap_finish();
}
