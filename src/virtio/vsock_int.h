/* SPDX-License-Identifier: Apache-2.0 */
/* Private to vsock.c (packets, queues, listeners) and vsock_conn.c (one
 * connection: buffer, credit, host descriptor). */
#pragma once

#include "virtio/vsock.h"

#define VIRTIO_VSOCK_OP_REQUEST	       1
#define VIRTIO_VSOCK_OP_RESPONSE       2
#define VIRTIO_VSOCK_OP_RST	       3
#define VIRTIO_VSOCK_OP_SHUTDOWN       4
#define VIRTIO_VSOCK_OP_RW	       5
#define VIRTIO_VSOCK_OP_CREDIT_UPDATE  6
#define VIRTIO_VSOCK_OP_CREDIT_REQUEST 7

#define VIRTIO_VSOCK_TYPE_STREAM 1

#define VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE 1
#define VIRTIO_VSOCK_SHUTDOWN_F_SEND	2

#define VSOCK_HEADER_BYTES 44
#define VSOCK_PACKET_MAX   (64u * 1024)
#define VSOCK_BUCKETS	   256
#define VSOCK_RESETS	   2048 /* power of two */
/* The transmit queue waits while so many resets do. The rest of the ring is
 * for the connections that may end meanwhile. */
#define VSOCK_RESETS_HIGH (VSOCK_RESETS - VSOCK_CONNS_MAX - 1)

struct vsock_header {
	u64 src_cid, dst_cid;
	u32 src_port, dst_port;
	u32 len;
	u16 type, op;
	u32 flags;
	u32 buf_alloc, fwd_cnt;
} __attribute__((packed));

struct vsock_conn {
	struct list link;  /* in a bucket */
	struct list ready; /* in vsock.ready, or empty */
	struct vsock *d;
	u32 host_port, guest_port;
	int fd; /* -1 once the host side has gone */
	struct loop_fd watch;
	bool is_open;	    /* the handshake is over */
	bool is_readable;   /* a read may bring something */
	bool is_host_eof;   /* nothing more to read; SHUTDOWN sent */
	bool is_write_dead; /* the host reads no more: discard */
	u8 guest_shutdown;  /* VIRTIO_VSOCK_SHUTDOWN_F_* of the guest */
	u16 pending_op;	    /* REQUEST or RESPONSE to send; 0: none */
	bool wants_credit_update;
	/* Guest to host: what the descriptor has not taken yet. */
	u8 *ring; /* VSOCK_BUF_BYTES, allocated with the connection */
	u32 ring_head, ring_bytes;
	u32 fwd_cnt;  /* bytes handed on, free-running */
	u32 fwd_sent; /* fwd_cnt as last told to the guest */
	/* Host to guest. */
	u32 tx_cnt; /* bytes sent, free-running */
	u32 guest_buf_alloc, guest_fwd_cnt;
};

struct vsock_listen {
	u32 port;
	void (*on_accept)(void *opaque, int fd);
	void *opaque;
};

struct vsock {
	struct virtio_device v;
	u32 guest_cid;
	u32 next_port;
	u32 conn_count;
	struct list buckets[VSOCK_BUCKETS];
	struct list ready; /* connections with something to send */
	struct {
		u32 host_port, guest_port;
	} resets[VSOCK_RESETS];
	u32 reset_head, reset_tail; /* free-running */
	bool is_tx_blocked;
	bool is_event_pending; /* a transport reset is to be told */
	bool is_settling;      /* and the guest has not dealt with it yet */
	u16 events_left;       /* buffers that it had given beside that one */
	u64 settle_end_ns;
	struct loop_timer settle;
	size_t listen_count;
	struct vsock_listen listens[VSOCK_LISTENS_MAX];
	struct virtq_chain rx, tx;
	u8 packet[VSOCK_PACKET_MAX];
};

/* ---- vsock.c ---- */

/* Queues an RST; there is room for one per connection at any time. */
void vsock_reset_queue(struct vsock *d, u32 host_port, u32 guest_port);
/* Sends what is ready while the guest has buffers. */
void vsock_pump(struct vsock *d);

/* ---- vsock_conn.c ---- */

/* NULL: the limit is reached or memory is short. Takes fd on success. */
struct vsock_conn *vsock_conn_new(struct vsock *d, u32 host_port,
				  u32 guest_port, int fd);
struct vsock_conn *vsock_conn_find(struct vsock *d, u32 host_port,
				   u32 guest_port);
/* Ends it on the host side; frees. */
void vsock_conn_free(struct vsock_conn *c, bool send_rst);
/* The guest's packet for this connection: header checked, payload copied.
 * May free the connection. */
void vsock_conn_receive(struct vsock_conn *c, const struct vsock_header *h,
			const u8 *payload);
/* Something to send? */
bool vsock_conn_has_output(const struct vsock_conn *c);
/* Fills in header and payload of the next packet in a chain with room for the
 * header; returns the payload's length, or -EAGAIN when there was none. */
int vsock_conn_emit(struct vsock_conn *c, struct vsock_header *h,
		    const struct virtq_chain *chain);
