/* SPDX-License-Identifier: Apache-2.0 */
/* Port and memory accesses of micro-guests, under both engines alike. */
#include "test/test.h"

#include "machine/microvm.h"

static void run(enum micro_mode mode, const u8 *code, const u8 *end,
		size_t accesses)
{
	struct micro_pair p;

	micro_run_both(&p, mode, code, end);
	assert_int_equal(p.soft->log_count, accesses);
	micro_pair_free(&p);
}

#define PIO_BODY                                                               \
	"mov dx, 0x500\n mov al, 0x5a\n out dx, al\n"                          \
	"mov dx, 0x502\n mov ax, 0x1234\n out dx, ax\n"                        \
	"mov dx, 0x504\n mov eax, 0x89abcdef\n out dx, eax\n"                  \
	"mov dx, 0x507\n in al, dx\n mov bl, al\n"                             \
	"mov dx, 0x508\n in ax, dx\n mov cx, ax\n"                             \
	"mov dx, 0x50c\n in eax, dx\n mov esi, eax\n"                          \
	"mov al, 7\n" MICRO_END

MICRO_GUEST(pio16, 16, PIO_BODY);
MICRO_GUEST(pio32, 32, PIO_BODY);
MICRO_GUEST(pio64, 64, PIO_BODY);

static void real_mode_reaches_ports_of_each_size(void **state)
{
	(void)state;
	run(MICRO_REAL, pio16, pio16_end, 6);
}

static void protected_mode_reaches_ports_of_each_size(void **state)
{
	(void)state;
	run(MICRO_PROTECTED, pio32, pio32_end, 6);
}

static void long_mode_reaches_ports_of_each_size(void **state)
{
	(void)state;
	run(MICRO_LONG, pio64, pio64_end, 6);
}

/* Code as data goes out, port bytes come into RAM at 0x20000 + 13. */
#define STRING_BODY(cx, si, di)                                                \
	"cld\n mov dx, 0x500\n mov e" #cx ", 5\n mov e" #si ", 0x4000\n"       \
	"rep outsb\n"                                                          \
	"mov e" #cx ", 3\n rep outsd\n"                                        \
	"mov dx, 0x504\n mov e" #cx ", 4\n mov e" #di ", 0x2000d\n"            \
	"rep insw\n"                                                           \
	"std\n mov dx, 0x508\n mov e" #cx ", 3\n mov e" #di ", 0x20100\n"      \
	"rep insd\n cld\n mov al, 1\n" MICRO_END

MICRO_GUEST(string32, 32, STRING_BODY(cx, si, di));
MICRO_GUEST(string64, 64, STRING_BODY(cx, si, di));

static void repeated_string_io_transfers_every_element(void **state)
{
	(void)state;
	run(MICRO_PROTECTED, string32, string32_end, 5 + 3 + 4 + 3);
	run(MICRO_LONG, string64, string64_end, 5 + 3 + 4 + 3);
}

/* More than fits a page of KVM's data area, and over a page's end. */
MICRO_GUEST(long_string, 32,
	    "cld\n mov dx, 0x510\n mov ecx, 300\n mov edi, 0x20f80\n"
	    "rep insb\n mov al, 1\n" MICRO_END);

static void string_io_crosses_pages(void **state)
{
	(void)state;
	run(MICRO_PROTECTED, long_string, long_string_end, 300);
}

#define MMIO_BODY                                                              \
	"mov ebx, 0xd0000000\n"                                                \
	"mov byte ptr [ebx], 0x11\n mov word ptr [ebx+2], 0x2233\n"            \
	"mov dword ptr [ebx+4], 0x44556677\n"                                  \
	"mov al, [ebx+9]\n mov cx, [ebx+10]\n mov esi, [ebx+12]\n"             \
	"movzx edi, byte ptr [ebx+3]\n movsx ebp, word ptr [ebx+6]\n"          \
	"or dword ptr [ebx+8], 0x0f0f0f0f\n"                                   \
	"xchg [ebx+12], esi\n"                                                 \
	"add [ebx+16], ax\n"                                                   \
	"push dword ptr [ebx+20]\n pop dword ptr [ebx+24]\n"                   \
	"mov al, 1\n" MICRO_END

MICRO_GUEST(mmio32, 32, MMIO_BODY);

static void device_memory_sees_each_access_of_32_bit_code(void **state)
{
	(void)state;
	run(MICRO_PROTECTED, mmio32, mmio32_end, 3 + 5 + 2 * 3 + 2);
}

MICRO_GUEST(mmio64, 64,
	    "mov ebx, 0xd0000000\n"
	    "mov rax, 0x1122334455667788\n mov [rbx+8], rax\n"
	    "mov rcx, [rbx+16]\n"
	    "mov [rbx+4], eax\n mov r8d, [rbx+28]\n"
	    "movsxd r9, dword ptr [rbx+12]\n"
	    "and qword ptr [rbx+32], 15\n"
	    "mov al, 1\n" MICRO_END);

static void device_memory_sees_each_access_of_64_bit_code(void **state)
{
	(void)state;
	run(MICRO_LONG, mmio64, mmio64_end, 7);
}

