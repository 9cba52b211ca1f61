/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: a key is a row: its name, its type, where it lies in the struct and
 * its limits. Reading, writing and documenting are three walks over the same
 * rows; an array of objects is a row that points at another table. */
#include "api/machine_config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/nearest.h"

enum field_type {
	FIELD_BOOL,
	FIELD_U16,
	FIELD_U32,
	FIELD_U64,
	FIELD_ENUM, /* int-sized; words[value] */
	FIELD_STR,  /* char[max] */
	FIELD_FD,   /* int; -1 when absent */
	FIELD_IPV4, /* u32, host byte order; dotted text in JSON */
	FIELD_ARRAY,
};

struct field {
	const char *name;
	enum field_type type;
	size_t offset;
	u64 min, max; /* numbers; FIELD_STR: max is the array's size */
	const char *doc;
	const char *const *words;     /* FIELD_ENUM */
	const struct field *elements; /* FIELD_ARRAY */
	size_t element_bytes;
	size_t count_offset;
	void (*element_init)(void *element);
};

#define PATH_MAX_CHARS 96

/* clang-format off */
static const char *const engine_words[] = {"auto", "soft", "kvm", NULL};
static const char *const console_words[] = {"serial", "virtio", NULL};
static const char *const network_words[] = {"user", "none", NULL};

#define AT(s, m) .offset = offsetof(struct s, m)
#define STR(s, m) .type = FIELD_STR, AT(s, m), \
	.max = sizeof(((struct s *)0)->m)

static void layer_init(void *element);

static const struct field layer_fields[] = {
	{"fd", FIELD_FD, AT(api_layer, fd), .doc = "the file, locked"},
	{"format", STR(api_layer, format), .doc = "its format: raw or qcow2"},
	{0},
};

static const struct field disk_fields[] = {
	{"fd", FIELD_FD, AT(api_disk, fd), .doc = "the image, locked"},
	{"format", STR(api_disk, format), .doc = "image format: raw or qcow2"},
	{"readonly", FIELD_BOOL, AT(api_disk, is_read_only),
	 .doc = "the guest cannot write it"},
	{"serial", STR(api_disk, serial), .doc = "virtio-blk serial"},
	{"layers", FIELD_ARRAY, AT(api_disk, layers), .max = API_LAYERS_MAX,
	 .elements = layer_fields, .element_bytes = sizeof(struct api_layer),
	 .count_offset = offsetof(struct api_disk, layer_count),
	 .element_init = layer_init,
	 .doc = "the files that the image is an overlay of, nearest first"},
	{0},
};

static const struct field forward_fields[] = {
	{"udp", FIELD_BOOL, AT(api_forward, is_udp), .doc = "else TCP"},
	{"host_addr", FIELD_IPV4, AT(api_forward, host_addr),
	 .doc = "where the host listens"},
	{"host_port", FIELD_U16, AT(api_forward, host_port), .min = 1,
	 .max = 65535, .doc = "host port"},
	{"guest_port", FIELD_U16, AT(api_forward, guest_port), .min = 1,
	 .max = 65535, .doc = "guest port"},
	{0},
};

static void disk_init(void *element);
static void forward_init(void *element);

