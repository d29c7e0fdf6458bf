// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that KVM reads and writes for the guest when it emulates an instruction:
 * none of that may use or populate a unit that is not granted. Each case works on
 * granted memory; on other memory the VM is stopped or gets an exception, and the
 * host has no page there afterwards.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ktap.h"
#include "kvm_guest.h"

#define RAM_UNITS	32
#define UNIT(n)		((u64)(n) << ELASTIC_UNIT_SHIFT)
#define GRANTED		8
#define WITHHELD	16
#define OFFSET		0x3000	/* in the unit: a page that nothing else uses */
#define MMIO		0xd0000000ULL	/* no slot */
#define SOON_MS		30000

static struct kg_vm *vm;
static struct kg_vcpu *bsp;

static bool has_page(u64 gpa)
{
	off_t offset = (off_t)(gpa & ~0xfffULL);
	off_t data = lseek(vm->ram_fd, offset, SEEK_DATA);

	return data >= offset && data < offset + 4096;
}

/* Until something else than a device access ends it; devices read as 0xab */
static enum kg_end run_on(enum kg_end end)
{
	struct kvm_run *run = bsp->run;

	while (end == KG_OTHER && !bsp->error) {
		if (run->exit_reason == KVM_EXIT_IO && run->io.port == KG_PORT_STRING) {
			if (run->io.direction == KVM_EXIT_IO_IN)
				memset((uint8_t *)run + run->io.data_offset, 0xab,
				       (size_t)run->io.size * run->io.count);
		} else if (run->exit_reason == KVM_EXIT_MMIO) {
			if (!run->mmio.is_write)
				memset(run->mmio.data, 0xab, sizeof(run->mmio.data));
		} else {
			break;
		}
		end = kg_run(bsp, SOON_MS);
	}
	return end;
}

/* Each case gets an address in a unit and ends as KVM_RUN did */

static enum kg_end outs(u64 gpa)
{
	return run_on(kg_do(bsp, KG_CMD_OUTS, gpa, 16, 0));
}

static enum kg_end ins(u64 gpa)
{
	return run_on(kg_do(bsp, KG_CMD_INS, gpa, 16, 0));
}

static enum kg_end to_device(u64 gpa)
{
	return run_on(kg_do(bsp, KG_CMD_MOVS, gpa, MMIO, 8));
}

static enum kg_end from_device(u64 gpa)
{
	return run_on(kg_do(bsp, KG_CMD_MOVS, MMIO, gpa, 8));
}

static enum kg_end vmload(u64 gpa)
{
	return kg_do(bsp, KG_CMD_VMLOAD, gpa, 0, 0);
}

/* What a VMXON or VMCS region must begin with */
static u32 vmx_revision(void)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry.index = 0x480 };	/* IA32_VMX_BASIC */

	return ioctl(vm->kvm_fd, KVM_GET_MSRS, &msrs) == 1 ? (u32)msrs.entry.data & 0x7fffffff : 0;
}

static void region(u64 gpa)
{
	if (gpa < UNIT(WITHHELD))
		*(u32 *)kg_hva(vm, gpa) = vmx_revision();
}

/* One that did not work out has not been tried */
static enum kg_end vmx(u64 vmxon, u64 vmptrld)
{
	enum kg_end end;

	region(vmxon);
	if (vmptrld)
		region(vmptrld);
	end = kg_do(bsp, KG_CMD_VMXON, vmxon & ~0xfffULL, vmptrld & ~0xfffULL, 0);
	if (end == KG_ANSWER && bsp->mb->result)
		ktap_diag("the instruction failed");
	return end;
}

static enum kg_end vmxon(u64 gpa)
{
	return vmx(gpa, 0);
}

static enum kg_end vmptrld(u64 gpa)
{
	return vmx(KG_ARGS, gpa);
}

/* What the guest asks KVM to write */
static enum kg_end wall_clock(u64 gpa)
{
	return kg_do(bsp, KG_CMD_WRMSR, 0x4b564d00, gpa, 0);
}

static enum kg_end stolen_time(u64 gpa)
{
	return kg_do(bsp, KG_CMD_WRMSR, 0x4b564d03, gpa | 1, 0);
}

