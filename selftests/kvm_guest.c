// SPDX-License-Identifier: GPL-2.0-only
/* A small virtual machine for tests; see kvm_guest.h. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ktap.h"
#include "kvm_guest.h"

#define MB_OFFSET(field, offset) \
	_Static_assert(offsetof(struct kg_mailbox, field) == (offset), #field)
MB_OFFSET(cmd, KG_MB_CMD);
MB_OFFSET(arg[0], KG_MB_ARG0);
MB_OFFSET(arg[1], KG_MB_ARG1);
MB_OFFSET(arg[2], KG_MB_ARG2);
MB_OFFSET(result, KG_MB_RESULT);
MB_OFFSET(counter, KG_MB_COUNTER);
MB_OFFSET(stop, KG_MB_STOP);
MB_OFFSET(nmis, KG_MB_NMIS);
MB_OFFSET(ipis, KG_MB_IPIS);
MB_OFFSET(starts, KG_MB_STARTS);
MB_OFFSET(intel, KG_MB_INTEL);
MB_OFFSET(rsp, KG_MB_RSP);
MB_OFFSET(trap, KG_MB_TRAP);
MB_OFFSET(xmm, KG_MB_XMM);
MB_OFFSET(in, KG_MB_IN);
MB_OFFSET(out, KG_MB_OUT);
_Static_assert(offsetof(struct kg_regs, r8) == KG_R8, "r8");
_Static_assert(offsetof(struct kg_regs, r15) == KG_R15, "r15");
_Static_assert(offsetof(struct kg_regs, rsp) == KG_RSP, "rsp");
_Static_assert(sizeof(struct kg_mailbox) <= 2048, "room for the stack");
_Static_assert(KG_TRAMPOLINE + KG_MAX_VCPUS * 4096 <= KG_MAILBOX, "trampolines");
_Static_assert(KG_MAILBOX + KG_MAX_VCPUS * 4096 <= KG_ARGS, "mailboxes");
_Static_assert(KG_ARGS + KG_ARGS_SIZE <= KG_SMM, "arguments");
_Static_assert(KG_TABLES_END <= KG_LISTS, "page tables");
_Static_assert(KG_LISTS_END <= KG_LOW_END, "lists");
_Static_assert(sizeof(struct kg_list_call) == KG_LIST_SIZE, "lists");
_Static_assert(offsetof(struct kg_list_call, out) == KG_LIST_OUT, "lists");
_Static_assert(KG_HC_NR == ELASTIC_HC_NR, "the hypercall's number");

extern const uint8_t kg_code_start[], kg_code_end[], kg_code_loop[];
extern const uint8_t kg_code_call64[], kg_code_call32[], kg_code_call16[];
extern const uint8_t kg_code_traps[], kg_code_nmi[], kg_code_ipi[];
extern const uint8_t kg_tramp_start[], kg_tramp_end[];
extern const uint8_t kg_smm_start[], kg_smm_end[];

#define AT(label) (KG_CODE + (u64)((label) - kg_code_start))
#define TRAP_SIZE 16

#define CR0_LONG	0x80000033ULL
#define CR4_LONG	0x620ULL
#define EFER_LONG	0x500ULL

/* How long a command may take before the test is over: slow emulators are slow */
#define MUST_MS		60000
#define KICK_SIGNAL	SIGUSR1

static __thread struct kvm_run *this_run;

static int must(int ret, const char *what)
{
	if (ret < 0)
		ktap_bail("%s: %s", what, strerror(errno));
	return ret;
}

#define IOCTL(fd, request, arg) \
	must(ioctl((fd), (request), (arg)), #request)

u64 kg_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / 1000000;
}

void kg_pause(void)
{
	struct timespec ts = { .tv_nsec = 2000000 };

	nanosleep(&ts, NULL);
}

const char *kg_end_name(enum kg_end end)
{
	switch (end) {
	case KG_ANSWER: return "answer";
	case KG_EFAULT: return "EFAULT";
	case KG_EINTR: return "EINTR";
	case KG_TIMEOUT: return "still running";
	case KG_TRAP: return "exception in the guest";
	case KG_OTHER:
		break;
	}
	return "other";
}

/* Memory */

void *kg_hva(struct kg_vm *vm, u64 gpa)
{
	if (gpa < vm->cfg.ram)
		return vm->ram + gpa;
	if (gpa >= KG_HIGH && gpa - KG_HIGH < vm->cfg.high)
		return vm->ram + vm->cfg.ram + (gpa - KG_HIGH);
	return NULL;
}

static u64 *table(struct kg_vm *vm, u64 gpa)
{
	return (u64 *)(vm->ram + gpa);
}

#define PTE_TABLE	0x7	/* present, writable, user: ring 3 is a test's subject */
#define PTE_LARGE	0x87

static void build_tables(struct kg_vm *vm)
{
	unsigned int i, k;

	memset(table(vm, KG_TABLES), 0, KG_TABLES_END - KG_TABLES);
	table(vm, KG_PML4)[0] = KG_PDPT_2M | PTE_TABLE;
	if (vm->has_1g)
		table(vm, KG_PML4)[1] = KG_PDPT_1G | PTE_TABLE;
	table(vm, KG_PML4)[2] = KG_PDPT_4K | PTE_TABLE;
	for (i = 0; i < KG_MAP_GIB; i++) {
		u64 pd = KG_PD_2M + i * 0x1000;

		table(vm, KG_PDPT_2M)[i] = pd | PTE_TABLE;
		for (k = 0; k < 512; k++)
			table(vm, pd)[k] = (((u64)i * 512 + k) << 21) | PTE_LARGE;
		table(vm, KG_PDPT_1G)[i] = (u64)i << 30 | PTE_LARGE;
	}
	table(vm, KG_PDPT_4K)[0] = KG_PD_4K | PTE_TABLE;
	for (i = 0; i < KG_4K_UNITS; i++) {
		u64 pt = KG_PT_4K + i * 0x1000;

		table(vm, KG_PD_4K)[i] = pt | PTE_TABLE;
		for (k = 0; k < 512; k++)
			table(vm, pt)[k] = ((u64)i << 21) | k << 12 | PTE_TABLE;
	}
}