#define CFG(m) AT(api_machine_config, m)
static const struct field config_fields[] = {
	{"name", STR(api_machine_config, name), .doc = "the machine's name"},
	{"cpus", FIELD_U32, CFG(cpus), .min = 1, .max = 64,
	 .doc = "virtual CPUs"},
	{"memory_bytes", FIELD_U64, CFG(memory_bytes), .min = MIB,
	 .max = 1ull << 42, .doc = "guest RAM, a multiple of 1 MiB"},
	{"engine", FIELD_ENUM, CFG(engine), .words = engine_words,
	 .doc = "CPU engine"},
	{"cpu_model", STR(api_machine_config, cpu_model),
	 .doc = "CPU model; empty for the default"},
	{"restore_state_fd", FIELD_FD, CFG(restore_state_fd),
	 .doc = "a snapshot's state file: the machine goes on from there"},
	{"restore_memory_fd", FIELD_FD, CFG(restore_memory_fd),
	 .doc = "its memory file"},
	{"kernel_fd", FIELD_FD, CFG(kernel_fd),
	 .doc = "kernel for direct boot"},
	{"initrd_fd", FIELD_FD, CFG(initrd_fd),
	 .doc = "initramfs or multiboot module"},
	{"append", STR(api_machine_config, append),
	 .doc = "kernel command line"},
	{"disks", FIELD_ARRAY, CFG(disks), .max = API_DISKS_MAX,
	 .elements = disk_fields, .element_bytes = sizeof(struct api_disk),
	 .count_offset = offsetof(struct api_machine_config, disk_count),
	 .element_init = disk_init, .doc = "virtio-blk disks, vda first"},
	{"console", FIELD_ENUM, CFG(console), .words = console_words,
	 .doc = "the device that the console is"},
	{"network", FIELD_ENUM, CFG(network), .words = network_words,
	 .doc = "network backend"},
	{"forwards", FIELD_ARRAY, CFG(forwards), .max = API_FORWARDS_MAX,
	 .elements = forward_fields,
	 .element_bytes = sizeof(struct api_forward),
	 .count_offset = offsetof(struct api_machine_config, forward_count),
	 .element_init = forward_init, .doc = "host ports led to the guest"},
	{"debug_exit", FIELD_BOOL, CFG(debug_exit),
	 .doc = "a write to port 0xf4 ends the machine"},
	{"test_devices", FIELD_BOOL, CFG(test_devices),
	 .doc = "fw_cfg and the ISA and PCI test devices"},
	{"tsc_khz", FIELD_U32, CFG(tsc_khz), .max = 20000000,
	 .doc = "the host's TSC, as machine.create answers; 0: unknown"},
	{"kvm_refused", STR(api_machine_config, kvm_refused),
	 .doc = "why engine 'auto' need not try KVM; \"\": it does"},
	{"mac", STR(api_machine_config, mac),
	 .doc = "of the network interface; \"\": a random one"},
	{"new_identity", FIELD_BOOL, CFG(new_identity),
	 .doc = "restored as another machine than the one that was saved"},
	{"is_held", FIELD_BOOL, CFG(is_held),
	 .doc = "built, it waits for machine.resume, and ends when its owner "
		"goes without that"},
	{"no_reboot", FIELD_BOOL, CFG(no_reboot),
	 .doc = "a reset ends the machine"},
	{"no_sandbox", FIELD_BOOL, CFG(no_sandbox),
	 .doc = "for diagnosis: the vmm's system calls are not filtered"},
	{"lockstep_every", FIELD_U32, CFG(lockstep_every), .max = 0xffffffff,
	 .doc = "for diagnosis: the software engine checks its translator "
		"against its interpreter at every n-th block; 0: never"},
	{"debugcon_fd", FIELD_FD, CFG(debugcon_fd),
	 .doc = "gets what is written to port 0xe9"},
	{"serial_fd", FIELD_FD, CFG(serial_fd), .doc = "COM1's first client"},
	{"serial_input", FIELD_BOOL, CFG(serial_input),
	 .doc = "serial_fd is also read"},
	{"console_log_fd", FIELD_FD, CFG(console_log_fd),
	 .doc = "gets a copy of COM1's output"},
	{"listen_fd", FIELD_FD, CFG(listen_fd),
	 .doc = "listening SEQPACKET socket for control clients"},
	{"vsock_cid", FIELD_U32, CFG(vsock_cid), .max = 0xfffffffe,
	 .doc = "guest's vsock address; 0 for no vsock device"},
	{"log_level", FIELD_U32, CFG(log_level), .max = 3,
	 .doc = "0 error, 1 warning, 2 info, 3 debug"},
	{0},
};
/* clang-format on */

