/* SPDX-License-Identifier: Apache-2.0 */
#include "api/agent_proto.h"

#include <errno.h>
#include <stdio.h>

#include "base/assert.h"

/* A bounded reader over a payload. After a failure every later read fails. */
struct cursor {
	const u8 *at, *end;
	bool is_bad;
};

static struct cursor cursor_of(const struct agent_frame *f)
{
	return (struct cursor){f->payload, f->payload + f->len, false};
}

static u32 take_le(struct cursor *c, unsigned bytes)
{
	u32 v = 0;

	if (c->is_bad || (size_t)(c->end - c->at) < bytes) {
		c->is_bad = true;
		return 0;
	}
	for (unsigned i = 0; i < bytes; i++)
		v |= (u32)c->at[i] << (8 * i);
	c->at += bytes;
	return v;
}

static const char *take_str(struct cursor *c)
{
	const u8 *nul = NULL;
	const char *s = (const char *)c->at;

	if (!c->is_bad && c->at < c->end)
		nul = memchr(c->at, 0, c->end - c->at);
	if (!nul) {
		c->is_bad = true;
		return "";
	}
	c->at = nul + 1;
	return s;
}

static bool is_done(const struct cursor *c)
{
	return !c->is_bad && c->at == c->end;
}

int agent_frame_parse(const u8 *bytes, size_t len, struct agent_frame *out)
{
	u32 payload_len;

	if (len < AGENT_HEADER_BYTES)
		return 0;
	payload_len = ld_le32(bytes);
	if (payload_len > AGENT_PAYLOAD_MAX || bytes[4] == 0 ||
	    bytes[4] >= AGENT_FRAME_TYPE_END)
		return -EPROTO;
	if (len - AGENT_HEADER_BYTES < payload_len)
		return 0;
	out->type = bytes[4];
	out->len = payload_len;
	out->payload = bytes + AGENT_HEADER_BYTES;
	return AGENT_HEADER_BYTES + payload_len;
}

void agent_frame_append(struct buf *out, u8 type, const void *payload,
			size_t len)
{
	ASSERT(len <= AGENT_PAYLOAD_MAX);
	buf_append_le32(out, len);
	buf_append_u8(out, type);
	if (len)
		buf_append(out, payload, len);
}

int agent_hello_parse(const struct agent_frame *f, struct agent_hello *out)
{
	struct cursor c = cursor_of(f);
	u32 version = take_le(&c, 4);
	const char *hostname = take_str(&c), *boot_id = take_str(&c);

	if (f->type != AGENT_HELLO || !is_done(&c) ||
	    strlen(hostname) >= sizeof(out->hostname) ||
	    strlen(boot_id) >= sizeof(out->boot_id))
		return -EPROTO;
	out->version = version;
	strcpy(out->hostname, hostname);
	strcpy(out->boot_id, boot_id);
	return 0;
}

void agent_hello_append(struct buf *out, const struct agent_hello *h)
{
	struct buf p;

	buf_init(&p);
	buf_append_le32(&p, h->version);
	buf_append(&p, h->hostname, strlen(h->hostname) + 1);
	buf_append(&p, h->boot_id, strlen(h->boot_id) + 1);
	agent_frame_append(out, AGENT_HELLO, p.bytes, p.len);
	buf_fini(&p);
}

int agent_exec_parse(const struct agent_frame *f, struct agent_exec *out)
{
	struct cursor c = cursor_of(f);
	u32 flags = take_le(&c, 1);

	if (f->type != AGENT_EXEC || flags > 1)
		return -EPROTO;
	out->is_tty = flags & 1;
	out->rows = take_le(&c, 2);
	out->columns = take_le(&c, 2);
	out->argc = take_le(&c, 2);
	out->envc = take_le(&c, 2);
	if (out->argc > AGENT_ARGS_MAX || out->envc > AGENT_ENV_MAX)
		return -EPROTO;
	out->cwd = take_str(&c);
	for (unsigned i = 0; i < out->argc; i++)
		out->argv[i] = take_str(&c);
	for (unsigned i = 0; i < out->envc; i++) {
		out->env[i] = take_str(&c);
		if (!strchr(out->env[i], '=') || out->env[i][0] == '=')
			return -EPROTO;
	}
	out->argv[out->argc] = NULL;
	out->env[out->envc] = NULL;
	return is_done(&c) ? 0 : -EPROTO;
}

