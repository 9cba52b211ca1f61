/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests against the host CPU share: the guest that runs a case, the
 * generator of random instructions and states, and the comparison.
 */
#pragma once

#include "soft/oracle.h"
#include "soft/xlat_int.h"

/* The generator's state; seed it with anything but 0. */
extern u64 oracle_rng;
u64 oracle_rnd(void);
bool oracle_one_in(unsigned n);

struct oracle_guest {
	struct engine_vm *vm;
	struct vcpu *v;
	u8 *ram;
};

/* With the translator, if asked for. */
void oracle_guest_init(struct oracle_guest *g, bool is_translated);
void oracle_guest_map_read_only(struct oracle_guest *g);
void oracle_guest_fini(struct oracle_guest *g);
/* Loads the case; `run` executes it and may raise. */
void oracle_guest_run(struct oracle_guest *g, const struct oracle_case *c,
		      struct oracle_state *out, void (*run)(struct vcpu *v));
void oracle_guest_set_mode(struct oracle_guest *g, u8 mode);

void oracle_random_state(struct oracle_state *s);
/* The two halves of that: all but the data, and integers, floats and doubles
 * in memory. */
void oracle_random_registers(struct oracle_state *s);
void oracle_random_bytes(u8 *to, size_t bytes);
/* Prefixes, opcode, ModRM and random bytes behind it into c->code. */
void oracle_random_code(struct oracle_case *c, const struct isa_row *row);
/* A whole case of one instruction; false: try again. */
bool oracle_generate(struct oracle_case *c, const struct isa_row *row,
		     const struct isa_features *features, u8 mode);
/* Rows that the engine executes itself and that are repeatable. */
bool oracle_is_tested(const struct isa_row *row,
		      const struct isa_features *features, u8 mode);
bool oracle_has_vsib(const struct isa_row *row);

u16 oracle_undefined_flags(u16 op);
/* What differs, or NULL. */
const char *oracle_difference(const struct oracle_state *a,
			      const struct oracle_state *b, u16 op, u8 mode);
/* Prints a difference between c->out and what was got. */
void oracle_report(const char *name, const struct oracle_case *c,
		   const struct oracle_state *got, const char *what);