static void set_gate(struct kg_vm *vm, unsigned int vector, u64 target)
{
	u64 *gate = table(vm, KG_IDT + vector * 16);

	gate[0] = (target & 0xffff) | (u64)KG_CS64 << 16 | 0x8eULL << 40 |
		  (target >> 16 & 0xffff) << 48;
	gate[1] = target >> 32;
}

/* Everything below 640 KiB, as it is before the guest runs */
static void build_low(struct kg_vm *vm)
{
	static const u64 gdt[] = {
		0,
		0x00af9b000000ffffULL,	/* KG_CS64 */
		0x00cf93000000ffffULL,	/* KG_DS */
		0x00cf9b000000ffffULL,	/* KG_CS32 */
		0x00affb000000ffffULL,	/* KG_CS64_USER */
		0x00cff3000000ffffULL,	/* KG_DS_USER */
	};
	unsigned int i;

	memcpy(vm->ram + KG_GDT, gdt, sizeof(gdt));
	if (kg_code_end - kg_code_start > KG_TRAMPOLINE - KG_CODE)
		ktap_bail("the guest's code is too long");
	memcpy(vm->ram + KG_CODE, kg_code_start, (size_t)(kg_code_end - kg_code_start));
	memset(vm->ram + KG_IDT, 0, 4096);
	for (i = 0; i < 32; i++)
		set_gate(vm, i, AT(kg_code_traps) + i * TRAP_SIZE);
	set_gate(vm, 2, AT(kg_code_nmi));
	set_gate(vm, KG_IPI_VECTOR, AT(kg_code_ipi));
	build_tables(vm);

	for (i = 0; i < vm->nr_vcpus; i++) {
		struct kg_vcpu *vcpu = &vm->vcpu[i];
		uint8_t *page = vm->ram + KG_TRAMPOLINE + i * 4096;

		memcpy(page, kg_tramp_start, (size_t)(kg_tramp_end - kg_tramp_start));
		memcpy(page + KG_TRAMP_MAILBOX, &vcpu->mb_gpa, 4);
		memset(vcpu->mb, 0, sizeof(*vcpu->mb));
		vcpu->mb->rsp = vcpu->mb_gpa + KG_MB_STACK;
	}
}

static bool host_is_intel(void)
{
	u32 a, b, c, d;

	__cpuid(0, a, b, c, d);
	return b == 0x756e6547;	/* "Genu" */
}

unsigned int kg_phys_bits(void)
{
	u32 a, b, c, d;

	__cpuid(0x80000008, a, b, c, d);
	return a & 0xff;
}

static void map_ram(struct kg_vm *vm)
{
	int flags = MAP_NORESERVE;
	u64 align = ELASTIC_UNIT_SIZE;
	uint8_t *p;

	vm->ram_size = vm->cfg.ram + vm->cfg.high;
	vm->ram_fd = -1;
	switch (vm->cfg.backend) {
	case KG_MEMFD:
		vm->ram_fd = must(memfd_create("kg-ram", MFD_CLOEXEC), "memfd_create");
		flags |= MAP_SHARED;
		break;
	case KG_HUGETLB:
		vm->ram_fd = must(memfd_create("kg-ram", MFD_CLOEXEC | MFD_HUGETLB |
					       21U << 26), "memfd_create(huge)");
		flags |= MAP_SHARED;
		break;
	case KG_PRIVATE_FILE: {
		char path[] = "/tmp/kg-ram-XXXXXX";

		vm->ram_fd = must(mkstemp(path), path);
		unlink(path);
		flags |= MAP_PRIVATE;
		break;
	}
	case KG_ANON:
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
		break;
	}
	if (vm->ram_fd >= 0)
		must(ftruncate(vm->ram_fd, (off_t)vm->ram_size), "ftruncate");
	/* Aligned like the guest's units, as QEMU does, so that huge pages fit */
	p = mmap(NULL, vm->ram_size + align, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		ktap_bail("mmap: %s", strerror(errno));
	munmap(p, vm->ram_size + align);
	p = (uint8_t *)(((uintptr_t)p + align - 1) & ~(uintptr_t)(align - 1));
	vm->ram = mmap(p, vm->ram_size, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE,
		       vm->ram_fd, 0);
	if (vm->ram == MAP_FAILED)
		ktap_bail("mmap of the RAM: %s", strerror(errno));
	if (vm->cfg.populate)
		memset(vm->ram, 0, vm->ram_size);
}

static uint8_t *map_other(u64 size)
{
	uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		ktap_bail("mmap: %s", strerror(errno));
	return p;
}

void kg_slot(struct kg_vm *vm, u32 slot, u64 gpa, u64 size, void *hva, u32 flags)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};

	IOCTL(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static void add_slot(struct kg_vm *vm, u32 slot, u64 gpa, u64 size, void *hva, u32 flags)
{
	if (size)
		kg_slot(vm, slot, gpa, size, hva, flags);
}

static void add_slots(struct kg_vm *vm)
{
	vm->flash = map_other(KG_FLASH_SIZE);
	vm->vga = map_other(KG_VGA_SIZE);
	if (vm->cfg.flat) {
		add_slot(vm, 0, 0, vm->cfg.ram, vm->ram, 0);
	} else {
		vm->rom = map_other(KG_ROM_SIZE);
		add_slot(vm, 0, 0, KG_LOW_END, vm->ram, 0);
		add_slot(vm, 1, KG_LOW_END, 0x20000, vm->vga, KVM_MEM_LOG_DIRTY_PAGES);
		add_slot(vm, 2, KG_ROM, KG_ROM_SIZE, vm->rom, KVM_MEM_READONLY);
		add_slot(vm, 3, KG_RAM, vm->cfg.ram - KG_RAM, vm->ram + KG_RAM, 0);
	}
	add_slot(vm, 4, KG_HIGH, vm->cfg.high, vm->ram + vm->cfg.ram, 0);
	add_slot(vm, 5, KG_FLASH, KG_FLASH_SIZE, vm->flash, KVM_MEM_READONLY);
	add_slot(vm, 6, KG_VGA, KG_VGA_SIZE, vm->vga, KVM_MEM_LOG_DIRTY_PAGES);
	if (vm->cfg.far) {
		vm->far_size = vm->cfg.far;
		vm->far = map_other(vm->far_size);
		add_slot(vm, 7, KG_FAR, vm->far_size, vm->far, 0);
	}
}

/* vCPUs */

static struct kvm_cpuid2 *supported_cpuid(int kvm_fd)
{
	const u32 nent = 256;
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) +
					  nent * sizeof(struct kvm_cpuid_entry2));

	if (!cpuid)
		ktap_bail("no memory");
	cpuid->nent = nent;
	IOCTL(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid);
	return cpuid;
}