static void layer_init(void *element)
{
	struct api_layer *l = element;

	memset(l, 0, sizeof(*l));
	l->fd = -1;
	strcpy(l->format, "raw");
}

static void disk_init(void *element)
{
	struct api_disk *d = element;

	memset(d, 0, sizeof(*d));
	d->fd = -1;
	strcpy(d->format, "raw");
}

static void forward_init(void *element)
{
	struct api_forward *f = element;

	memset(f, 0, sizeof(*f));
	f->host_addr = INADDR_LOOPBACK;
}

void api_machine_config_init(struct api_machine_config *c)
{
	memset(c, 0, sizeof(*c));
	c->cpus = 1;
	c->memory_bytes = GIB;
	c->kernel_fd = c->initrd_fd = c->debugcon_fd = -1;
	c->serial_fd = c->console_log_fd = c->listen_fd = -1;
	c->restore_state_fd = c->restore_memory_fd = -1;
	c->vsock_cid = 3;
	c->log_level = 1;
}

/* What a walk carries: the place in the document and the descriptors seen. */
struct walk {
	size_t fd_count;
	u64 fds_used;
	struct err *err;
};

static int bad(struct walk *w, const char *path, const char *text)
{
	err_set(w->err, -EINVAL, "machine config: '%s' %s", path, text);
	err_set_id(w->err, "config.invalid");
	return -EINVAL;
}

static int read_number(struct walk *w, const struct field *f, const char *path,
		       const json_t *v, void *at)
{
	char text[96];
	json_int_t n = json_integer_value(v);

	snprintf(text, sizeof(text), "must be a number from %llu to %llu",
		 (unsigned long long)f->min, (unsigned long long)f->max);
	if (!json_is_integer(v) || n < 0 || (u64)n < f->min || (u64)n > f->max)
		return bad(w, path, text);
	if (f->type == FIELD_U16)
		*(u16 *)at = n;
	else if (f->type == FIELD_U32)
		*(u32 *)at = n;
	else
		*(u64 *)at = n;
	return 0;
}

static int read_enum(struct walk *w, const struct field *f, const char *path,
		     const json_t *v, void *at)
{
	const char *word = json_string_value(v);
	char text[96] = "must be one of";

	for (int i = 0; f->words[i]; i++) {
		if (word && strcmp(word, f->words[i]) == 0) {
			*(int *)at = i;
			return 0;
		}
		strcat(text, " ");
		strcat(text, f->words[i]);
	}
	return bad(w, path, text);
}

static int read_str(struct walk *w, const struct field *f, const char *path,
		    const json_t *v, char *at)
{
	size_t len = json_string_length(v);

	if (!json_is_string(v))
		return bad(w, path, "must be a string");
	if (len >= f->max)
		return bad(w, path, "is too long");
	/* jansson refuses \u0000 unless asked, so len is strlen. */
	memcpy(at, json_string_value(v), len + 1);
	return 0;
}

static int read_fd(struct walk *w, const char *path, const json_t *v, int *at)
{
	json_int_t n = json_integer_value(v);

	if (!json_is_integer(v) || n < 0 || (u64)n >= w->fd_count || n >= 64)
		return bad(w, path, "counts a file that was not passed");
	if (w->fds_used & BIT64(n))
		return bad(w, path, "counts a file that another key has");
	w->fds_used |= BIT64(n);
	*at = n;
	return 0;
}

static int read_ipv4(struct walk *w, const char *path, const json_t *v, u32 *at)
{
	struct in_addr a;

	if (!json_is_string(v) ||
	    inet_pton(AF_INET, json_string_value(v), &a) != 1)
		return bad(w, path, "must be an IPv4 address");
	*at = ntohl(a.s_addr);
	return 0;
}

static int read_object(struct walk *w, const struct field *fields,
		       const char *prefix, const json_t *obj, void *out);

