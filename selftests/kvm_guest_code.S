/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What runs inside the VM of kvm_guest.c: copied to guest address KG_CODE. GS is
 * the vCPU's mailbox in every mode; nothing else is addressed absolutely except
 * this code itself.
 */
#define __ASSEMBLER__ 1
#include "kvm_guest.h"

#define AT(label)	((label) - kg_code_start + KG_CODE)

	.section .rodata
	.globl kg_code_start, kg_code_end
	.globl kg_code_loop, kg_code_call64, kg_code_call32, kg_code_call16
	.globl kg_code_traps, kg_code_trap_size, kg_code_nmi, kg_code_ipi
	.globl kg_code_ap64
	.globl kg_tramp_start, kg_tramp_end

/*
 * The registers of mailbox.in, the call, and the registers to mailbox.out. Flags
 * are set before it (carry, sign, ...) and are saved after: MOV changes none.
 */
.macro CALL64 insn
	mov	%rsp, %gs:KG_MB_IN + KG_RSP
	pushq	%gs:KG_MB_IN + KG_RFLAGS
	popfq
	movq	%gs:KG_MB_XMM, %xmm0
	movq	%gs:KG_MB_XMM + 8, %xmm15
	mov	%gs:KG_MB_IN + KG_RAX, %rax
	mov	%gs:KG_MB_IN + KG_RBX, %rbx
	mov	%gs:KG_MB_IN + KG_RCX, %rcx
	mov	%gs:KG_MB_IN + KG_RDX, %rdx
	mov	%gs:KG_MB_IN + KG_RSI, %rsi
	mov	%gs:KG_MB_IN + KG_RDI, %rdi
	mov	%gs:KG_MB_IN + KG_RBP, %rbp
	mov	%gs:KG_MB_IN + KG_R8, %r8
	mov	%gs:KG_MB_IN + KG_R9, %r9
	mov	%gs:KG_MB_IN + KG_R10, %r10
	mov	%gs:KG_MB_IN + KG_R11, %r11
	mov	%gs:KG_MB_IN + KG_R12, %r12
	mov	%gs:KG_MB_IN + KG_R13, %r13
	mov	%gs:KG_MB_IN + KG_R14, %r14
	mov	%gs:KG_MB_IN + KG_R15, %r15
	\insn
	mov	%rax, %gs:KG_MB_OUT + KG_RAX
	mov	%rbx, %gs:KG_MB_OUT + KG_RBX
	mov	%rcx, %gs:KG_MB_OUT + KG_RCX
	mov	%rdx, %gs:KG_MB_OUT + KG_RDX
	mov	%rsi, %gs:KG_MB_OUT + KG_RSI
	mov	%rdi, %gs:KG_MB_OUT + KG_RDI
	mov	%rbp, %gs:KG_MB_OUT + KG_RBP
	mov	%r8, %gs:KG_MB_OUT + KG_R8
	mov	%r9, %gs:KG_MB_OUT + KG_R9
	mov	%r10, %gs:KG_MB_OUT + KG_R10
	mov	%r11, %gs:KG_MB_OUT + KG_R11
	mov	%r12, %gs:KG_MB_OUT + KG_R12
	mov	%r13, %gs:KG_MB_OUT + KG_R13
	mov	%r14, %gs:KG_MB_OUT + KG_R14
	mov	%r15, %gs:KG_MB_OUT + KG_R15
	mov	%rsp, %gs:KG_MB_OUT + KG_RSP
	movq	%xmm0, %gs:KG_MB_XMM + 16
	movq	%xmm15, %gs:KG_MB_XMM + 24
	mov	%gs:KG_MB_RSP, %rsp
	pushfq
	popq	%gs:KG_MB_OUT + KG_RFLAGS
	cld
.endm

/* The same with the registers that 32-bit and 16-bit code has, but for ESP */
.macro CALL32 insn
	movl	%gs:KG_MB_IN + KG_RAX, %eax
	movl	%gs:KG_MB_IN + KG_RBX, %ebx
	movl	%gs:KG_MB_IN + KG_RCX, %ecx
	movl	%gs:KG_MB_IN + KG_RDX, %edx
	movl	%gs:KG_MB_IN + KG_RSI, %esi
	movl	%gs:KG_MB_IN + KG_RDI, %edi
	movl	%gs:KG_MB_IN + KG_RBP, %ebp
	\insn
	movl	%eax, %gs:KG_MB_OUT + KG_RAX
	movl	%ebx, %gs:KG_MB_OUT + KG_RBX
	movl	%ecx, %gs:KG_MB_OUT + KG_RCX
	movl	%edx, %gs:KG_MB_OUT + KG_RDX
	movl	%esi, %gs:KG_MB_OUT + KG_RSI
	movl	%edi, %gs:KG_MB_OUT + KG_RDI
	movl	%ebp, %gs:KG_MB_OUT + KG_RBP