static void set_cpuid(struct kg_vcpu *vcpu)
{
	struct kvm_cpuid2 *cpuid = vcpu->vm->cpuid;
	u32 i;

	for (i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == 1)
			e->ebx = (e->ebx & 0x00ffffff) | vcpu->id << 24;
		else if (e->function == 0xb || e->function == 0x1f)
			e->edx = vcpu->id;
		else if (e->function == 0x80000001 && e->edx & 1U << 26)
			vcpu->vm->has_1g = true;
	}
	IOCTL(vcpu->fd, KVM_SET_CPUID2, cpuid);
}

static struct kvm_segment segment(u16 selector, u8 type, bool data, u8 dpl)
{
	return (struct kvm_segment) {
		.selector = selector,
		.limit = 0xffffffff,
		.type = type,
		.present = 1,
		.dpl = dpl,
		.db = data,
		.s = 1,
		.l = !data,
		.g = 1,
	};
}

/* The state in which the loop runs */
static void set_long_mode(struct kg_vcpu *vcpu)
{
	struct kvm_segment data = segment(KG_DS, 3, true, 0);
	struct kvm_regs regs = { .rflags = 2, .rip = AT(kg_code_loop),
				 .rsp = vcpu->mb_gpa + KG_MB_STACK };
	struct kvm_sregs sregs;

	IOCTL(vcpu->fd, KVM_GET_SREGS, &sregs);
	sregs.cs = segment(KG_CS64, 0xb, false, 0);
	sregs.ss = data;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = data;
	/* A null selector: a change of privilege keeps its base */
	sregs.gs.selector = 0;
	sregs.gs.base = vcpu->mb_gpa;
	sregs.gdt.base = KG_GDT;
	sregs.gdt.limit = 6 * 8 - 1;
	sregs.idt.base = KG_IDT;
	sregs.idt.limit = 0xfff;
	sregs.cr0 = CR0_LONG;
	sregs.cr3 = KG_PML4;
	sregs.cr4 = CR4_LONG;
	sregs.efer = EFER_LONG;
	sregs.apic_base |= 0xc00;	/* on, x2APIC: IPIs without a mapping */
	IOCTL(vcpu->fd, KVM_SET_SREGS, &sregs);
	kg_set_regs(vcpu, &regs);
}

static void add_vcpu(struct kg_vm *vm, unsigned int index)
{
	struct kg_vcpu *vcpu = &vm->vcpu[index];

	vcpu->vm = vm;
	vcpu->index = index;
	vcpu->id = vm->cfg.ids ? vm->cfg.ids[index] : index;
	vcpu->mb_gpa = KG_MAILBOX + index * 4096;
	vcpu->mb = (struct kg_mailbox *)(vm->ram + vcpu->mb_gpa);
	vcpu->fd = must(ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)vcpu->id),
			"KVM_CREATE_VCPU");
	vcpu->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED)
		ktap_bail("mmap of kvm_run: %s", strerror(errno));
	set_cpuid(vcpu);
}

/* The name of a directory of this process in vms/ that is not in @known */
static bool find_dir(struct kg_vm *vm, char known[][KG_NAME], unsigned int nr_known)
{
	DIR *dir = opendir(KG_SYSFS "/vms");
	struct dirent *entry;
	char pid[16];
	bool found = false;

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	while (dir && !found && (entry = readdir(dir))) {
		size_t len = strlen(pid);
		unsigned int i;

		if (strncmp(entry->d_name, pid, len) ||
		    (entry->d_name[len] && entry->d_name[len] != '-'))
			continue;
		for (i = 0; i < nr_known; i++)
			if (!strcmp(known[i], entry->d_name))
				break;
		if (i < nr_known)
			continue;
		snprintf(vm->dir, sizeof(vm->dir), KG_SYSFS "/vms/%.64s", entry->d_name);
		found = true;
	}
	if (dir)
		closedir(dir);
	return found;
}