MICRO_GUEST(mmio_string, 32,
	    "cld\n mov esi, 0x4000\n mov edi, 0xd0000000\n mov ecx, 4\n"
	    "rep movsd\n"
	    "mov esi, 0xd0000010\n mov edi, 0x20000\n mov ecx, 6\n"
	    "rep movsb\n"
	    "mov edi, 0xd0000020\n mov eax, 0x01020304\n mov ecx, 3\n"
	    "rep stosd\n mov al, 1\n" MICRO_END);

static void strings_reach_device_memory(void **state)
{
	(void)state;
	run(MICRO_PROTECTED, mmio_string, mmio_string_end, 4 + 6 + 3);
}

MICRO_GUEST(nothing_there, 32,
	    "mov dx, 0x700\n in eax, dx\n mov ebx, eax\n"
	    "out dx, eax\n"
	    "mov ecx, ds:[0xd8000000]\n mov ds:[0xd8000000], ecx\n"
	    "mov esi, ds:[0xd8000004]\n"
	    "mov al, 1\n" MICRO_END);

static void addresses_without_a_device_read_all_ones(void **state)
{
	struct micro_pair p;
	struct vcpu_state vs;

	(void)state;
	micro_run_both(&p, MICRO_PROTECTED, nothing_there, nothing_there_end);
	micro_get(p.kvm, 0, &vs);
	assert_int_equal(vs.regs.rbx, 0xffffffff);
	assert_int_equal(vs.regs.rcx, 0xffffffff);
	assert_int_equal(vs.regs.rsi, 0xffffffff);
	assert_int_equal(p.kvm->log_count, 0);
	micro_pair_free(&p);
}

/* Writes to a ROM slot are ignored; reads see it. */
MICRO_GUEST(rom, 32,
	    "mov eax, ds:[0x800000]\n"
	    "mov dword ptr ds:[0x800000], 0x12345678\n"
	    "mov ecx, ds:[0x800000]\n mov al, 1\n" MICRO_END);

static void a_rom_slot_is_read_only(void **state)
{
	struct micro_pair p;
	struct mem_slot slot = {.id = 5,
				.flags = MEM_SLOT_ROM,
				.gpa = 0x800000,
				.size = PAGE_BYTES};
	_Alignas(4096) static u8 page[2][4096];
	struct vcpu_state vs;
	struct micro *each[2];

	(void)state;
	micro_pair_new(&p, 1);
	each[0] = p.soft;
	each[1] = p.kvm;
	for (int i = 1; i >= 0; i--) {
		st_le32(page[i], 0xfeedc0de);
		slot.hva = page[i];
		assert_int_equal(mem_slot_add(each[i]->mem, &slot, NULL), 0);
		micro_load(each[i], MICRO_PROTECTED, rom, rom_end);
		micro_run_to_stop(each[i]);
		assert_int_equal(ld_le32(page[i]), 0xfeedc0de);
		micro_get(each[i], 0, &vs);
		assert_int_equal(vs.regs.rcx, 0xfeedc0de);
		assert_int_equal(mem_slot_del(each[i]->mem, 5), 0);
	}
	micro_compare(&p);
	micro_pair_free(&p);
}

/* A slot that comes and goes: read through it, then all ones. */
MICRO_GUEST(peek, 32, "mov ebx, ds:[0x800000]\n mov al, 1\n" MICRO_END);

static void a_removed_slot_is_gone(void **state)
{
	struct micro_pair p;
	struct mem_slot slot = {.id = 7, .gpa = 0x800000, .size = PAGE_BYTES};
	_Alignas(4096) static u8 page[4096];
	struct vcpu_state vs;

	(void)state;
	micro_pair_new(&p, 1);
	st_le32(page, 0xfeedc0de);
	slot.hva = page;
	assert_int_equal(mem_slot_add(p.kvm->mem, &slot, NULL), 0);
	micro_load(p.kvm, MICRO_PROTECTED, peek, peek_end);
	micro_run_to_stop(p.kvm);
	micro_get(p.kvm, 0, &vs);
	assert_int_equal(vs.regs.rbx, 0xfeedc0de);
	assert_int_equal(mem_slot_del(p.kvm->mem, 7), 0);
	micro_load(p.kvm, MICRO_PROTECTED, peek, peek_end);
	micro_run_to_stop(p.kvm);
	micro_get(p.kvm, 0, &vs);
	assert_int_equal(vs.regs.rbx, 0xffffffff);
	micro_pair_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_mode_reaches_ports_of_each_size),
		cmocka_unit_test(protected_mode_reaches_ports_of_each_size),
		cmocka_unit_test(long_mode_reaches_ports_of_each_size),
		cmocka_unit_test(repeated_string_io_transfers_every_element),
		cmocka_unit_test(string_io_crosses_pages),
		cmocka_unit_test(device_memory_sees_each_access_of_32_bit_code),
		cmocka_unit_test(device_memory_sees_each_access_of_64_bit_code),
		cmocka_unit_test(strings_reach_device_memory),
		cmocka_unit_test(addresses_without_a_device_read_all_ones),
		cmocka_unit_test(a_rom_slot_is_read_only),
		cmocka_unit_test(a_removed_slot_is_gone),
	};

	return test_run("engine_io", tests);
}