static int read_array(struct walk *w, const struct field *f, const char *path,
		      const json_t *v, u8 *base)
{
	size_t n = json_array_size(v);

	if (!json_is_array(v))
		return bad(w, path, "must be an array");
	if (n > f->max)
		return bad(w, path, "has too many elements");
	for (size_t i = 0; i < n; i++) {
		u8 *element = base + f->offset + i * f->element_bytes;
		char prefix[PATH_MAX_CHARS];
		int rc;

		snprintf(prefix, sizeof(prefix), "%s[%zu].", f->name, i);
		f->element_init(element);
		rc = read_object(w, f->elements, prefix, json_array_get(v, i),
				 element);
		if (rc)
			return rc;
	}
	*(u32 *)(base + f->count_offset) = n;
	return 0;
}

static int read_field(struct walk *w, const struct field *f, const char *path,
		      const json_t *v, u8 *base)
{
	void *at = base + f->offset;

	switch (f->type) {
	case FIELD_BOOL:
		if (!json_is_boolean(v))
			return bad(w, path, "must be true or false");
		*(bool *)at = json_is_true(v);
		return 0;
	case FIELD_U16:
	case FIELD_U32:
	case FIELD_U64:
		return read_number(w, f, path, v, at);
	case FIELD_ENUM:
		return read_enum(w, f, path, v, at);
	case FIELD_STR:
		return read_str(w, f, path, v, at);
	case FIELD_FD:
		return read_fd(w, path, v, at);
	case FIELD_IPV4:
		return read_ipv4(w, path, v, at);
	case FIELD_ARRAY:
		return read_array(w, f, path, v, base);
	}
	return bad(w, path, "has no type");
}

static const char *field_name_at(const void *fields, size_t i)
{
	return ((const struct field *)fields)[i].name;
}

static int unknown_key(struct walk *w, const struct field *fields,
		       const char *path, const char *key)
{
	const char *near = nearest_word(key, field_name_at, fields);
	char text[96] = "is not known";

	if (near)
		snprintf(text, sizeof(text),
			 "is not known (did you mean '%s'?)", near);
	return bad(w, path, text);
}

static int read_object(struct walk *w, const struct field *fields,
		       const char *prefix, const json_t *obj, void *out)
{
	const char *key;
	json_t *v;

	if (!json_is_object(obj))
		return bad(w, *prefix ? prefix : "machine",
			   "must be an object");
	json_object_foreach((json_t *)obj, key, v)
	{
		const struct field *f = fields;
		char path[PATH_MAX_CHARS];
		int rc;

		snprintf(path, sizeof(path), "%s%.40s", prefix, key);
		while (f->name && strcmp(f->name, key) != 0)
			f++;
		rc = f->name ? read_field(w, f, path, v, out)
			     : unknown_key(w, fields, path, key);
		if (rc)
			return rc;
	}
	return 0;
}

static bool is_disk_format(const char *word)
{
	return !strcmp(word, "raw") || !strcmp(word, "qcow2");
}

int api_machine_config_check(const struct api_machine_config *c,
			     struct err *err)
{
	struct walk w = {.err = err};

	if (c->cpus < 1 || c->cpus > 64)
		return bad(&w, "cpus", "must be a number from 1 to 64");
	if (c->memory_bytes < MIB || c->memory_bytes % MIB)
		return bad(&w, "memory_bytes", "must be a multiple of 1 MiB");
	if (c->vsock_cid == 1 || c->vsock_cid == 2)
		return bad(&w, "vsock_cid", "must be 0, or 3 and above");
	if (c->initrd_fd >= 0 && c->kernel_fd < 0)
		return bad(&w, "initrd_fd", "needs 'kernel_fd'");
	if (c->serial_input && c->serial_fd < 0)
		return bad(&w, "serial_input", "needs 'serial_fd'");
	if (c->forward_count && c->network == API_NETWORK_NONE)
		return bad(&w, "forwards", "needs 'network'");
	for (u32 i = 0; i < c->disk_count; i++) {
		char path[32];

		snprintf(path, sizeof(path), "disks[%u].fd", i);
		if (c->disks[i].fd < 0)
			return bad(&w, path, "is missing");
		snprintf(path, sizeof(path), "disks[%u].format", i);
		if (!is_disk_format(c->disks[i].format))
			return bad(&w, path, "must be 'raw' or 'qcow2'");
		snprintf(path, sizeof(path), "disks[%u].layers", i);
		for (u32 j = 0; j < c->disks[i].layer_count; j++) {
			const struct api_layer *l = &c->disks[i].layers[j];

			if (l->fd < 0 || !is_disk_format(l->format))
				return bad(&w, path,
					   "needs a file and a format each");
		}
	}
	for (u32 i = 0; i < c->forward_count; i++) {
		if (!c->forwards[i].host_port || !c->forwards[i].guest_port)
			return bad(&w, "forwards", "needs both ports");
	}
	return 0;
}

