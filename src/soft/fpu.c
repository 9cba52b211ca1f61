/* SPDX-License-Identifier: Apache-2.0 */
/* x87, SSE and AVX state: the FXSAVE and XSAVE families, the x87 environment,
 * MXCSR.
 *
 * THEORY. XMM, YMM and MXCSR live in v->xsave. The x87/MMX registers live in
 * the host's FPU from soft_fpu_enter() to soft_fpu_leave(); the C code of
 * this program uses neither (no long double on a vCPU's thread), and x87_read
 * and x87_write move their image here. The last instruction and operand
 * pointers and the opcode would be addresses of this program: they read as
 * zero.
 *
 * XINUSE: x87 and SSE always; AVX when an upper half is not zero.
 * Source: SDM 1 chapter 13, SDM 2 "XSAVE" to "XRSTOR".
 */
#include "soft/access.h"

#define X87_IMAGE     160 /* FXSAVE bytes before XMM0 */
#define OFF_MXCSR     24
#define OFF_XMM	      160
#define OFF_HEADER    512
#define OFF_AVX	      576
#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_MASK    0xffffu
#define COMPACT	      BIT64(63)

enum { XF_X87 = 1, XF_SSE = 2, XF_AVX = 4 };

struct fx_image {
	u8 b[512];
} __attribute__((aligned(16)));

static void x87_read(struct fx_image *fx)
{
	memset(fx, 0, sizeof(*fx));
	__asm__ volatile("fxsave64 %0" : "=m"(*fx));
	memset(fx->b + 6, 0, 18); /* FOP, FIP, FDP */
}