/* The VMM's own: state that it has saved elsewhere points into such memory */
static enum kg_end cr3(u64 gpa)
{
	struct kvm_sregs sregs;

	if (ioctl(bsp->fd, KVM_GET_SREGS, &sregs))
		ktap_bail("KVM_GET_SREGS: %s", strerror(errno));
	memcpy(vm->ram + KG_ARGS, vm->ram + KG_PML4, 4096);
	if (gpa < UNIT(WITHHELD))
		memcpy(kg_hva(vm, gpa), vm->ram + KG_PML4, 4096);
	sregs.cr3 = gpa;
	if (ioctl(bsp->fd, KVM_SET_SREGS, &sregs))
		return KG_OTHER;
	return run_on(kg_do(bsp, KG_CMD_OUTS, KG_ARGS, 16, 0));
}

static const struct {
	const char *what;
	enum kg_end (*run)(u64 gpa);
	bool may_trap;	/* on granted memory, too: the host may not have it */
	enum { ANY, AMD, INTEL } vendor;
} cases[] = {
	{ "REP OUTS from it", outs, false, ANY },
	{ "REP INS into it", ins, false, ANY },
	{ "MOVS from it to a device", to_device, false, ANY },
	{ "MOVS from a device into it", from_device, false, ANY },
	{ "CR3 pointing to it", cr3, false, ANY },
	{ "the wall clock into it", wall_clock, false, ANY },
	{ "stolen time into it", stolen_time, false, ANY },
	{ "VMLOAD from it", vmload, true, AMD },
	{ "VMXON of it", vmxon, true, INTEL },
	{ "VMPTRLD of it", vmptrld, true, INTEL },
};

static enum kg_end one(unsigned int i, u64 unit, bool *populated)
{
	struct kg_config cfg = { .ram = UNIT(RAM_UNITS) };
	struct elastic_range absent = { WITHHELD, 8 };
	u64 gpa = UNIT(unit) + OFFSET;
	enum kg_end end;
	int error;

	vm = kg_new(&cfg);
	bsp = &vm->vcpu[0];
	kg_must_hello(bsp, 1, &absent, 1);
	/* What the guest has in granted memory is there before */
	if (unit == GRANTED)
		kg_must(bsp, KG_CMD_WRITE, gpa, 0, 0);
	end = cases[i].run(gpa);
	error = bsp->error;
	*populated = has_page(gpa);
	if (*populated && unit == WITHHELD)
		ktap_diag("the page's first word is 0x%llx",
			  (unsigned long long)*(u64 *)kg_hva(vm, gpa));
	if (end == KG_OTHER)
		ktap_diag("%s: errno %d, exit reason %u", cases[i].what, error,
			  bsp->run->exit_reason);
	kg_free(vm);
	return end;
}

int main(void)
{
	struct kg_config cfg = { .ram = UNIT(RAM_UNITS) };
	struct kg_vm *other;
	unsigned int i;
	bool intel;

	host_module_need();
	other = kg_new(&cfg);
	bsp = &other->vcpu[0];
	/* The mailbox knows: VMMCALL or VMCALL */
	intel = bsp->mb->intel;
	kg_must_hello(&other->vcpu[0], 1, NULL, 0);
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		enum kg_end granted, withheld;
		bool populated;

		if (cases[i].vendor == (intel ? AMD : INTEL)) {
			ktap_skip(intel ? "not an AMD processor" : "not an Intel processor", "%s",
				  cases[i].what);
			continue;
		}
		granted = one(i, GRANTED, &populated);
		ktap_ok(granted == KG_ANSWER || (cases[i].may_trap && granted == KG_TRAP),
			"%s, granted: %s", cases[i].what, kg_end_name(granted));
		withheld = one(i, WITHHELD, &populated);
		ktap_ok(!populated && withheld != KG_TIMEOUT && withheld != KG_ANSWER,
			"%s, not granted: %s%s",
			cases[i].what, kg_end_name(withheld),
			populated ? ", and the host has a page there" : "");
	}
	ktap_ok(kg_do(&other->vcpu[0], KG_CMD_WRITE, UNIT(WITHHELD), 1, 0) == KG_ANSWER,
		"another VM runs on");
	kg_free(other);
	return ktap_finish();
}