static unsigned int list_dirs(char known[][KG_NAME], unsigned int max)
{
	DIR *dir = opendir(KG_SYSFS "/vms");
	struct dirent *entry;
	unsigned int nr = 0;

	while (dir && nr < max && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			snprintf(known[nr++], KG_NAME, "%.*s", KG_NAME - 1,
				 entry->d_name);
	if (dir)
		closedir(dir);
	return nr;
}

static void on_kick(int signal)
{
	(void)signal;
	/* Not yet in KVM_RUN: then it is not to begin */
	if (this_run)
		this_run->immediate_exit = 1;
}

struct kg_vm *kg_new(const struct kg_config *cfg)
{
	struct sigaction action = { .sa_handler = on_kick };
	struct kg_vm *vm = calloc(1, sizeof(*vm));
	pthread_condattr_t attr;
	u64 identity = 0xfeffc000;
	/* APIC ids above 254, as QEMU does it */
	struct kvm_enable_cap x2apic = {
		.cap = KVM_CAP_X2APIC_API,
		.args = { KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK },
	};
	unsigned int i;

	if (!vm)
		ktap_bail("no memory");
	sigaction(KICK_SIGNAL, &action, NULL);
	vm->cfg = *cfg;
	if (!vm->cfg.ram)
		vm->cfg.ram = 64 << 20;
	if (!vm->cfg.nr_vcpus)
		vm->cfg.nr_vcpus = 1;
	vm->nr_vcpus = vm->cfg.nr_vcpus;
	if (vm->nr_vcpus > KG_MAX_VCPUS)
		ktap_bail("%u vCPUs are too many", vm->nr_vcpus);
	pthread_mutex_init(&vm->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&vm->changed, &attr);

	vm->kvm_fd = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	vm->fd = must(ioctl(vm->kvm_fd, KVM_CREATE_VM, 0UL), "KVM_CREATE_VM");
	vm->run_size = (size_t)must(ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0),
				    "KVM_GET_VCPU_MMAP_SIZE");
	IOCTL(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	IOCTL(vm->fd, KVM_SET_TSS_ADDR, 0xfeffd000UL);
	IOCTL(vm->fd, KVM_CREATE_IRQCHIP, 0UL);
	IOCTL(vm->fd, KVM_ENABLE_CAP, &x2apic);
	map_ram(vm);
	add_slots(vm);
	vm->cpuid = supported_cpuid(vm->kvm_fd);
	for (i = 0; i < vm->nr_vcpus; i++)
		add_vcpu(vm, i);
	build_low(vm);
	for (i = 0; i < vm->nr_vcpus; i++)
		vm->vcpu[i].mb->intel = host_is_intel();
	set_long_mode(&vm->vcpu[0]);
	vm->nr_known = list_dirs(vm->known, KG_NAMES);
	return vm;
}

void kg_free(struct kg_vm *vm)
{
	unsigned int i;

	for (i = 0; i < vm->nr_vcpus; i++) {
		struct kg_vcpu *vcpu = &vm->vcpu[i];

		if (vcpu->has_thread) {
			if (kg_is_running(vcpu))
				kg_kick(vcpu, MUST_MS);
			pthread_mutex_lock(&vm->lock);
			vcpu->quit = true;
			pthread_cond_broadcast(&vm->changed);
			pthread_mutex_unlock(&vm->lock);
			pthread_join(vcpu->thread, NULL);
		}
		munmap(vcpu->run, vm->run_size);
		close(vcpu->fd);
	}
	close(vm->fd);
	close(vm->kvm_fd);
	munmap(vm->ram, vm->ram_size);
	if (vm->ram_fd >= 0)
		close(vm->ram_fd);
	if (vm->rom)
		munmap(vm->rom, KG_ROM_SIZE);
	munmap(vm->flash, KG_FLASH_SIZE);
	munmap(vm->vga, KG_VGA_SIZE);
	if (vm->far)
		munmap(vm->far, vm->far_size);
	free(vm->cpuid);
	pthread_cond_destroy(&vm->changed);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}

/* Running */

static enum kg_end run_loop(struct kg_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	for (;;) {
		int ret = ioctl(vcpu->fd, KVM_RUN, 0);

		vcpu->error = ret < 0 ? errno : 0;
		if (ret < 0) {
			switch (errno) {
			case EAGAIN:	/* got an INIT: to be run again */
				vcpu->eagain++;
				continue;
			case EINTR:
				return KG_EINTR;
			case EFAULT:
				return KG_EFAULT;
			}
			return KG_OTHER;
		}
		if (run->exit_reason == KVM_EXIT_IO &&
		    run->io.direction == KVM_EXIT_IO_OUT) {
			if (run->io.port == KG_PORT_DONE)
				return KG_ANSWER;
			if (run->io.port == KG_PORT_TRAP)
				return KG_TRAP;
		}
		return KG_OTHER;
	}
}

static void mask_kicks(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, KICK_SIGNAL);
	pthread_sigmask(how, &set, NULL);
}

static void *vcpu_thread(void *arg)
{
	struct kg_vcpu *vcpu = arg;
	struct kg_vm *vm = vcpu->vm;

	/* A kick that came before is taken now, when there is a run that it can end */
	this_run = vcpu->run;
	mask_kicks(SIG_UNBLOCK);
	pthread_mutex_lock(&vm->lock);
	while (!vcpu->quit) {
		enum kg_end end;

		if (!vcpu->wanted) {
			pthread_cond_wait(&vm->changed, &vm->lock);
			continue;
		}
		vcpu->wanted = false;
		pthread_mutex_unlock(&vm->lock);
		end = run_loop(vcpu);
		pthread_mutex_lock(&vm->lock);
		vcpu->end = end;
		vcpu->running = false;
		pthread_cond_broadcast(&vm->changed);
	}
	pthread_mutex_unlock(&vm->lock);
	return NULL;
}

void kg_go(struct kg_vcpu *vcpu)
{
	struct kg_vm *vm = vcpu->vm;

	pthread_mutex_lock(&vm->lock);
	if (vcpu->running)
		ktap_bail("vCPU %u runs already", vcpu->id);
	if (!vcpu->has_thread) {
		vcpu->has_thread = true;
		mask_kicks(SIG_BLOCK);
		if (pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu))
			ktap_bail("cannot create a thread");
		mask_kicks(SIG_UNBLOCK);
	}
	vcpu->run->immediate_exit = 0;
	vcpu->wanted = true;
	vcpu->running = true;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
}

bool kg_is_running(struct kg_vcpu *vcpu)
{
	bool running;

	pthread_mutex_lock(&vcpu->vm->lock);
	running = vcpu->running;
	pthread_mutex_unlock(&vcpu->vm->lock);
	return running;
}