static void x87_write(const u8 *image)
{
	struct fx_image fx = {0};

	memcpy(fx.b, image, X87_IMAGE);
	memset(fx.b + 6, 0, 18);
	st_le32(fx.b + OFF_MXCSR, MXCSR_DEFAULT);
	st_le32(fx.b + OFF_MXCSR + 4, 0);
	__asm__ volatile("fxrstor64 %0"
			 :
			 : "m"(fx)
			 : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
			   "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
			   "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

static void x87_init_image(u8 *image)
{
	memset(image, 0, X87_IMAGE);
	st_le16(image, 0x37f);
}

void soft_fpu_reset(struct vcpu *v)
{
	memset(v->xsave, 0, sizeof(v->xsave));
	x87_init_image(v->xsave);
	st_le32(v->xsave + OFF_MXCSR, MXCSR_DEFAULT);
	st_le32(v->xsave + OFF_MXCSR + 4, MXCSR_MASK);
	st_le64(v->xsave + OFF_HEADER, XF_X87 | XF_SSE | XF_AVX);
}

void soft_fpu_enter(struct vcpu *v)
{
	x87_write(v->xsave);
}

void soft_fpu_leave(struct vcpu *v)
{
	struct fx_image fx;

	x87_read(&fx);
	memcpy(v->xsave, fx.b, OFF_MXCSR);
	memcpy(v->xsave + 32, fx.b + 32, X87_IMAGE - 32);
	st_le32(v->xsave + OFF_MXCSR + 4, MXCSR_MASK);
	st_le64(v->xsave + OFF_HEADER, XF_X87 | XF_SSE | XF_AVX);
	__asm__ volatile("fninit");
}

void soft_x87_check_pending(struct vcpu *v)
{
	u16 fsw;

	__asm__ volatile("fnstsw %0" : "=a"(fsw));
	if (fsw & 0x80)
		soft_raise(v, X86_VEC_MF);
}

/* ---- MXCSR ---- */

static void check_mxcsr(struct vcpu *v, u32 mxcsr)
{
	if (mxcsr & ~MXCSR_MASK)
		soft_gp(v, 0);
}

static void op_ldmxcsr(struct vcpu *v, const struct insn *in)
{
	u32 mxcsr = soft_mem_read(v, soft_entry_of(in), 4);

	check_mxcsr(v, mxcsr);
	st_le32(v->xsave + OFF_MXCSR, mxcsr);
}
static void op_stmxcsr(struct vcpu *v, const struct insn *in)
{
	soft_mem_write(v, soft_entry_of(in), 4, ld_le32(v->xsave + OFF_MXCSR));
}

/* ---- FXSAVE, FXRSTOR ---- */

static unsigned xmm_bytes(const struct vcpu *v)
{
	return v->code_mode == X86_MODE_64 ? 256 : 128;
}

static void fx_check(struct vcpu *v)
{
	if (v->cr0 & (X86_CR0_EM | X86_CR0_TS))
		soft_nm(v);
}

static void op_fxsave(struct vcpu *v, const struct insn *in)
{
	size_t n = OFF_XMM + xmm_bytes(v);
	struct fx_image fx;
	gva_t va;

	fx_check(v);
	va = soft_entry_lin(v, soft_entry_of(in), 512, SOFT_W);
	if (va & 15)
		soft_gp(v, 0);
	x87_read(&fx);
	memcpy(fx.b + OFF_MXCSR, v->xsave + OFF_MXCSR, 4);
	st_le32(fx.b + OFF_MXCSR + 4, MXCSR_MASK);
	memcpy(fx.b + OFF_XMM, v->xsave + OFF_XMM, xmm_bytes(v));
	soft_write_bytes(v, va, fx.b, n, SOFT_W);
}

static void op_fxrstor(struct vcpu *v, const struct insn *in)
{
	struct fx_image fx;
	gva_t va;

	fx_check(v);
	va = soft_entry_lin(v, soft_entry_of(in), 512, SOFT_R);
	if (va & 15)
		soft_gp(v, 0);
	soft_read_bytes(v, va, fx.b, 512, SOFT_R);
	check_mxcsr(v, ld_le32(fx.b + OFF_MXCSR));
	x87_write(fx.b);
	memcpy(v->xsave + OFF_MXCSR, fx.b + OFF_MXCSR, 4);
	memcpy(v->xsave + OFF_XMM, fx.b + OFF_XMM, xmm_bytes(v));
}

/* ---- XSAVE family ---- */

static u64 xsave_rfbm(struct vcpu *v, const struct insn *in, gva_t *out_va,
		      unsigned how)
{
	u64 rfbm = (u32)v->gpr[X86_RAX] | v->gpr[X86_RDX] << 32;

	if (!(v->cr4 & X86_CR4_OSXSAVE))
		soft_ud(v);
	if (v->cr0 & X86_CR0_TS)
		soft_nm(v);
	*out_va = soft_entry_lin(v, soft_entry_of(in), OFF_AVX, how);
	if (*out_va & 63)
		soft_gp(v, 0);
	return rfbm & v->xcr0;
}

static u64 xinuse(const struct vcpu *v)
{
	for (unsigned i = 0; i < 256; i += 8) {
		if (ld_le64(v->xsave + OFF_AVX + i))
			return XF_X87 | XF_SSE | XF_AVX;
	}
	return XF_X87 | XF_SSE;
}

/* Writes the components in `parts`, and MXCSR if asked. */
static void xsave_parts(struct vcpu *v, gva_t va, u64 parts, bool has_mxcsr)
{
	u32 mxcsr[2] = {ld_le32(v->xsave + OFF_MXCSR), MXCSR_MASK};
	struct fx_image fx;

	if (parts & XF_X87) {
		x87_read(&fx);
		soft_write_bytes(v, va, fx.b, OFF_MXCSR, SOFT_W);
		soft_write_bytes(v, va + 32, fx.b + 32, 128, SOFT_W);
	}
	if (has_mxcsr)
		soft_write_bytes(v, va + OFF_MXCSR, mxcsr, 8, SOFT_W);
	if (parts & XF_SSE)
		soft_write_bytes(v, va + OFF_XMM, v->xsave + OFF_XMM,
				 xmm_bytes(v), SOFT_W);
	if (parts & XF_AVX)
		soft_write_bytes(v, va + OFF_AVX, v->xsave + OFF_AVX,
				 xmm_bytes(v), SOFT_W);
}

static void op_xsave(struct vcpu *v, const struct insn *in)
{
	bool is_opt = in->row->op == ISA_OP_XSAVEOPT;
	gva_t va;
	u64 rfbm = xsave_rfbm(v, in, &va, SOFT_W);
	u64 used = xinuse(v), bv;

	soft_probe(v, va, rfbm & XF_AVX ? OFF_AVX + 256 : OFF_AVX, SOFT_W);
	bv = soft_read(v, va + OFF_HEADER, 8, SOFT_R);
	bv = (bv & ~rfbm) | (used & rfbm);
	xsave_parts(v, va, is_opt ? rfbm & used : rfbm,
		    rfbm & (XF_SSE | XF_AVX));
	soft_write(v, va + OFF_HEADER, 8, bv, SOFT_W);
}

static void op_xsavec(struct vcpu *v, const struct insn *in)
{
	gva_t va;
	u64 rfbm = xsave_rfbm(v, in, &va, SOFT_W);
	u64 parts = rfbm & xinuse(v);
	u64 header[8] = {parts, rfbm | COMPACT};

	soft_probe(v, va, parts & XF_AVX ? OFF_AVX + 256 : OFF_AVX, SOFT_W);
	xsave_parts(v, va, parts, parts & XF_SSE);
	soft_write_bytes(v, va + OFF_HEADER, header, 64, SOFT_W);
}

static void check_header(struct vcpu *v, const u64 h[8])
{
	unsigned first = 2;

	if (h[1] & COMPACT) {
		if (h[1] & ~(v->xcr0 | COMPACT) || h[0] & ~h[1])
			soft_gp(v, 0);
	} else {
		first = 1;
		if (h[0] & ~v->xcr0)
			soft_gp(v, 0);
		/* Bytes 24 to 63 are not checked in the standard form. */
		if (h[1] | h[2])
			soft_gp(v, 0);
		return;
	}
	for (unsigned i = first; i < 8; i++) {
		if (h[i])
			soft_gp(v, 0);
	}
}

static void restore_sse(struct vcpu *v, const u8 *area, bool is_init)
{
	if (is_init)
		memset(v->xsave + OFF_XMM, 0, xmm_bytes(v));
	else
		memcpy(v->xsave + OFF_XMM, area + OFF_XMM, xmm_bytes(v));
}

static void op_xrstor(struct vcpu *v, const struct insn *in)
{
	u8 area[OFF_AVX + 256] = {0};
	u64 header[8], rfbm, load;
	u32 mxcsr = MXCSR_DEFAULT;
	bool has_mxcsr, is_compact;
	gva_t va;

	rfbm = xsave_rfbm(v, in, &va, SOFT_R);
	soft_read_bytes(v, va, area, OFF_AVX, SOFT_R);
	memcpy(header, area + OFF_HEADER, sizeof(header));
	check_header(v, header);
	is_compact = header[1] & COMPACT;
	load = rfbm & header[0];
	if (load & XF_AVX)
		soft_read_bytes(v, va + OFF_AVX, area + OFF_AVX, xmm_bytes(v),
				SOFT_R);
	has_mxcsr = is_compact ? rfbm & XF_SSE : rfbm & (XF_SSE | XF_AVX);
	if (!is_compact || load & XF_SSE)
		mxcsr = ld_le32(area + OFF_MXCSR);
	if (has_mxcsr) {
		check_mxcsr(v, mxcsr);
		st_le32(v->xsave + OFF_MXCSR, mxcsr);
	}
	if (rfbm & XF_X87) {
		if (!(load & XF_X87))
			x87_init_image(area);
		x87_write(area);
	}
	if (rfbm & XF_SSE)
		restore_sse(v, area, !(load & XF_SSE));
	if (rfbm & XF_AVX)
		memcpy(v->xsave + OFF_AVX, area + OFF_AVX, xmm_bytes(v));
}

/* ---- the x87 environment ---- */

/* Host form: seven dwords (control, status, tag, FIP, selector and opcode,
 * FDP, selector), then eight registers of 10 bytes. The 16-bit form has words
 * instead. */
#define ENV_BYTES   28
#define STATE_BYTES 108

static size_t env_store(u8 *out, const u8 *env, unsigned osize)
{
	for (unsigned i = 0; i < 7; i++) {
		u32 value = i < 3 ? ld_le32(env + 4 * i) : 0;

		if (osize == 2)
			st_le16(out + 2 * i, (u16)value);
		else
			st_le32(out + 4 * i, i < 3 ? value | 0xffff0000u : 0);
	}
	return osize == 2 ? 14 : 28;
}
static size_t env_load(u8 *env, const u8 *mem, unsigned osize)
{
	memset(env, 0, ENV_BYTES);
	for (unsigned i = 0; i < 3; i++)
		st_le32(env + 4 * i, osize == 2 ? ld_le16(mem + 2 * i)
						: ld_le32(mem + 4 * i));
	return osize == 2 ? 14 : 28;
}

static void op_fnstenv(struct vcpu *v, const struct insn *in)
{
	size_t n = in->osize == 2 ? 14 : 28;
	gva_t va = soft_entry_lin(v, soft_entry_of(in), n, SOFT_W);
	u8 env[ENV_BYTES], out[ENV_BYTES];

	soft_probe(v, va, n, SOFT_W);
	__asm__ volatile("fnstenv %0" : "=m"(env));
	env_store(out, env, in->osize);
	soft_write_bytes(v, va, out, n, SOFT_W);
}

static void op_fldenv(struct vcpu *v, const struct insn *in)
{
	size_t n = in->osize == 2 ? 14 : 28;
	u8 mem[ENV_BYTES], env[ENV_BYTES];
	gva_t va;

	soft_x87_check_pending(v);
	va = soft_entry_lin(v, soft_entry_of(in), n, SOFT_R);
	soft_read_bytes(v, va, mem, n, SOFT_R);
	env_load(env, mem, in->osize);
	__asm__ volatile("fldenv %0" : : "m"(env));
}

static void op_fnsave(struct vcpu *v, const struct insn *in)
{
	size_t env_n = in->osize == 2 ? 14 : 28, n = env_n + 80;
	gva_t va = soft_entry_lin(v, soft_entry_of(in), n, SOFT_W);
	u8 host[STATE_BYTES], out[STATE_BYTES];

	soft_probe(v, va, n, SOFT_W);
	__asm__ volatile("fnsave %0" : "=m"(host));
	env_store(out, host, in->osize);
	memcpy(out + env_n, host + ENV_BYTES, 80);
	soft_write_bytes(v, va, out, n, SOFT_W);
}

static void op_frstor(struct vcpu *v, const struct insn *in)
{
	size_t env_n = in->osize == 2 ? 14 : 28, n = env_n + 80;
	u8 mem[STATE_BYTES], host[STATE_BYTES];
	gva_t va;

	soft_x87_check_pending(v);
	va = soft_entry_lin(v, soft_entry_of(in), n, SOFT_R);
	soft_read_bytes(v, va, mem, n, SOFT_R);
	env_load(host, mem, in->osize);
	memcpy(host + ENV_BYTES, mem + env_n, 80);
	__asm__ volatile("frstor %0" : : "m"(host));
}

const struct soft_op_entry soft_ops_fpu[] = {
	{ISA_OP_LDMXCSR, op_ldmxcsr},
	{ISA_OP_VLDMXCSR, op_ldmxcsr},
	{ISA_OP_STMXCSR, op_stmxcsr},
	{ISA_OP_VSTMXCSR, op_stmxcsr},
	{ISA_OP_FXSAVE, op_fxsave},
	{ISA_OP_FXRSTOR, op_fxrstor},
	{ISA_OP_XSAVE, op_xsave},
	{ISA_OP_XSAVEOPT, op_xsave},
	{ISA_OP_XSAVEC, op_xsavec},
	{ISA_OP_XRSTOR, op_xrstor},
	{ISA_OP_FNSTENV, op_fnstenv},
	{ISA_OP_FLDENV, op_fldenv},
	{ISA_OP_FNSAVE, op_fnsave},
	{ISA_OP_FRSTOR, op_frstor},
	{0, NULL},
};
