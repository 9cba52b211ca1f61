/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/host_facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include <jansson.h>

#include "os/file.h"

#define FACTS_BYTES_MAX (16 * KIB)
#define KVM_SECONDS	3600
#define PATH_BYTES	(OS_PATH_MAX + 32)
#define TSC_KHZ_MIN	100000
#define TSC_KHZ_MAX	20000000

static int facts_path(char *out)
{
	char dir[OS_PATH_MAX];
	int rc = os_run_dir(dir, NULL);

	if (rc == 0)
		snprintf(out, PATH_BYTES, "%s/.host.json", dir);
	return rc;
}

static void boot_id(char *out, size_t cap)
{
	struct buf text;

	buf_init(&text);
	out[0] = 0;
	if (os_read_file("/proc/sys/kernel/random/boot_id", 64, &text, NULL) ==
	    0)
		snprintf(out, cap, "%.36s", buf_str(&text));
	buf_fini(&text);
}

/* Another when /dev/kvm appears, goes, or is made accessible. */
static void kvm_key(char *out, size_t cap)
{
	struct stat st;

	if (stat("/dev/kvm", &st))
		snprintf(out, cap, "none");
	else
		snprintf(out, cap, "%llx-%llx-%lld.%09ld",
			 (unsigned long long)st.st_rdev,
			 (unsigned long long)st.st_ino,
			 (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

static bool is_text(const json_t *obj, const char *key, const char *want)
{
	const char *have = json_string_value(json_object_get(obj, key));

	return have && want[0] && strcmp(have, want) == 0;
}

static void take(const json_t *obj, struct host_facts *out)
{
	json_int_t khz = json_integer_value(json_object_get(obj, "tsc_khz"));
	json_int_t at = json_integer_value(json_object_get(obj, "kvm_time"));
	const char *why =
		json_string_value(json_object_get(obj, "kvm_refused"));
	json_int_t age = (json_int_t)time(NULL) - at;
	char key[128];

	boot_id(key, sizeof(key));
	if (!is_text(obj, "boot_id", key))
		return;
	if (khz >= TSC_KHZ_MIN && khz <= TSC_KHZ_MAX)
		out->tsc_khz = (u32)khz;
	kvm_key(key, sizeof(key));
	if (why && is_text(obj, "kvm", key) && age >= 0 && age < KVM_SECONDS)
		snprintf(out->kvm_refused, sizeof(out->kvm_refused), "%s", why);
}

void host_facts_read(struct host_facts *out)
{
	char path[PATH_BYTES];
	struct buf text;
	json_t *obj;

	memset(out, 0, sizeof(*out));
	if (facts_path(path))
		return;
	buf_init(&text);
	if (os_read_file(path, FACTS_BYTES_MAX, &text, NULL) == 0) {
		obj = json_loadb((char *)text.bytes, text.len, 0, NULL);
		take(obj, out);
		json_decref(obj);
	}
	buf_fini(&text);
}

void host_facts_write(const struct host_facts *f)
{
	char path[PATH_BYTES], boot[64], kvm[128];
	json_t *obj;
	char *text;

	if (facts_path(path))
		return;
	boot_id(boot, sizeof(boot));
	kvm_key(kvm, sizeof(kvm));
	obj = json_pack("{s:s, s:I, s:s, s:s, s:I}", "boot_id", boot, "tsc_khz",
			(json_int_t)f->tsc_khz, "kvm", kvm, "kvm_refused",
			f->kvm_refused, "kvm_time", (json_int_t)time(NULL));
	text = obj ? json_dumps(obj, JSON_INDENT(1)) : NULL;
	if (text)
		(void)os_write_file(path, text, strlen(text), 0600, NULL);
	free(text);
	json_decref(obj);
}