enum kg_end kg_wait(struct kg_vcpu *vcpu, unsigned int timeout_ms)
{
	struct kg_vm *vm = vcpu->vm;
	enum kg_end end = KG_TIMEOUT;
	struct timespec ts;
	int ret = 0;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += timeout_ms / 1000;
	ts.tv_nsec += timeout_ms % 1000 * 1000000L;
	if (ts.tv_nsec >= 1000000000L) {
		ts.tv_nsec -= 1000000000L;
		ts.tv_sec++;
	}
	pthread_mutex_lock(&vm->lock);
	while (vcpu->running && !ret)
		ret = pthread_cond_timedwait(&vm->changed, &vm->lock, &ts);
	if (!vcpu->running)
		end = vcpu->end;
	pthread_mutex_unlock(&vm->lock);
	return end;
}

enum kg_end kg_kick(struct kg_vcpu *vcpu, unsigned int timeout_ms)
{
	pthread_mutex_lock(&vcpu->vm->lock);
	if (vcpu->running)
		pthread_kill(vcpu->thread, KICK_SIGNAL);
	pthread_mutex_unlock(&vcpu->vm->lock);
	return kg_wait(vcpu, timeout_ms);
}

enum kg_end kg_run(struct kg_vcpu *vcpu, unsigned int timeout_ms)
{
	enum kg_end end;

	kg_go(vcpu);
	end = kg_wait(vcpu, timeout_ms);
	if (end != KG_TIMEOUT)
		return end;
	end = kg_kick(vcpu, MUST_MS);
	if (end == KG_TIMEOUT)
		ktap_bail("vCPU %u: a signal does not end KVM_RUN", vcpu->id);
	/* It may have been done in the very moment */
	return end == KG_EINTR ? KG_TIMEOUT : end;
}

enum kg_end kg_run_immediate(struct kg_vcpu *vcpu)
{
	int ret;

	vcpu->run->immediate_exit = 1;
	ret = ioctl(vcpu->fd, KVM_RUN, 0);
	vcpu->error = ret < 0 ? errno : 0;
	vcpu->run->immediate_exit = 0;
	if (ret < 0 && vcpu->error == EINTR)
		return KG_EINTR;
	return ret < 0 && vcpu->error == EFAULT ? KG_EFAULT : KG_OTHER;
}

void kg_abandon(struct kg_vcpu *vcpu)
{
	struct kvm_regs regs;

	kg_get_regs(vcpu, &regs);
	regs.rip = AT(kg_code_loop);
	regs.rsp = vcpu->mb_gpa + KG_MB_STACK;
	regs.rflags = 2;
	kg_set_regs(vcpu, &regs);
}

/* Commands */

void kg_cmd(struct kg_vcpu *vcpu, u64 cmd, u64 arg0, u64 arg1, u64 arg2)
{
	vcpu->mb->cmd = cmd;
	vcpu->mb->arg[0] = arg0;
	vcpu->mb->arg[1] = arg1;
	vcpu->mb->arg[2] = arg2;
	vcpu->mb->stop = 0;
}

enum kg_end kg_do(struct kg_vcpu *vcpu, u64 cmd, u64 arg0, u64 arg1, u64 arg2)
{
	kg_cmd(vcpu, cmd, arg0, arg1, arg2);
	return kg_run(vcpu, MUST_MS);
}

static __attribute__((noreturn)) void lost(struct kg_vcpu *vcpu, enum kg_end end)
{
	struct kvm_regs regs;

	kg_get_regs(vcpu, &regs);
	if (end == KG_TRAP)
		ktap_bail("vCPU %u: exception %llu, error code 0x%llx, rip 0x%llx, cr2 0x%llx",
			  vcpu->id, (unsigned long long)vcpu->mb->trap[0],
			  (unsigned long long)vcpu->mb->trap[1],
			  (unsigned long long)vcpu->mb->trap[2],
			  (unsigned long long)vcpu->mb->trap[3]);
	ktap_bail("vCPU %u, command %llu: no answer but %s (errno %d, exit reason %u, rip 0x%llx)",
		  vcpu->id, (unsigned long long)vcpu->mb->cmd, kg_end_name(end),
		  vcpu->error, vcpu->run->exit_reason, regs.rip);
}

u64 kg_must(struct kg_vcpu *vcpu, u64 cmd, u64 arg0, u64 arg1, u64 arg2)
{
	enum kg_end end = kg_do(vcpu, cmd, arg0, arg1, arg2);

	if (end != KG_ANSWER)
		lost(vcpu, end);
	return vcpu->mb->result;
}

#define X2APIC_ICR	0x830

void kg_send_init(struct kg_vcpu *vcpu, u32 id)
{
	kg_must(vcpu, KG_CMD_WRMSR, X2APIC_ICR, (u64)id << 32 | 0x4500, 0);
}

void kg_send_sipi(struct kg_vcpu *vcpu, u32 id, unsigned int vector)
{
	kg_must(vcpu, KG_CMD_WRMSR, X2APIC_ICR, (u64)id << 32 | 0x4600 | vector, 0);
}

void kg_send_ipi(struct kg_vcpu *vcpu, u32 id)
{
	kg_must(vcpu, KG_CMD_WRMSR, X2APIC_ICR, (u64)id << 32 | 0x4000 | KG_IPI_VECTOR, 0);
}

void kg_start_ap(struct kg_vcpu *ap)
{
	struct kg_vcpu *bsp = &ap->vm->vcpu[0];

	kg_send_init(bsp, ap->id);
	kg_send_sipi(bsp, ap->id, (KG_TRAMPOLINE >> 12) + ap->index);
}

/* Hypercalls */

/* What the registers without a meaning hold */
static const struct kg_regs pattern = {
	.rdi = 0x1111111111111111, .rbp = 0x2222222222222222,
	.r8 = 0x8888888888888888, .r9 = 0x9999999999999999,
	.r10 = 0xaaaaaaaaaaaaaaaa, .r11 = 0xbbbbbbbbbbbbbbbb,
	.r12 = 0xcccccccccccccccc, .r13 = 0xdddddddddddddddd,
	.r14 = 0xeeeeeeeeeeeeeeee, .r15 = 0xffffffffffffffff,
	.rflags = 0xcd7,	/* all arithmetic flags, direction */
};