.endm

	.balign 4096
kg_code_start:
	.code64
kg_code_loop:
	mov	%gs:KG_MB_RSP, %rsp
	mov	%gs:KG_MB_ARG0, %rdi
	mov	%gs:KG_MB_ARG1, %rsi
	mov	%gs:KG_MB_ARG2, %rdx
	mov	%gs:KG_MB_CMD, %rcx
	xor	%eax, %eax
	cmp	$KG_CMD_NOP, %ecx
	je	done
	cmp	$KG_CMD_CALL, %ecx
	je	cmd_call
	cmp	$KG_CMD_READ, %ecx
	je	cmd_read
	cmp	$KG_CMD_WRITE, %ecx
	je	cmd_write
	cmp	$KG_CMD_EXEC, %ecx
	je	cmd_exec
	cmp	$KG_CMD_SPIN, %ecx
	je	cmd_spin
	cmp	$KG_CMD_HLT, %ecx
	je	cmd_hlt
	cmp	$KG_CMD_WRMSR, %ecx
	je	cmd_wrmsr
	cmp	$KG_CMD_FILL, %ecx
	je	cmd_fill
	cmp	$KG_CMD_CHECK, %ecx
	je	cmd_check
	cmp	$KG_CMD_ONES, %ecx
	je	cmd_ones
	cmp	$KG_CMD_HLT_OFF, %ecx
	je	cmd_hlt_off
	cmp	$KG_CMD_OUTS, %ecx
	je	cmd_outs
	cmp	$KG_CMD_INS, %ecx
	je	cmd_ins
	cmp	$KG_CMD_MOVS, %ecx
	je	cmd_movs
	cmp	$KG_CMD_VMLOAD, %ecx
	je	cmd_vmload
	cmp	$KG_CMD_VMXON, %ecx
	je	cmd_vmxon
	cmp	$KG_CMD_CALLS, %ecx
	je	cmd_calls
	cmp	$KG_CMD_TIMED_CALLS, %ecx
	je	cmd_timed_calls
	cmp	$KG_CMD_TOUCH, %ecx
	je	cmd_touch
	cmp	$KG_CMD_IPIS, %ecx
	je	cmd_ipis
	ud2
done:
	mov	%rax, %gs:KG_MB_RESULT
	out	%al, $KG_PORT_DONE
	jmp	kg_code_loop

cmd_call:
	cmpb	$0, %gs:KG_MB_INTEL
	jne	1f
	CALL64	vmmcall
	jmp	done
1:	CALL64	vmcall
	jmp	done

cmd_read:
	mov	(%rdi), %rax
	jmp	done

cmd_write:
	mov	%rsi, (%rdi)
	jmp	done

cmd_exec:
	call	*%rdi
	xor	%eax, %eax
	jmp	done

/*
 * Interrupts are disabled here. With PAUSE, as a busy loop should have it, KVM gets the
 * vCPU out now and then (pause-loop exiting). The emulator of the Intel test-bed needs
 * that: it does not end such a guest for an interrupt of the host, see docs/vendors.md.
 */
cmd_spin:
	pause
	incq	%gs:KG_MB_COUNTER
	cmpq	$0, %gs:KG_MB_STOP
	je	cmd_spin
	jmp	done

cmd_hlt:
	sti
	hlt
	cli
	jmp	done

cmd_hlt_off:
	hlt
	jmp	cmd_hlt_off

cmd_outs:
	mov	%rsi, %rcx
	mov	%rdi, %rsi
	mov	$KG_PORT_STRING, %edx
	rep outsb
	jmp	done

cmd_ins:
	mov	%rsi, %rcx
	mov	$KG_PORT_STRING, %edx
	rep insb
	jmp	done

cmd_movs:
	xchg	%rdi, %rsi
	mov	%rdx, %rcx
	rep movsb
	jmp	done

cmd_vmload:
	mov	$0xc0000080, %ecx	/* EFER: SVM */
	rdmsr
	or	$0x1000, %eax
	wrmsr
	mov	%rdi, %rax
	vmload	%rax
	xor	%eax, %eax
	jmp	done