int api_machine_config_from_json(const json_t *obj, size_t fd_count,
				 struct api_machine_config *out,
				 struct err *err)
{
	struct walk w = {.fd_count = fd_count, .err = err};
	struct api_machine_config *c = malloc(sizeof(*c));
	int rc;

	if (!c)
		return err_sys(err, -ENOMEM, "read machine config");
	api_machine_config_init(c);
	rc = read_object(&w, config_fields, "", obj, c);
	if (!rc)
		rc = api_machine_config_check(c, err);
	if (!rc)
		*out = *c;
	free(c);
	return rc;
}

static json_t *write_object(const struct field *fields, const u8 *base);

static json_t *write_field(const struct field *f, const u8 *base)
{
	const void *at = base + f->offset;
	json_t *array;
	char text[INET_ADDRSTRLEN];
	struct in_addr a;

	switch (f->type) {
	case FIELD_BOOL:
		return json_boolean(*(const bool *)at);
	case FIELD_U16:
		return json_integer(*(const u16 *)at);
	case FIELD_U32:
		return json_integer(*(const u32 *)at);
	case FIELD_U64:
		return json_integer(*(const u64 *)at);
	case FIELD_ENUM:
		return json_string(f->words[*(const int *)at]);
	case FIELD_STR:
		return json_string(at);
	case FIELD_FD:
		return *(const int *)at < 0 ? NULL
					    : json_integer(*(const int *)at);
	case FIELD_IPV4:
		a.s_addr = htonl(*(const u32 *)at);
		return json_string(inet_ntop(AF_INET, &a, text, sizeof(text)));
	case FIELD_ARRAY:
		array = json_array();
		for (u32 i = 0; i < *(const u32 *)(base + f->count_offset); i++)
			json_array_append_new(
				array,
				write_object(f->elements,
					     (const u8 *)at +
						     i * f->element_bytes));
		return array;
	}
	return NULL;
}

static json_t *write_object(const struct field *fields, const u8 *base)
{
	json_t *obj = json_object();

	for (const struct field *f = fields; f->name; f++) {
		json_t *v = write_field(f, base);

		if (v)
			json_object_set_new(obj, f->name, v);
	}
	return obj;
}

json_t *api_machine_config_to_json(const struct api_machine_config *c)
{
	return write_object(config_fields, (const u8 *)c);
}

static void doc_fields(struct buf *out, const struct field *fields,
		       const char *prefix)
{
	static const char *const type_names[] = {
		"boolean", "number", "number",	     "number", "word",
		"string",  "file",   "IPv4 address", "array",
	};

	for (const struct field *f = fields; f->name; f++) {
		char path[PATH_MAX_CHARS];

		buf_printf(out, "%s%s\t%s\t%s", prefix, f->name,
			   type_names[f->type], f->doc);
		for (int i = 0; f->words && f->words[i]; i++)
			buf_printf(out, "%s%s", i ? "|" : ": ", f->words[i]);
		buf_printf(out, "\n");
		snprintf(path, sizeof(path), "%s[].", f->name);
		if (f->elements)
			doc_fields(out, f->elements, path);
	}
}

void api_machine_config_doc(struct buf *out)
{
	doc_fields(out, config_fields, "");
}
