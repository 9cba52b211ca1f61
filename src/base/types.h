/* SPDX-License-Identifier: Apache-2.0 */
/* Fixed-width scalars, guest address types and the few macros that every
 * module uses. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;

typedef u64 gpa_t; /* guest physical address, bytes */
typedef u64 gva_t; /* guest virtual (linear) address, bytes */
typedef u64 gfn_t; /* guest physical page number, gpa >> 12 */

#define KIB (1ull << 10)
#define MIB (1ull << 20)
#define GIB (1ull << 30)

#define PAGE_SHIFT 12
#define PAGE_BYTES 4096ull

#define BIT32(n) (1u << (n))
#define BIT64(n) (1ull << (n))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))
/* n must be a power of two. */
#define ALIGN_UP(x, n)	 (((x) + ((n)-1)) & ~((typeof(x))(n)-1))
#define ALIGN_DOWN(x, n) ((x) & ~((typeof(x))(n)-1))

#define container_of(ptr, type, member)                                        \
	((type *)((char *)(ptr)-offsetof(type, member)))

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define NORETURN	__attribute__((noreturn))
#define MUST_CHECK	__attribute__((warn_unused_result))

/* Unaligned little-endian loads and stores (the host is little-endian); never a
 * call, also where -fno-builtin says that there is no C library. */
static inline u16 ld_le16(const void *p)
{
	u16 v;
	__builtin_memcpy(&v, p, sizeof(v));
	return v;
}
static inline u32 ld_le32(const void *p)
{
	u32 v;
	__builtin_memcpy(&v, p, sizeof(v));
	return v;
}
static inline u64 ld_le64(const void *p)
{
	u64 v;
	__builtin_memcpy(&v, p, sizeof(v));
	return v;
}
static inline void st_le16(void *p, u16 v)
{
	__builtin_memcpy(p, &v, sizeof(v));
}
static inline void st_le32(void *p, u32 v)
{
	__builtin_memcpy(p, &v, sizeof(v));
}
static inline void st_le64(void *p, u64 v)
{
	__builtin_memcpy(p, &v, sizeof(v));
}
