/* SPDX-License-Identifier: Apache-2.0 */
#include "boot/acpi.h"

#include <errno.h>

#include "boot/aml.h"
#include "boot/boot.h"

#define OEM_ID	  "SKERRY"
#define CREATOR	  "SKRY"
#define SDT_BYTES 36

struct table_writer {
	struct buf out; /* the image of [BOOT_TABLES_GPA, …) */
	size_t start;	/* of the table being written */
};

static u8 checksum(const u8 *bytes, size_t n)
{
	u8 sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += bytes[i];
	return (u8)-sum;
}

static gpa_t writer_gpa(const struct table_writer *w)
{
	return BOOT_TABLES_GPA + w->out.len;
}

static void align_to(struct table_writer *w, size_t n)
{
	buf_append_zero(&w->out, ALIGN_UP(w->out.len, n) - w->out.len);
}

/* The common header (ACPI 6.5 §5.2.6); length and checksum at table_end. */
static gpa_t table_begin(struct table_writer *w, const char *signature,
			 u8 revision)
{
	align_to(w, 64);
	w->start = w->out.len;
	buf_append(&w->out, signature, 4);
	buf_append_le32(&w->out, 0);
	buf_append_u8(&w->out, revision);
	buf_append_u8(&w->out, 0);
	buf_append(&w->out, OEM_ID, 6);
	buf_append(&w->out, "MACHINE ", 8);
	buf_append_le32(&w->out, 1);
	buf_append(&w->out, CREATOR, 4);
	buf_append_le32(&w->out, 1);
	return BOOT_TABLES_GPA + w->start;
}

static void table_end(struct table_writer *w)
{
	u8 *t = w->out.bytes + w->start;
	size_t len = w->out.len - w->start;

	st_le32(t + 4, (u32)len);
	t[9] = checksum(t, len);
}

/* ---- DSDT ---- */

static void dsdt_prt(struct aml *a, const struct acpi_config *cfg)
{
	/* Pin p of slot s goes to line (s + p) mod 4. */
	aml_name_package(a, "_PRT", 32 * 4);
	for (u32 slot = 0; slot < 32; slot++) {
		for (u32 pin = 0; pin < 4; pin++) {
			aml_package(a, 4);
			aml_integer(a, (u64)slot << 16 | 0xffff);
			aml_integer(a, pin);
			aml_integer(a, 0);
			aml_integer(a, (u64)cfg->intx_gsi[(slot + pin) & 3]);
			aml_close(a);
		}
	}
	aml_close(a);
}

static void dsdt_pci(struct aml *a, const struct acpi_config *cfg)
{
	u16 pio_last = (u16)(cfg->pio_base + cfg->pio_size - 1);

	aml_device(a, "PCI0");
	aml_name_eisaid(a, "_HID", "PNP0A08");
	aml_name_eisaid(a, "_CID", "PNP0A03");
	aml_name_integer(a, "_UID", 0);
	aml_name_integer(a, "_SEG", 0);
	aml_name_integer(a, "_BBN", 0);
	aml_resources_begin(a, "_CRS");
	aml_res_bus_range(a, 0, 0);
	aml_res_io(a, 0xcf8, 8);
	aml_res_io_range(a, cfg->pio_base, pio_last);
	aml_res_mem_window(a, cfg->mmio32_base,
			   cfg->mmio32_base + cfg->mmio32_size - 1, false);
	aml_res_mem_window(a, cfg->mmio64_base,
			   cfg->mmio64_base + cfg->mmio64_size - 1, true);
	aml_resources_end(a);
	dsdt_prt(a, cfg);
	aml_close(a);
}