void kg_call_setup(struct kg_vcpu *vcpu, u64 rbx, u64 rcx, u64 rdx, u64 rsi)
{
	struct kg_mailbox *mb = vcpu->mb;

	mb->in = pattern;
	mb->in.rax = ELASTIC_HC_NR;
	mb->in.rbx = rbx;
	mb->in.rcx = rcx;
	mb->in.rdx = rdx;
	mb->in.rsi = rsi;
	memset(&mb->out, 0x5a, sizeof(mb->out));
	mb->xmm[0] = 0x0123456789abcdef;
	mb->xmm[1] = 0xfedcba9876543210;
	mb->xmm[2] = mb->xmm[3] = 0;
	kg_cmd(vcpu, KG_CMD_CALL, 0, 0, 0);
}

void kg_call_answer(struct kg_vcpu *vcpu, struct kg_answer *a)
{
	struct kg_mailbox *mb = vcpu->mb;
	const struct kg_regs *in = &mb->in, *out = &mb->out;

	a->status = (s64)out->rax;
	a->rbx = out->rbx;
	a->rcx = out->rcx;
	a->rdx = out->rdx;
	a->same = out->rbx == in->rbx && out->rcx == in->rcx && out->rdx == in->rdx;
	a->kept = out->rsi == in->rsi && out->rdi == in->rdi && out->rbp == in->rbp &&
		  out->r8 == in->r8 && out->r9 == in->r9 && out->r10 == in->r10 &&
		  out->r11 == in->r11 && out->r12 == in->r12 && out->r13 == in->r13 &&
		  out->r14 == in->r14 && out->r15 == in->r15 && out->rsp == in->rsp &&
		  ((out->rflags ^ in->rflags) & pattern.rflags) == 0 &&
		  mb->xmm[0] == mb->xmm[2] && mb->xmm[1] == mb->xmm[3];
}

enum kg_end kg_try_call(struct kg_vcpu *vcpu, u64 rbx, u64 rcx, u64 rdx, u64 rsi,
			struct kg_answer *answer)
{
	enum kg_end end;

	kg_call_setup(vcpu, rbx, rcx, rdx, rsi);
	end = kg_run(vcpu, MUST_MS);
	if (end == KG_ANSWER)
		kg_call_answer(vcpu, answer);
	return end;
}

struct kg_answer kg_call(struct kg_vcpu *vcpu, u64 rbx, u64 rcx, u64 rdx, u64 rsi)
{
	struct kg_answer answer = { 0 };
	enum kg_end end = kg_try_call(vcpu, rbx, rcx, rdx, rsi, &answer);

	if (end != KG_ANSWER)
		lost(vcpu, end);
	return answer;
}

const char *kg_mode_name(enum kg_mode mode)
{
	static const char *const names[KG_NR_MODES] = {
		"64-bit mode", "ring 3", "compatibility mode",
		"32-bit protected mode", "real mode",
	};

	return names[mode];
}

enum kg_end kg_call_mode(struct kg_vcpu *vcpu, enum kg_mode mode)
{
	struct kvm_regs regs = { .rsp = vcpu->mb_gpa + KG_MB_STACK };
	struct kvm_segment data = segment(KG_DS, 3, true, 0), gs;
	struct kvm_sregs sregs, saved;
	enum kg_end end;

	IOCTL(vcpu->fd, KVM_GET_SREGS, &saved);
	sregs = saved;
	gs = data;
	gs.base = vcpu->mb_gpa;
	regs.rflags = 2;
	switch (mode) {
	case KG_LONG:
	case KG_NR_MODES:
		regs.rip = AT(kg_code_call64);
		break;
	case KG_RING3:
		sregs.cs = segment(KG_CS64_USER, 0xb, false, 3);
		sregs.ss = sregs.ds = sregs.es = sregs.fs = sregs.gs =
			segment(KG_DS_USER, 3, true, 3);
		sregs.gs.base = vcpu->mb_gpa;
		regs.rflags |= 3 << 12;	/* IOPL: may use OUT */
		vcpu->mb->in.rflags |= 3 << 12;
		regs.rip = AT(kg_code_call64);
		break;
	case KG_PROTECTED:
		sregs.efer = 0;
		sregs.cr0 = 0x31;
		sregs.cr4 &= ~0x20ULL;
		/* fall through */
	case KG_COMPAT:
		sregs.cs = segment(KG_CS32, 0xb, true, 0);
		sregs.gs = gs;
		regs.rip = AT(kg_code_call32);
		break;
	case KG_REAL:
		sregs.efer = 0;
		sregs.cr0 = 0x30;
		sregs.cr4 &= ~0x20ULL;
		data = segment(0, 3, true, 0);
		data.limit = 0xffff;
		data.g = data.db = 0;
		sregs.cs = sregs.ss = sregs.ds = sregs.es = sregs.fs = sregs.gs = data;
		sregs.cs.type = 0xb;
		sregs.gs.selector = (u16)(vcpu->mb_gpa >> 4);
		sregs.gs.base = vcpu->mb_gpa;
		regs.rip = AT(kg_code_call16);
		break;
	}
	IOCTL(vcpu->fd, KVM_SET_SREGS, &sregs);
	kg_set_regs(vcpu, &regs);
	end = kg_run(vcpu, MUST_MS);
	IOCTL(vcpu->fd, KVM_SET_SREGS, &saved);
	kg_abandon(vcpu);
	return end;
}