cmd_vmxon:
	mov	$0x3a, %ecx		/* IA32_FEATURE_CONTROL: locked, VMXON */
	rdmsr
	test	$1, %eax
	jnz	1f
	or	$5, %eax
	wrmsr
1:	mov	%cr4, %rax
	or	$0x2000, %rax		/* VMXE */
	mov	%rax, %cr4
	vmxon	%gs:KG_MB_ARG0
	jbe	2f			/* carry or zero: it failed */
	xor	%eax, %eax
	cmpq	$0, %gs:KG_MB_ARG1
	je	done
	vmptrld	%gs:KG_MB_ARG1
	ja	done
2:	mov	$1, %eax
	jmp	done

cmd_calls:
	mov	%rdi, %r8
	mov	%rsi, %r9
1:	xor	%eax, %eax
	test	%r9, %r9
	jz	done
	mov	KG_LIST_RBX(%r8), %rbx
	mov	KG_LIST_RCX(%r8), %rcx
	mov	KG_LIST_RDX(%r8), %rdx
	mov	KG_LIST_RSI(%r8), %rsi
	cmp	$-1, %rbx
	jne	2f
	mov	%rcx, (%rdx)
	jmp	5f
2:	mov	$KG_COOKIE_LIVE, %eax
	cmp	%rax, %rcx
	jne	3f
	mov	KG_COOKIE, %rcx
3:	mov	$KG_HC_NR, %eax
	cmpb	$0, %gs:KG_MB_INTEL
	jne	4f
	vmmcall
	jmp	5f
4:	vmcall
5:	mov	%rax, KG_LIST_OUT(%r8)
	mov	%rbx, KG_LIST_OUT + 8(%r8)
	mov	%rcx, KG_LIST_OUT + 16(%r8)
	mov	%rdx, KG_LIST_OUT + 24(%r8)
	test	%rax, %rax
	jnz	6f
	cmpw	$0, KG_LIST_RBX(%r8)	/* HELLO */
	jne	6f
	mov	%rbx, KG_COOKIE
6:	incq	%gs:KG_MB_COUNTER
	add	$KG_LIST_SIZE, %r8
	dec	%r9
	jmp	1b

cmd_wrmsr:
	mov	%edi, %ecx
	mov	%esi, %eax
	mov	%rsi, %rdx
	shr	$32, %rdx
	wrmsr
	xor	%eax, %eax
	jmp	done

cmd_fill:
	test	%rsi, %rsi
	jz	done
1:	mov	%rdx, (%rdi)
	add	$8, %rdi
	inc	%rdx
	dec	%rsi
	jnz	1b
	jmp	done

cmd_check:
	test	%rsi, %rsi
	jz	done
1:	cmp	%rdx, (%rdi)
	jne	2f
	inc	%rax
2:	add	$8, %rdi
	inc	%rdx
	dec	%rsi
	jnz	1b
	jmp	done

cmd_ones:
	test	%rsi, %rsi
	jz	done
1:	cmpq	$0, (%rdi)
	je	2f
	inc	%rax
2:	add	$8, %rdi
	dec	%rsi
	jnz	1b
	jmp	done

/* The TSC in RAX; clobbers RDX */
.macro TICKS
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
.endm

/* arg1 times @insn with arg0 in RAX; no other argument matters */
.macro CALLS insn
1:	mov	%rdi, %rax
	\insn
	dec	%rsi
	jnz	1b
.endm

cmd_timed_calls:
	TICKS
	mov	%rax, %r8
	cmpb	$0, %gs:KG_MB_INTEL
	jne	2f
	CALLS	vmmcall
	jmp	cmd_ticks
2:	CALLS	vmcall
cmd_ticks:
	TICKS
	sub	%r8, %rax
	jmp	done

cmd_touch:
	TICKS
	mov	%rax, %r8
1:	movb	$1, (%rdi)
	add	$4096, %rdi
	dec	%rsi
	jnz	1b
	jmp	cmd_ticks

cmd_ipis:
	TICKS
	mov	%rax, %r8
	mov	$0x830, %ecx		/* x2APIC ICR: to itself */
	sti
1:	mov	$(0x40000 | KG_IPI_VECTOR), %eax
	xor	%edx, %edx
	wrmsr
	dec	%rsi
	jnz	1b
	cli
	jmp	cmd_ticks