static void dsdt_isa(struct aml *a, const struct acpi_config *cfg)
{
	aml_device(a, "RTC0");
	aml_name_eisaid(a, "_HID", "PNP0B00");
	aml_resources_begin(a, "_CRS");
	aml_res_io(a, 0x70, 2);
	aml_res_irq(a, 8);
	aml_resources_end(a);
	aml_close(a);

	aml_device(a, "COM1");
	aml_name_eisaid(a, "_HID", "PNP0501");
	aml_name_integer(a, "_UID", 0);
	aml_resources_begin(a, "_CRS");
	aml_res_io(a, cfg->uart_port, 8);
	aml_res_irq(a, cfg->uart_irq);
	aml_resources_end(a);
	aml_close(a);

	/* The ECAM window, so that the OS believes the MCFG table. */
	aml_device(a, "MBRD");
	aml_name_eisaid(a, "_HID", "PNP0C02");
	aml_name_integer(a, "_UID", 1);
	aml_resources_begin(a, "_CRS");
	aml_res_mem_fixed(a, (u32)cfg->ecam_gpa, (u32)MIB);
	aml_resources_end(a);
	aml_close(a);
}

/* Microsoft, "Virtual Machine Generation ID": 16 bytes that change when the
 * machine is one that has been before, and a notification. */
static void dsdt_generation(struct aml *a)
{
	aml_device(a, "VGEN");
	aml_name_string(a, "_HID", "SKRY0001");
	aml_name_string(a, "_CID", "VM_Gen_Counter");
	aml_name_string(a, "_DDN", "VM_Gen_Counter");
	aml_name_package(a, "ADDR", 2);
	aml_integer(a, BOOT_GENERATION_GPA);
	aml_integer(a, 0);
	aml_close(a);
	aml_close(a);
}

static gpa_t write_dsdt(struct table_writer *w, const struct acpi_config *cfg)
{
	gpa_t gpa = table_begin(w, "DSDT", 2);
	struct aml a;

	aml_init(&a);
	aml_scope(&a, "\\_SB");
	dsdt_pci(&a, cfg);
	dsdt_isa(&a, cfg);
	dsdt_generation(&a);
	aml_close(&a);
	aml_scope(&a, "\\_GPE");
	aml_method(&a, "_E05"); /* ACPI_GPE_GENERATION */
	aml_notify_sb(&a, "VGEN", 0x80);
	aml_close(&a);
	aml_close(&a);
	aml_name_package(&a, "_S5", 4);
	aml_integer(&a, cfg->s5_slp_typ);
	aml_integer(&a, 0);
	aml_integer(&a, 0);
	aml_integer(&a, 0);
	aml_close(&a);
	buf_append(&w->out, a.out.bytes, a.out.len);
	aml_fini(&a);
	table_end(w);
	return gpa;
}

/* ---- fixed tables ---- */

/* Generic address structure, ACPI 6.5 §5.2.3.2: system I/O. */
static void append_gas_io(struct buf *b, u16 port, u8 bits, u8 access)
{
	buf_append_u8(b, port ? 1 : 0);
	buf_append_u8(b, port ? bits : 0);
	buf_append_u8(b, 0);
	buf_append_u8(b, port ? access : 0);
	buf_append_le64(b, port);
}

static gpa_t write_facs(struct table_writer *w)
{
	gpa_t gpa;

	align_to(w, 64);
	gpa = writer_gpa(w);
	buf_append(&w->out, "FACS", 4);
	buf_append_le32(&w->out, 64);
	buf_append_zero(&w->out, 64 - 8);
	w->out.bytes[gpa - BOOT_TABLES_GPA + 32] = 2; /* version */
	return gpa;
}

#define FADT_WBINVD	   BIT32(0)
#define FADT_PROC_C1	   BIT32(2)
#define FADT_SLP_BUTTON	   BIT32(5) /* set: no fixed sleep button */
#define FADT_TMR_VAL_EXT   BIT32(8)
#define FADT_RESET_REG_SUP BIT32(10)
#define FADT_BOOT_LEGACY   BIT32(0)
#define FADT_BOOT_NO_VGA   BIT32(2)
#define FADT_BOOT_NO_ASPM  BIT32(4)