u64 kg_hello_args(struct kg_vm *vm, u64 held, const struct elastic_range *absent,
		  unsigned int nr)
{
	struct elastic_hello hello = {
		.version_min = ELASTIC_VERSION,
		.version_max = ELASTIC_VERSION,
		.nr_cpu_words = 1,
		.nr_ranges = nr,
		.features = ELASTIC_FEAT_CPU | ELASTIC_FEAT_MEM | ELASTIC_FEAT_DISCARD |
			    vm->more_features,
	};
	uint8_t *p = vm->ram + KG_ARGS;

	memcpy(p, &hello, sizeof(hello));
	p += sizeof(hello);
	memcpy(p, &held, sizeof(held));
	p += sizeof(held);
	if (nr)
		memcpy(p, absent, nr * sizeof(*absent));
	return sizeof(hello) + sizeof(held) + nr * sizeof(*absent);
}

struct kg_answer kg_hello(struct kg_vcpu *vcpu, u64 held,
			  const struct elastic_range *absent, unsigned int nr)
{
	struct kg_vm *vm = vcpu->vm;
	u64 length = kg_hello_args(vm, held, absent, nr);
	char known[KG_NAMES][KG_NAME];
	unsigned int nr_known = list_dirs(known, KG_NAMES);
	struct kg_answer a;

	a = kg_call(vcpu, ELASTIC_OP_HELLO, 0, KG_ARGS, length);
	if (a.status == ELASTIC_OK) {
		vm->cookie = a.rbx;
		/* A HELLO that failed may have made it already */
		if (!vm->dir[0] && !find_dir(vm, known, nr_known))
			find_dir(vm, vm->known, vm->nr_known);
	}
	return a;
}

void kg_must_hello(struct kg_vcpu *vcpu, u64 held,
		   const struct elastic_range *absent, unsigned int nr)
{
	struct kg_answer a = kg_hello(vcpu, held, absent, nr);

	if (a.status != ELASTIC_OK)
		ktap_bail("HELLO answers %lld, reason %llu", (long long)a.status,
			  (unsigned long long)a.rbx);
	if (!vcpu->vm->dir[0])
		ktap_bail("HELLO is granted and no directory is in " KG_SYSFS "/vms");
}

struct kg_answer kg_request(struct kg_vcpu *vcpu, u64 cpus, u64 first, u64 nr)
{
	return kg_call(vcpu, ELASTIC_OP_REQUEST, vcpu->vm->cookie, cpus,
		       nr ? ELASTIC_RANGE(first, nr) : 0);
}

struct kg_answer kg_release_cpu(struct kg_vcpu *vcpu, u64 cpus)
{
	return kg_call(vcpu, ELASTIC_OP_RELEASE_CPU, vcpu->vm->cookie, cpus, 0);
}

struct kg_answer kg_release_mem(struct kg_vcpu *vcpu, u64 first, u64 nr)
{
	struct elastic_range range = { first, nr };

	memcpy(vcpu->vm->ram + KG_ARGS, &range, sizeof(range));
	return kg_call(vcpu, ELASTIC_OP_RELEASE_MEM, vcpu->vm->cookie, KG_ARGS, 1);
}

struct kg_answer kg_discard(struct kg_vcpu *vcpu, u64 first, u64 nr)
{
	struct elastic_range range = { first, nr };

	memcpy(vcpu->vm->ram + KG_ARGS, &range, sizeof(range));
	return kg_call(vcpu, ELASTIC_OP_DISCARD, vcpu->vm->cookie, KG_ARGS, 1);
}

struct kg_answer kg_report(struct kg_vcpu *vcpu)
{
	struct elastic_report report = { .period_ns = 1000000000, .cpus_online = 1 };

	memcpy(vcpu->vm->ram + KG_ARGS, &report, sizeof(report));
	return kg_call(vcpu, ELASTIC_OP_REPORT, vcpu->vm->cookie, KG_ARGS, sizeof(report));
}

struct kg_answer kg_bye(struct kg_vcpu *vcpu)
{
	return kg_call(vcpu, ELASTIC_OP_BYE, vcpu->vm->cookie, 0, 0);
}

/* System management mode */

bool kg_smm_setup(struct kg_vm *vm)
{
	if (ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM) <= 0 ||
	    ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE) < 2)
		return false;
	kg_slot(vm, KG_SMM_SLOT | KG_SLOT_LOW, 0, KG_LOW_END, vm->ram, 0);
	kg_slot(vm, KG_SMM_SLOT | KG_SLOT_RAM, KG_RAM, vm->cfg.ram - KG_RAM, vm->ram + KG_RAM, 0);
	/* SMBASE is 0x30000 after a reset, and the entry 32 KiB above */
	memcpy(vm->ram + KG_SMM, kg_smm_start, (size_t)(kg_smm_end - kg_smm_start));
	return true;
}

enum kg_end kg_smm_do(struct kg_vcpu *vcpu, bool write, u32 gpa, u32 *value)
{
	volatile u32 *args = (volatile u32 *)(vcpu->vm->ram + KG_SMM_ADDRESS);
	enum kg_end end;

	args[0] = gpa;
	args[1] = *value;
	args[2] = write;
	kg_cmd(vcpu, KG_CMD_NOP, 0, 0, 0);
	if (ioctl(vcpu->fd, KVM_SMI, 0) < 0)
		ktap_bail("KVM_SMI: %s", strerror(errno));
	end = kg_run(vcpu, MUST_MS);
	*value = args[1];
	return end;
}

/* vCPU ioctls */

void kg_get_regs(struct kg_vcpu *vcpu, struct kvm_regs *regs)
{
	IOCTL(vcpu->fd, KVM_GET_REGS, regs);
}

void kg_set_regs(struct kg_vcpu *vcpu, struct kvm_regs *regs)
{
	IOCTL(vcpu->fd, KVM_SET_REGS, regs);
}

u32 kg_get_mp_state(struct kg_vcpu *vcpu)
{
	struct kvm_mp_state state;

	IOCTL(vcpu->fd, KVM_GET_MP_STATE, &state);
	return state.mp_state;
}

void kg_set_mp_state(struct kg_vcpu *vcpu, u32 state)
{
	struct kvm_mp_state mp = { .mp_state = state };

	IOCTL(vcpu->fd, KVM_SET_MP_STATE, &mp);
}

