/* SPDX-License-Identifier: Apache-2.0 */
/* Architectural bits: control registers, flags, vectors, page-table entries,
 * MSR numbers. Names are the manuals'. SDM 3A §2.5, §4, §6.3; SDM 4; APM 2. */
#pragma once

#include "base/types.h"

#define X86_CR0_PE BIT64(0)
#define X86_CR0_MP BIT64(1)
#define X86_CR0_EM BIT64(2)
#define X86_CR0_TS BIT64(3)
#define X86_CR0_ET BIT64(4)
#define X86_CR0_NE BIT64(5)
#define X86_CR0_WP BIT64(16)
#define X86_CR0_AM BIT64(18)
#define X86_CR0_NW BIT64(29)
#define X86_CR0_CD BIT64(30)
#define X86_CR0_PG BIT64(31)

#define X86_CR4_VME	   BIT64(0)
#define X86_CR4_PVI	   BIT64(1)
#define X86_CR4_TSD	   BIT64(2)
#define X86_CR4_DE	   BIT64(3)
#define X86_CR4_PSE	   BIT64(4)
#define X86_CR4_PAE	   BIT64(5)
#define X86_CR4_MCE	   BIT64(6)
#define X86_CR4_PGE	   BIT64(7)
#define X86_CR4_PCE	   BIT64(8)
#define X86_CR4_OSFXSR	   BIT64(9)
#define X86_CR4_OSXMMEXCPT BIT64(10)
#define X86_CR4_UMIP	   BIT64(11)
#define X86_CR4_LA57	   BIT64(12)
#define X86_CR4_FSGSBASE   BIT64(16)
#define X86_CR4_PCIDE	   BIT64(17)
#define X86_CR4_OSXSAVE	   BIT64(18)
#define X86_CR4_SMEP	   BIT64(20)
#define X86_CR4_SMAP	   BIT64(21)
#define X86_CR4_PKE	   BIT64(22)

#define X86_EFER_SCE   BIT64(0)
#define X86_EFER_LME   BIT64(8)
#define X86_EFER_LMA   BIT64(10)
#define X86_EFER_NXE   BIT64(11)
#define X86_EFER_SVME  BIT64(12)
#define X86_EFER_FFXSR BIT64(14)
#define X86_EFER_AUTOIBRS BIT64(21)

#define X86_FL_CF   BIT64(0)
#define X86_FL_PF   BIT64(2)
#define X86_FL_AF   BIT64(4)
#define X86_FL_ZF   BIT64(6)
#define X86_FL_SF   BIT64(7)
#define X86_FL_TF   BIT64(8)
#define X86_FL_IF   BIT64(9)
#define X86_FL_DF   BIT64(10)
#define X86_FL_OF   BIT64(11)
#define X86_FL_IOPL (3ull << 12)
#define X86_FL_NT   BIT64(14)
#define X86_FL_RF   BIT64(16)
#define X86_FL_VM   BIT64(17)
#define X86_FL_AC   BIT64(18)
#define X86_FL_VIF  BIT64(19)
#define X86_FL_VIP  BIT64(20)
#define X86_FL_ID   BIT64(21)
#define X86_FL_ARITH                                                           \
	(X86_FL_CF | X86_FL_PF | X86_FL_AF | X86_FL_ZF | X86_FL_SF | X86_FL_OF)

enum {
	X86_VEC_DE = 0, X86_VEC_DB, X86_VEC_NMI, X86_VEC_BP, X86_VEC_OF,
	X86_VEC_BR, X86_VEC_UD, X86_VEC_NM, X86_VEC_DF, X86_VEC_CSO,
	X86_VEC_TS, X86_VEC_NP, X86_VEC_SS, X86_VEC_GP, X86_VEC_PF,
	X86_VEC_MF = 16, X86_VEC_AC, X86_VEC_MC, X86_VEC_XM,
};

#define X86_PTE_P    BIT64(0)
#define X86_PTE_W    BIT64(1)
#define X86_PTE_U    BIT64(2)
#define X86_PTE_A    BIT64(5)
#define X86_PTE_D    BIT64(6)
#define X86_PTE_PS   BIT64(7)
#define X86_PTE_G    BIT64(8)
#define X86_PTE_NX   BIT64(63)
#define X86_PTE_ADDR 0x000ffffffffff000ull

#define X86_PF_P    BIT32(0)
#define X86_PF_W    BIT32(1)
#define X86_PF_U    BIT32(2)
#define X86_PF_RSVD BIT32(3)
#define X86_PF_I    BIT32(4)

#define X86_MSR_TSC		0x10
#define X86_MSR_APIC_BASE	0x1b
#define X86_MSR_TSC_ADJUST	0x3b
#define X86_MSR_SPEC_CTRL	0x48
#define X86_MSR_PRED_CMD	0x49
#define X86_MSR_MTRRCAP		0xfe
#define X86_MSR_ARCH_CAPABILITIES 0x10a
#define X86_MSR_SYSENTER_CS	0x174
#define X86_MSR_SYSENTER_ESP	0x175
#define X86_MSR_SYSENTER_EIP	0x176
#define X86_MSR_MISC_ENABLE	0x1a0
#define X86_MSR_PAT		0x277
#define X86_MSR_MTRR_DEF_TYPE	0x2ff
#define X86_MSR_TSC_DEADLINE	0x6e0
#define X86_MSR_X2APIC_FIRST	0x800
#define X86_MSR_X2APIC_LAST	0x83f
#define X86_MSR_EFER		0xc0000080u
#define X86_MSR_STAR		0xc0000081u
#define X86_MSR_LSTAR		0xc0000082u
#define X86_MSR_CSTAR		0xc0000083u
#define X86_MSR_SFMASK		0xc0000084u
#define X86_MSR_FS_BASE		0xc0000100u
#define X86_MSR_GS_BASE		0xc0000101u
#define X86_MSR_KERNEL_GS_BASE	0xc0000102u
#define X86_MSR_TSC_AUX		0xc0000103u