static gpa_t write_fadt(struct table_writer *w, const struct acpi_config *cfg,
			gpa_t facs, gpa_t dsdt)
{
	gpa_t gpa = table_begin(w, "FACP", 6);
	size_t t = w->start;
	struct buf *b = &w->out;

	buf_append_zero(b, 276 - SDT_BYTES);
	st_le32(b->bytes + t + 36, (u32)facs);
	st_le32(b->bytes + t + 40, (u32)dsdt);
	st_le16(b->bytes + t + 46, cfg->sci_gsi);
	/* SMI_CMD 0: the platform is always in ACPI mode. */
	st_le32(b->bytes + t + 56, cfg->pm1a_event_port);
	st_le32(b->bytes + t + 64, cfg->pm1a_control_port);
	st_le32(b->bytes + t + 76, cfg->pm_timer_port);
	st_le32(b->bytes + t + 80, cfg->gpe0_port);
	b->bytes[t + 88] = 4; /* PM1_EVT_LEN */
	b->bytes[t + 89] = 2; /* PM1_CNT_LEN */
	b->bytes[t + 91] = 4; /* PM_TMR_LEN */
	b->bytes[t + 92] = cfg->gpe0_bytes;
	st_le16(b->bytes + t + 96, 0xffff); /* no C2 */
	st_le16(b->bytes + t + 98, 0xffff); /* no C3 */
	b->bytes[t + 108] = 0x32;	    /* RTC century */
	/* No 8042 is declared: there is no keyboard, and a kernel that
	 * looks for one waits a second for it. Port 0x64 resets anyway. */
	st_le16(b->bytes + t + 109,
		FADT_BOOT_LEGACY | FADT_BOOT_NO_VGA | FADT_BOOT_NO_ASPM);
	st_le32(b->bytes + t + 112, FADT_WBINVD | FADT_PROC_C1 |
					    FADT_SLP_BUTTON | FADT_TMR_VAL_EXT |
					    FADT_RESET_REG_SUP);
	b->len = t + 116;
	append_gas_io(b, cfg->reset_port, 8, 1);
	buf_append_u8(b, cfg->reset_value);
	b->len = t + 131;
	buf_append_u8(b, 5);   /* minor version */
	buf_append_le64(b, 0); /* X_FIRMWARE_CTRL: the 32-bit field counts */
	buf_append_le64(b, dsdt);
	append_gas_io(b, cfg->pm1a_event_port, 32, 2);
	append_gas_io(b, 0, 0, 0);
	append_gas_io(b, cfg->pm1a_control_port, 16, 2);
	append_gas_io(b, 0, 0, 0);
	append_gas_io(b, 0, 0, 0);
	append_gas_io(b, cfg->pm_timer_port, 32, 3);
	append_gas_io(b, cfg->gpe0_port, (u8)(cfg->gpe0_bytes * 8), 1);
	append_gas_io(b, 0, 0, 0);
	append_gas_io(b, 0, 0, 0); /* sleep control */
	append_gas_io(b, 0, 0, 0); /* sleep status */
	buf_append_le64(b, 0);	   /* hypervisor vendor */
	table_end(w);
	return gpa;
}

/* Interrupt source override, ACPI 6.5 §5.2.12.5. flags: 0 as the bus,
 * 0xd level active-high. */
static void madt_override(struct buf *b, u8 irq, u32 gsi, u16 flags)
{
	buf_append_u8(b, 2);
	buf_append_u8(b, 10);
	buf_append_u8(b, 0);
	buf_append_u8(b, irq);
	buf_append_le32(b, gsi);
	buf_append_le16(b, flags);
}

/* Processor local APIC; ids stay below 255 (VCPUS_MAX). */
static void madt_cpu(struct buf *b, u32 id)
{
	buf_append_u8(b, 0);
	buf_append_u8(b, 8);
	buf_append_u8(b, (u8)id);
	buf_append_u8(b, (u8)id); /* APIC id */
	buf_append_le32(b, 1);	  /* enabled */
}

static gpa_t write_madt(struct table_writer *w, const struct acpi_config *cfg)
{
	gpa_t gpa = table_begin(w, "APIC", 5);
	struct buf *b = &w->out;

	buf_append_le32(b, (u32)cfg->lapic_gpa);
	buf_append_le32(b, 1); /* PCAT_COMPAT: there are 8259s */
	for (u32 i = 0; i < cfg->vcpu_count; i++)
		madt_cpu(b, i);
	buf_append_u8(b, 1); /* I/O APIC */
	buf_append_u8(b, 12);
	buf_append_u8(b, 0);
	buf_append_u8(b, 0);
	buf_append_le32(b, (u32)cfg->ioapic_gpa);
	buf_append_le32(b, 0);
	madt_override(b, 0, 2, 0);
	madt_override(b, cfg->sci_gsi, cfg->sci_gsi, 0x000d);
	buf_append_u8(b, 4); /* local APIC NMI: LINT1 of all */
	buf_append_u8(b, 6);
	buf_append_u8(b, 0xff);
	buf_append_le16(b, 0);
	buf_append_u8(b, 1);
	table_end(w);
	return gpa;
}