int agent_exec_append(struct buf *out, const struct agent_exec *e)
{
	struct buf p;
	int rc = 0;

	buf_init(&p);
	buf_append_u8(&p, e->is_tty);
	buf_append_le16(&p, e->rows);
	buf_append_le16(&p, e->columns);
	buf_append_le16(&p, e->argc);
	buf_append_le16(&p, e->envc);
	buf_append(&p, e->cwd, strlen(e->cwd) + 1);
	for (unsigned i = 0; i < e->argc; i++)
		buf_append(&p, e->argv[i], strlen(e->argv[i]) + 1);
	for (unsigned i = 0; i < e->envc; i++)
		buf_append(&p, e->env[i], strlen(e->env[i]) + 1);
	if (p.len > AGENT_PAYLOAD_MAX || e->argc > AGENT_ARGS_MAX ||
	    e->envc > AGENT_ENV_MAX)
		rc = -E2BIG;
	else
		agent_frame_append(out, AGENT_EXEC, p.bytes, p.len);
	buf_fini(&p);
	return rc;
}

static bool is_hostname(const char *s)
{
	size_t n = strlen(s);

	return n > 0 && n < 65 && s[0] != '-' && s[0] != '.' &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyz"
			 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") == n;
}

int agent_identity_parse(const struct agent_frame *f,
			 struct agent_identity *out)
{
	struct cursor c = cursor_of(f);
	const char *host, *id;

	memset(out, 0, sizeof(*out));
	if (f->type != AGENT_SET_IDENTITY || f->len < 38)
		return -EPROTO;
	memcpy(out->mac, c.at, 6);
	memcpy(out->seed, c.at + 6, 32);
	c.at += 38;
	host = take_str(&c);
	id = take_str(&c);
	if (!is_done(&c) || !is_hostname(host) || strlen(id) != 32 ||
	    strspn(id, "0123456789abcdef") != 32)
		return -EPROTO;
	strcpy(out->hostname, host);
	strcpy(out->machine_id, id);
	return 0;
}

void agent_identity_append(struct buf *out, const struct agent_identity *id)
{
	u8 payload[38 + sizeof(id->hostname) + sizeof(id->machine_id)];
	size_t host = strlen(id->hostname) + 1;

	memcpy(payload, id->mac, 6);
	memcpy(payload + 6, id->seed, 32);
	memcpy(payload + 38, id->hostname, host);
	memcpy(payload + 38 + host, id->machine_id, 33);
	agent_frame_append(out, AGENT_SET_IDENTITY, payload, 38 + host + 33);
}

int agent_exit_parse(const struct agent_frame *f, struct agent_exit *out)
{
	if (f->type != AGENT_EXIT || f->len != 2)
		return -EPROTO;
	if ((f->payload[0] && f->payload[1]) || f->payload[1] > 127)
		return -EPROTO;
	out->status = f->payload[0];
	out->signal = f->payload[1];
	return 0;
}

void agent_exit_append(struct buf *out, const struct agent_exit *e)
{
	u8 payload[2] = {e->status, e->signal};

	agent_frame_append(out, AGENT_EXIT, payload, sizeof(payload));
}

int agent_error_parse(const struct agent_frame *f, struct err *err)
{
	struct cursor c = cursor_of(f);
	u32 code = take_le(&c, 4);
	char text[ERR_TEXT_MAX];
	size_t n = 0;

	if (f->type != AGENT_ERROR || c.is_bad)
		return err_set(err, -EPROTO, "bad answer from the agent");
	if (code == 0 || code > 4095)
		code = EIO;
	/* It is shown on a terminal: keep printable bytes only. */
	for (; c.at < c.end && n < sizeof(text) - 1; c.at++)
		text[n++] = *c.at >= ' ' && *c.at != 0x7f ? *c.at : '?';
	text[n] = 0;
	return err_set(err, -(int)code, "%s", text);
}

void agent_error_append(struct buf *out, const struct err *err)
{
	struct buf p;

	buf_init(&p);
	buf_append_le32(&p, -err->code);
	buf_append(&p, err->text, strlen(err->text));
	agent_frame_append(out, AGENT_ERROR, p.bytes, p.len);
	buf_fini(&p);
}