/* Entered by the VMM in another mode; never left but by the VMM */
kg_code_call64:
	cmpb	$0, %gs:KG_MB_INTEL
	jne	1f
	CALL64	vmmcall
	jmp	2f
1:	CALL64	vmcall
2:	out	%al, $KG_PORT_DONE
	jmp	2b

	.code32
kg_code_call32:
	cmpb	$0, %gs:KG_MB_INTEL
	jne	1f
	CALL32	vmmcall
	jmp	2f
1:	CALL32	vmcall
2:	out	%al, $KG_PORT_DONE
	jmp	2b

	.code16
kg_code_call16:
	cmpb	$0, %gs:KG_MB_INTEL
	jne	1f
	CALL32	vmmcall
	jmp	2f
1:	CALL32	vmcall
2:	out	%al, $KG_PORT_DONE
	jmp	2b

/*
 * Exceptions: a vector each, with an error code (0 where the processor pushes
 * none). Nothing of it is expected, so the VMM gets to see it and that is all.
 */
	.code64
	.balign 16
kg_code_traps:
	vector = 0
	.rept 32
	.balign 16
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
	pushq	$0
	.endif
	pushq	$vector
	jmp	trap
	vector = vector + 1
	.endr
	.balign 16
trap:
	popq	%gs:KG_MB_TRAP
	popq	%gs:KG_MB_TRAP + 8
	popq	%gs:KG_MB_TRAP + 16
	mov	%cr2, %rax
	mov	%rax, %gs:KG_MB_TRAP + 24
1:	out	%al, $KG_PORT_TRAP
	jmp	1b

kg_code_nmi:
	incq	%gs:KG_MB_NMIS
	iretq

kg_code_ipi:
	incq	%gs:KG_MB_IPIS
	push	%rax
	push	%rcx
	push	%rdx
	mov	$0x80b, %ecx		/* x2APIC EOI */
	xor	%eax, %eax
	xor	%edx, %edx
	wrmsr
	pop	%rdx
	pop	%rcx
	pop	%rax
	iretq

/* An AP in 64-bit mode; ESI: its mailbox */
kg_code_ap64:
	mov	$0xc0000101, %ecx	/* GS base */
	mov	%esi, %eax
	xor	%edx, %edx
	wrmsr
	mov	%gs:KG_MB_RSP, %rsp
	mov	$KG_DS, %eax
	mov	%eax, %ss
	lidt	AT(idt_pointer)
	mov	$0x1b, %ecx		/* APIC base: x2APIC, which IPIs need */
	rdmsr
	or	$0xc00, %eax
	wrmsr
	mov	$0x80f, %ecx		/* spurious vector: the APIC is on */
	mov	$0x1ff, %eax
	xor	%edx, %edx
	wrmsr
	incq	%gs:KG_MB_STARTS
	xor	%eax, %eax
	jmp	done

	.balign 8
idt_pointer:
	.word	0xfff
	.quad	KG_IDT
kg_code_end:

/*
 * A page per AP: copied to where the SIPI vector points. CS is the page, and the
 * address of the mailbox lies at its end.
 */
	.balign 16
	.code16
kg_tramp_start:
	cli
	mov	%cs, %ax
	mov	%ax, %ds
	lgdtl	gdt_pointer - kg_tramp_start
	movl	KG_TRAMP_MAILBOX, %esi
	mov	%cr4, %eax
	or	$0x620, %eax		/* PAE, SSE */
	mov	%eax, %cr4
	mov	$KG_PML4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx	/* EFER: long mode */
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	$0x80000033, %eax
	mov	%eax, %cr0
	ljmpl	$KG_CS64, $AT(kg_code_ap64)
	.balign 8
gdt_pointer:
	.word	6 * 8 - 1
	.long	KG_GDT
kg_tramp_end:

/*
 * In system management mode: reads or (bit 0) writes the word that KG_SMM_ADDRESS names.
 * Segments are flat; 16-bit code.
 */
	.globl kg_smm_start, kg_smm_end
	.balign 16
kg_smm_start:
	addr32 movl KG_SMM_ADDRESS, %esi
	addr32 movl KG_SMM_VALUE, %eax
	addr32 btrl $0, KG_SMM_WRITE
	jnc	1f
	addr32 movl %eax, (%esi)
1:	addr32 movl (%esi), %eax
	addr32 movl %eax, KG_SMM_VALUE
	out	%al, $KG_PORT_DONE
	rsm
kg_smm_end:

	.section .note.GNU-stack, "", @progbits
