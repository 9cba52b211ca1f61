/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: National Semiconductor PC16550D datasheet
 *
 * Interrupt causes are worked out from the registers each time; only the
 * transmitter's (`thre_pending`) is remembered, since reading IIR clears it.
 * The character timeout is reported as soon as data waits below the trigger
 * level.
 *
 * Not modelled: baud rate, parity and framing errors, DMA mode. The interrupt
 * is not gated by OUT2.
 */
#include "hw/uart16550.h"

#include <stdlib.h>

#define FIFO_BYTES 16

#define UART_RBR	0
#define UART_IER	1
#define UART_IIR	2
#define UART_LCR	3
#define UART_MCR	4
#define UART_LSR	5
#define UART_MSR	6
#define UART_SCR	7
#define IER_RDA		0x01
#define IER_THRE	0x02
#define IER_RLS		0x04
#define IER_MSR		0x08
#define IIR_NONE	0x01
#define IIR_MSR		0x00
#define IIR_THRE	0x02
#define IIR_RDA		0x04
#define IIR_RLS		0x06
#define IIR_TIMEOUT	0x0c
#define IIR_FIFO	0xc0
#define FCR_ENABLE	0x01
#define FCR_CLEAR_RX	0x02
#define FCR_CLEAR_TX	0x04
#define FCR_KEPT	0xc9
#define LCR_DLAB	0x80
#define LCR_BREAK	0x40
#define MCR_LOOP	0x10
#define MCR_WRITABLE	0x1f
#define LSR_DATA	0x01
#define LSR_OVERRUN	0x02
#define LSR_BREAK	0x10
#define LSR_THRE	0x20
#define LSR_TEMT	0x40
#define LSR_ERRORS	0x1e
#define MSR_LINE	0xb0 /* DCD, DSR and CTS are up */
#define MSR_DELTA	0x0f
#define MSR_RI_TRAILING 0x04

struct fifo {
	u8 bytes[FIFO_BYTES];
	size_t len;
};

struct uart16550 {
	struct device dev;
	struct mem *mem;
	struct chardev *chardev;
	struct irq line;
	struct io_region region;
	struct fifo rx, tx;
	u8 ier, fcr, lcr, mcr, scr, msr_delta, errors;
	u16 divisor;
	bool thre_pending;
};

static size_t fifo_size(const struct uart16550 *u)
{
	return u->fcr & FCR_ENABLE ? FIFO_BYTES : 1;
}

static u8 fifo_pop(struct fifo *f)
{
	u8 v = f->bytes[0];

	if (f->len)
		memmove(f->bytes, f->bytes + 1, --f->len);
	return v;
}

static size_t rx_trigger(const struct uart16550 *u)
{
	static const u8 levels[] = {1, 4, 8, 14};

	return u->fcr & FCR_ENABLE ? levels[u->fcr >> 6] : 1;
}

/* IIR without the FIFO bits. */
static u8 cause(const struct uart16550 *u)
{
	if ((u->ier & IER_RLS) && u->errors)
		return IIR_RLS;
	if ((u->ier & IER_RDA) && u->rx.len)
		return u->rx.len >= rx_trigger(u) ? IIR_RDA : IIR_TIMEOUT;
	if ((u->ier & IER_THRE) && u->thre_pending)
		return IIR_THRE;
	if ((u->ier & IER_MSR) && u->msr_delta)
		return IIR_MSR;
	return IIR_NONE;
}

static void line_update(struct uart16550 *u)
{
	irq_set(&u->line, cause(u) != IIR_NONE);
}

static u8 modem_lines(const struct uart16550 *u)
{
	u8 m = u->mcr;

	if (!(m & MCR_LOOP))
		return MSR_LINE;
	/* Loopback: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD. */
	return (m & 1) << 5 | (m & 2) << 3 | (m & 4) << 4 | (m & 8) << 4;
}

/* ---- data ---- */

size_t uart_can_receive(struct uart16550 *u)
{
	if (u->mcr & MCR_LOOP)
		return 0;
	return fifo_size(u) - MIN(u->rx.len, fifo_size(u));
}

static void rx_push(struct uart16550 *u, u8 v)
{
	if (u->rx.len >= fifo_size(u))
		u->errors |= LSR_OVERRUN;
	else
		u->rx.bytes[u->rx.len++] = v;
}

