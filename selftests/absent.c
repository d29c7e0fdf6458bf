// SPDX-License-Identifier: GPL-2.0-only
/*
 * A host without the module: KVM itself answers, and every answer must be one
 * by which a guest can tell that nobody is there. Unloads the module if it is
 * loaded, and loads it again.
 */
#include <unistd.h>

#include "ktap.h"
#include "kvm_guest.h"

static void check(struct kg_vcpu *vcpu, enum kg_mode mode, u64 op, s64 want)
{
	struct kg_mailbox *mb = vcpu->mb;
	struct kg_answer a;
	enum kg_end end;
	bool kept;
	s64 status;

	kg_call_setup(vcpu, op, 0x1234, KG_ARGS, 128);
	end = kg_call_mode(vcpu, mode);
	kg_call_answer(vcpu, &a);
	if (mode == KG_LONG || mode == KG_RING3) {
		kept = a.same && a.kept;
		status = a.status;
	} else {
		kept = (u32)mb->out.rbx == (u32)mb->in.rbx &&
		       (u32)mb->out.rcx == (u32)mb->in.rcx &&
		       (u32)mb->out.rdx == (u32)mb->in.rdx &&
		       (u32)mb->out.rsi == (u32)mb->in.rsi;
		status = (int)a.status;
	}
	ktap_ok(end == KG_ANSWER && status == want && kept,
		"operation %llu from %s: %s %lld, registers %s", (unsigned long long)op,
		kg_mode_name(mode), kg_end_name(end), (long long)status,
		kept ? "kept" : "changed");
}

int main(void)
{
	struct kg_config cfg = { 0 };
	bool was_loaded = host_module_loaded();
	struct kg_vm *vm;
	int ret;
	u64 op;

	if (access("/dev/kvm", R_OK | W_OK))
		ktap_skip_all("/dev/kvm cannot be opened");
	if (was_loaded) {
		if (!getenv("ELASTIC_HOST_KO"))
			ktap_skip_all("elastic_host is loaded, and ELASTIC_HOST_KO does not say how to load it again");
		ret = host_module_unload();
		if (ret)
			ktap_bail("cannot unload elastic_host: %s", strerror(-ret));
	}
	ktap_ok(access(KG_SYSFS, F_OK), KG_SYSFS " does not exist");
	vm = kg_new(&cfg);
	for (op = 0; op <= ELASTIC_OP_NR; op++)
		check(&vm->vcpu[0], KG_LONG, op, KG_ENOSYS);
	/* KVM looks at the privilege level before it looks at the number */
	check(&vm->vcpu[0], KG_RING3, ELASTIC_OP_HELLO, ELASTIC_E_PERM);
	check(&vm->vcpu[0], KG_RING3, ELASTIC_OP_NR, ELASTIC_E_PERM);
	check(&vm->vcpu[0], KG_COMPAT, ELASTIC_OP_HELLO, KG_ENOSYS);
	check(&vm->vcpu[0], KG_PROTECTED, ELASTIC_OP_HELLO, KG_ENOSYS);
	check(&vm->vcpu[0], KG_REAL, ELASTIC_OP_HELLO, KG_ENOSYS);
	kg_free(vm);
	if (was_loaded) {
		ret = host_module_load();
		ktap_eq(ret, 0, "the module is loaded again");
	}
	return ktap_finish();
}
