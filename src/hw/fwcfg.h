/* SPDX-License-Identifier: Apache-2.0 */
/* The firmware configuration device (QEMU's fw_cfg: docs/specs/fw_cfg.rst):
 * ports 0x510 selector, 0x511 bytes, 0x514 DMA. Items are fixed at start-up;
 * the guest only reads. */
#pragma once

#include "base/err.h"
#include "hw/hw.h"

#define FWCFG_RAM_SIZE 3
#define FWCFG_CPUS     5
#define FWCFG_MAX_CPUS 15

struct fwcfg;

struct fwcfg *fwcfg_new(const struct hw_env *env);
/* Copies the bytes. Keys below 0x20; a second call replaces the item. */
void fwcfg_set(struct fwcfg *f, u16 key, const void *bytes, u32 len);
/* A named file; -ENOSPC beyond FWCFG_FILES, -EINVAL for a name over 55 bytes,
 * -EEXIST. */
#define FWCFG_FILES 64
int fwcfg_add_file(struct fwcfg *f, const char *name, const void *bytes,
		   u32 len, struct err *err);