static gpa_t write_mcfg(struct table_writer *w, const struct acpi_config *cfg)
{
	gpa_t gpa = table_begin(w, "MCFG", 1);

	buf_append_le64(&w->out, 0);
	buf_append_le64(&w->out, cfg->ecam_gpa);
	buf_append_le16(&w->out, 0);
	buf_append_u8(&w->out, 0); /* first bus */
	buf_append_u8(&w->out, 0); /* last bus */
	buf_append_le32(&w->out, 0);
	table_end(w);
	return gpa;
}

static gpa_t write_spcr(struct table_writer *w, const struct acpi_config *cfg)
{
	gpa_t gpa = table_begin(w, "SPCR", 2);
	struct buf *b = &w->out;

	buf_append_u8(b, 0); /* 16550 */
	buf_append_zero(b, 3);
	append_gas_io(b, cfg->uart_port, 8, 1);
	buf_append_u8(b, 3); /* 8259 and I/O APIC */
	buf_append_u8(b, cfg->uart_irq);
	buf_append_le32(b, cfg->uart_irq);
	buf_append_u8(b, 7); /* 115200 */
	buf_append_u8(b, 0); /* no parity */
	buf_append_u8(b, 1); /* one stop bit */
	buf_append_u8(b, 0); /* no flow control */
	buf_append_u8(b, 0); /* VT100 */
	buf_append_u8(b, 0);
	buf_append_le16(b, 0xffff); /* not a PCI device */
	buf_append_le16(b, 0xffff);
	buf_append_zero(b, 12);
	table_end(w);
	return gpa;
}

static gpa_t write_xsdt(struct table_writer *w, const gpa_t *tables, size_t n)
{
	gpa_t gpa = table_begin(w, "XSDT", 1);

	for (size_t i = 0; i < n; i++)
		buf_append_le64(&w->out, tables[i]);
	table_end(w);
	return gpa;
}

/* ACPI 6.5 §5.2.5.3. Stands first, on a 16-byte boundary. */
static void fill_rsdp(u8 *r, gpa_t xsdt)
{
	memcpy(r, "RSD PTR ", 8);
	memcpy(r + 9, OEM_ID, 6);
	r[15] = 2;
	st_le32(r + 20, 36);
	st_le64(r + 24, xsdt);
	r[8] = checksum(r, 20);
	r[32] = checksum(r, 36);
}

int acpi_build(const struct acpi_config *cfg, gpa_t *out_rsdp_gpa,
	       struct err *err)
{
	struct table_writer w = {0};
	gpa_t tables[4], facs, dsdt, xsdt;
	int rc = 0;

	buf_init(&w.out);
	buf_append_zero(&w.out, 64); /* RSDP */
	facs = write_facs(&w);
	dsdt = write_dsdt(&w, cfg);
	tables[0] = write_fadt(&w, cfg, facs, dsdt);
	tables[1] = write_madt(&w, cfg);
	tables[2] = write_mcfg(&w, cfg);
	tables[3] = write_spcr(&w, cfg);
	xsdt = write_xsdt(&w, tables, ARRAY_SIZE(tables));
	fill_rsdp(w.out.bytes, xsdt);
	if (w.out.len > BOOT_GENERATION_GPA - BOOT_TABLES_GPA)
		rc = err_set(err, -E2BIG, "the ACPI tables are too large");
	else if (mem_write(cfg->mem, BOOT_TABLES_GPA, w.out.bytes, w.out.len) <
		 0)
		rc = err_set(err, -ENOMEM, "no memory for the ACPI tables");
	else
		*out_rsdp_gpa = BOOT_TABLES_GPA;
	buf_fini(&w.out);
	return rc;
}