size_t uart_receive(struct uart16550 *u, const void *bytes, size_t n)
{
	n = MIN(n, uart_can_receive(u));
	for (size_t i = 0; i < n; i++)
		rx_push(u, ((const u8 *)bytes)[i]);
	line_update(u);
	return n;
}

static void tx_flush(struct uart16550 *u)
{
	size_t n;

	if (!u->tx.len)
		return;
	n = chardev_write(u->chardev, u->tx.bytes, u->tx.len);
	memmove(u->tx.bytes, u->tx.bytes + n, u->tx.len - n);
	u->tx.len -= n;
	if (!u->tx.len)
		u->thre_pending = true;
}

static void thr_write(struct uart16550 *u, u8 v)
{
	u->thre_pending = false;
	if (u->mcr & MCR_LOOP) {
		rx_push(u, v);
		u->thre_pending = true;
		return;
	}
	/* A guest that does not wait for THRE loses bytes, as on hardware. */
	if (u->tx.len < fifo_size(u))
		u->tx.bytes[u->tx.len++] = v;
	tx_flush(u);
}

static u8 rbr_read(struct uart16550 *u)
{
	u8 v;

	if (!u->rx.len)
		return 0;
	v = fifo_pop(&u->rx);
	line_update(u);
	chardev_can_receive_more(u->chardev);
	return v;
}

/* ---- registers ---- */

static u8 lsr_read(struct uart16550 *u)
{
	u8 v = u->errors;

	if (u->rx.len)
		v |= LSR_DATA;
	if (!u->tx.len)
		v |= LSR_THRE | LSR_TEMT;
	u->errors = 0;
	return v;
}