void kg_reset(struct kg_vm *vm)
{
	unsigned int i;

	for (i = 0; i < vm->nr_vcpus; i++)
		if (kg_is_running(&vm->vcpu[i]))
			kg_kick(&vm->vcpu[i], MUST_MS);
	build_low(vm);
	for (i = 0; i < vm->nr_vcpus; i++) {
		struct kg_vcpu *vcpu = &vm->vcpu[i];
		struct kvm_vcpu_events events;

		vcpu->mb->intel = host_is_intel();
		if (!i)
			set_long_mode(vcpu);
		/* Drops an INIT that came while the vCPU could not take it */
		IOCTL(vcpu->fd, KVM_GET_VCPU_EVENTS, &events);
		events.flags = KVM_VCPUEVENT_VALID_SMM;
		memset(&events.smi, 0, sizeof(events.smi));
		IOCTL(vcpu->fd, KVM_SET_VCPU_EVENTS, &events);
		kg_set_mp_state(vcpu, i ? KVM_MP_STATE_UNINITIALIZED :
				KVM_MP_STATE_RUNNABLE);
	}
}

/* The host module */

bool host_module_loaded(void)
{
	return !access("/sys/module/elastic_host", F_OK);
}

static const char *module_path(void)
{
	const char *path = getenv("ELASTIC_HOST_KO");

	return path && !access(path, R_OK) ? path : NULL;
}

int host_module_load(void)
{
	const char *path = module_path();
	int fd, ret;

	if (!path)
		return -ENOENT;
	fd = must(open(path, O_RDONLY | O_CLOEXEC), path);
	ret = syscall(SYS_finit_module, fd, "", 0) ? -errno : 0;
	close(fd);
	return ret;
}

int host_module_unload(void)
{
	return syscall(SYS_delete_module, "elastic_host", O_NONBLOCK) ? -errno : 0;
}

static pid_t loader;

static void unload_at_exit(void)
{
	/* Children that a test forks have the handler, too */
	if (getpid() == loader && host_module_loaded() && host_module_unload())
		ktap_diag("cannot unload elastic_host: %s", strerror(errno));
}

void host_module_need(void)
{
	int ret;

	if (access("/dev/kvm", R_OK | W_OK))
		ktap_skip_all("/dev/kvm cannot be opened");
	if (host_module_loaded())
		return;
	if (!module_path())
		ktap_skip_all("elastic_host is not loaded and ELASTIC_HOST_KO names no module");
	ret = host_module_load();
	if (ret)
		ktap_bail("cannot load elastic_host: %s", strerror(-ret));
	loader = getpid();
	atexit(unload_at_exit);
}

static int read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len;

	if (fd < 0)
		return -errno;
	len = read(fd, text, size - 1);
	if (len < 0)
		len = -errno;
	close(fd);
	if (len < 0)
		return (int)len;
	if (len && text[len - 1] == '\n')
		len--;
	text[len] = 0;
	return 0;
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return -errno;
	ret = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

static s64 number_of(const char *path)
{
	char text[64], *end;
	int ret = read_file(path, text, sizeof(text));
	s64 value;

	if (ret)
		ktap_bail("%s: %s", path, strerror(-ret));
	value = strtoll(text, &end, 10);
	if (end == text || *end)
		ktap_bail("%s: \"%s\" is not a number", path, text);
	return value;
}

s64 kg_stat(struct kg_vm *vm, const char *file)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", vm->dir, file);
	return number_of(path);
}

void kg_file(struct kg_vm *vm, const char *file, char *text, size_t size)
{
	char path[512];
	int ret;

	snprintf(path, sizeof(path), "%s/%s", vm->dir, file);
	ret = read_file(path, text, size);
	if (ret)
		ktap_bail("%s: %s", path, strerror(-ret));
}

int kg_write(struct kg_vm *vm, const char *file, const char *text)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", vm->dir, file);
	return write_file(path, text);
}

s64 host_stat(const char *file)
{
	char path[512];

	snprintf(path, sizeof(path), KG_SYSFS "/%s", file);
	return number_of(path);
}

int host_write(const char *file, const char *text)
{
	char path[512];

	snprintf(path, sizeof(path), KG_SYSFS "/%s", file);
	return write_file(path, text);
}

const char *kg_state(struct kg_vm *vm)
{
	static char text[32];
	char path[512];

	snprintf(path, sizeof(path), "%s/state", vm->dir);
	if (!vm->dir[0] || read_file(path, text, sizeof(text)))
		return "";
	return text;
}

char *kg_snapshot(struct kg_vm *vm)
{
	static const char *const host[] = {
		"cpu/pool", "cpu/used", "memory/pool_mib", "memory/used_mib",
	};
	static const char *const own[] = {
		"state", "cpu/ceiling", "cpu/grant", "cpu/list", "cpu/use", "cpu/min",
		"cpu/max", "memory/ceiling_mib", "memory/grant_mib", "memory/use_mib",
		"memory/min_mib", "memory/max_mib", "stats/taken_bytes",
		"stats/unreclaimed_bytes", "stats/gated",
	};
	char *text = calloc(1, 4096), value[256], path[512];
	size_t len = 0, i;

	if (!text)
		ktap_bail("no memory");
	for (i = 0; i < sizeof(host) / sizeof(*host); i++) {
		snprintf(path, sizeof(path), KG_SYSFS "/%s", host[i]);
		if (read_file(path, value, sizeof(value)))
			snprintf(value, sizeof(value), "-");
		len += (size_t)snprintf(text + len, 4096 - len, "%s=%s\n", host[i], value);
	}
	for (i = 0; vm->dir[0] && i < sizeof(own) / sizeof(*own); i++) {
		snprintf(path, sizeof(path), "%s/%s", vm->dir, own[i]);
		if (read_file(path, value, sizeof(value)))
			snprintf(value, sizeof(value), "-");
		len += (size_t)snprintf(text + len, 4096 - len, "%s=%s\n", own[i], value);
	}
	return text;
}
