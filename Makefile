# SPDX-License-Identifier: GPL-2.0
# For people; kbuild reads Kbuild.

KDIR ?= /lib/modules/$(shell uname -r)/build

help:
	@echo 'make modules [KDIR=DIR]  build both modules for the kernel whose headers are in DIR'
	@echo '                         (default: the running kernel)'
	@echo 'make install [KDIR=DIR]  install the modules that were built'
	@echo 'make demo                show it: a guest grows and shrinks (installs what it needs)'
	@echo 'make bench               beside ACPI hot-plug, virtio-mem and others, up to an hour; make bench'
	@echo '                         CASE=NAME: one case (scripts/bench --help: parts of it, real hosts)'
	@echo 'make bench-memory        how fast memory comes and goes, beside its peers (10 minutes and more)'
	@echo '                         (scripts/bench-memory --help: parts of it)'
	@echo 'make bench-arbiter       six VMs on half a pool, beside the same pool divided evenly'
	@echo 'make check               run all tests (installs what it needs)'
	@echo 'make check-vmx           the tests of what is different on Intel processors'
	@echo 'make check-debug         some of them with a kernel that finds faults, as host and as guest'
	@echo '                         (built the first time: half an hour)'
	@echo 'make lint                checkpatch, sparse, W=1, shellcheck, house rules'
	@echo 'make clean               remove what was built'

modules:
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

# The host gets elastic_host where its kernel has KVM; a guest kernel without
# KVM builds elastic_guest alone, and so installs it alone.
install:
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules_install

demo:
	scripts/demo

bench:
	scripts/bench $(CASE)

bench-memory:
	scripts/bench-memory

bench-arbiter:
	scripts/bench-arbiter

check:
	scripts/check

check-vmx:
	scripts/check --vendor intel

check-debug:
	scripts/check --debug

lint:
	scripts/lint

clean:
	if [ -d '$(KDIR)' ]; then $(MAKE) -C '$(KDIR)' M=$(CURDIR) clean; fi
	$(MAKE) -C selftests clean
	rm -rf build demo-output bench-output

.PHONY: help modules install demo bench bench-memory bench-arbiter check check-vmx check-debug lint clean