static u8 iir_read(struct uart16550 *u)
{
	u8 v = cause(u);

	if (v == IIR_THRE)
		u->thre_pending = false;
	return v | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static u64 uart_read(void *opaque, u64 off, unsigned size)
{
	struct uart16550 *u = opaque;
	u8 v = 0;

	switch (off) {
	case UART_RBR:
		if (u->lcr & LCR_DLAB)
			return u->divisor & 0xff;
		v = rbr_read(u);
		break;
	case UART_IER:
		return u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
	case UART_IIR:
		v = iir_read(u);
		break;
	case UART_LCR:
		return u->lcr;
	case UART_MCR:
		return u->mcr;
	case UART_LSR:
		v = lsr_read(u);
		break;
	case UART_MSR:
		v = modem_lines(u) | u->msr_delta;
		u->msr_delta = 0;
		break;
	case UART_SCR:
		return u->scr;
	}
	line_update(u);
	return v;
}

static void fcr_write(struct uart16550 *u, u8 v)
{
	/* Turning the FIFOs on or off empties them. */
	if ((v ^ u->fcr) & FCR_ENABLE)
		v |= FCR_CLEAR_RX | FCR_CLEAR_TX;
	if (v & FCR_CLEAR_RX)
		u->rx.len = 0;
	if (v & FCR_CLEAR_TX) {
		u->thre_pending |= u->tx.len != 0;
		u->tx.len = 0;
	}
	u->fcr = v & FCR_ENABLE ? v & FCR_KEPT : 0;
	chardev_can_receive_more(u->chardev);
}

static void mcr_write(struct uart16550 *u, u8 v)
{
	u8 was = modem_lines(u), now;

	u->mcr = v & MCR_WRITABLE;
	now = modem_lines(u);
	/* RI reports only its trailing edge. */
	u->msr_delta |= ((was ^ now) >> 4 & MSR_DELTA & ~MSR_RI_TRAILING) |
			((was & ~now) >> 4 & MSR_RI_TRAILING);
	chardev_can_receive_more(u->chardev);
}

static void ier_write(struct uart16550 *u, u8 v)
{
	/* Enabling THRE while the transmitter is empty interrupts. */
	if ((v & IER_THRE) && !(u->ier & IER_THRE) && !u->tx.len)
		u->thre_pending = true;
	u->ier = v & 0x0f;
}

static void uart_write(void *opaque, u64 off, unsigned size, u64 value)
{
	struct uart16550 *u = opaque;
	u8 v = value;

	switch (off) {
	case UART_RBR:
		if (u->lcr & LCR_DLAB)
			u->divisor = (u->divisor & 0xff00) | v;
		else
			thr_write(u, v);
		break;
	case UART_IER:
		if (u->lcr & LCR_DLAB)
			u->divisor = (u->divisor & 0xff) | v << 8;
		else
			ier_write(u, v);
		break;
	case UART_IIR:
		fcr_write(u, v);
		break;
	case UART_LCR:
		if ((v & LCR_BREAK) && (u->mcr & MCR_LOOP)) {
			rx_push(u, 0);
			u->errors |= LSR_BREAK;
		}
		u->lcr = v;
		break;
	case UART_MCR:
		mcr_write(u, v);
		break;
	case UART_SCR:
		u->scr = v;
		break;
	}
	line_update(u);
}

static const struct io_ops uart_io = {
	.read = uart_read,
	.write = uart_write,
	.max_size = 1,
};

/* ---- back end ---- */

static size_t front_can_receive(void *opaque)
{
	return uart_can_receive(opaque);
}

static void front_receive(void *opaque, const void *bytes, size_t n)
{
	uart_receive(opaque, bytes, n);
}

static void front_writable(void *opaque)
{
	struct uart16550 *u = opaque;

	tx_flush(u);
	line_update(u);
}

/* ---- device ---- */

static void uart_reset(struct device *dev)
{
	struct uart16550 *u = container_of(dev, struct uart16550, dev);

	u->ier = u->fcr = u->lcr = u->scr = u->msr_delta = u->errors = 0;
	u->mcr = 0x08;
	u->divisor = 12;
	u->rx.len = u->tx.len = 0;
	u->thre_pending = false;
	line_update(u);
	chardev_can_receive_more(u->chardev);
}

static void uart_state(struct device *dev, struct state *s)
{
	struct uart16550 *u = container_of(dev, struct uart16550, dev);

	st_var_bytes(s, "rx", u->rx.bytes, &u->rx.len, FIFO_BYTES);
	st_var_bytes(s, "tx", u->tx.bytes, &u->tx.len, FIFO_BYTES);
	st_u8(s, "ier", &u->ier);
	st_u8(s, "fcr", &u->fcr);
	st_u8(s, "lcr", &u->lcr);
	st_u8(s, "mcr", &u->mcr);
	st_u8(s, "scr", &u->scr);
	st_u8(s, "msr_delta", &u->msr_delta);
	st_u8(s, "errors", &u->errors);
	st_u16(s, "divisor", &u->divisor);
	st_bool(s, "thre_pending", &u->thre_pending);
	st_require(s,
		   !(u->ier & 0xf0) && !(u->fcr & ~FCR_KEPT) &&
			   !(u->mcr & ~MCR_WRITABLE) &&
			   !(u->msr_delta & ~MSR_DELTA) &&
			   !(u->errors & ~LSR_ERRORS),
		   "uart register out of range");
	st_require(s, u->rx.len <= fifo_size(u) && u->tx.len <= fifo_size(u),
		   "uart fifo is too long");
}

static void uart_post_load(struct device *dev)
{
	struct uart16550 *u = container_of(dev, struct uart16550, dev);

	tx_flush(u);
	line_update(u);
	chardev_can_receive_more(u->chardev);
}

static void uart_free(struct device *dev)
{
	struct uart16550 *u = container_of(dev, struct uart16550, dev);

	chardev_set_front(u->chardev, &(struct chardev_front){0});
	mem_io_del(u->mem, &u->region);
	free(u);
}

struct uart16550 *uart16550_new(const struct hw_env *env, const char *name,
				u16 port, struct irq line,
				struct chardev *chardev)
{
	static const struct device_ops ops = {
		.type = "uart16550",
		.reset = uart_reset,
		.state = uart_state,
		.post_load = uart_post_load,
		.free = uart_free,
	};
	struct uart16550 *u = hw_chip_new(env, sizeof(*u), &ops, name);
	struct chardev_front front = {
		.can_receive = front_can_receive,
		.receive = front_receive,
		.writable = front_writable,
		.opaque = u,
	};

	u->mem = env->mem;
	u->chardev = chardev;
	u->line = line;
	hw_map(env, &u->region, "uart", IO_PIO, port, 8, &uart_io, u);
	uart_reset(&u->dev);
	chardev_set_front(chardev, &front);
	return u;
}
