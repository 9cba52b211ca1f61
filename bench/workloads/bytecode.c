/* SPDX-License-Identifier: Apache-2.0 */
/* bytecode: a stack machine's loop with a switch, running a program that
 * searches the longest Collatz chain. */
#include "work.h"

enum op { PUSH, LOAD, STORE, ADD, MUL, SHR, AND, LT, JZ, JMP, HALT };

static u64 run(const int *code, u64 *var)
{
	u64 stack[32], *sp = stack, executed = 0;

	for (const int *pc = code;; executed++) {
		switch ((enum op) * pc++) {
		case PUSH:
			*sp++ = *pc++;
			break;
		case LOAD:
			*sp++ = var[*pc++];
			break;
		case STORE:
			var[*pc++] = *--sp;
			break;
		case ADD:
			sp--;
			sp[-1] += sp[0];
			break;
		case MUL:
			sp--;
			sp[-1] *= sp[0];
			break;
		case SHR:
			sp--;
			sp[-1] >>= sp[0];
			break;
		case AND:
			sp--;
			sp[-1] &= sp[0];
			break;
		case LT:
			sp--;
			sp[-1] = sp[-1] < sp[0];
			break;
		case JZ:
			pc = *--sp ? pc + 1 : code + *pc;
			break;
		case JMP:
			pc = code + *pc;
			break;
		case HALT:
			return executed;
		}
	}
}

/* Variables: 0 start, 1 n, 2 steps, 3 best, 4 best start. */
/* clang-format off */
static const int program[] = {
	/*  0 */ LOAD, 0, PUSH, 200000, LT, JZ, 66,
	/*  7 */ LOAD, 0, STORE, 1, PUSH, 0, STORE, 2,
	/* 15 */ PUSH, 1, LOAD, 1, LT, JZ, 46,
	/* 22 */ LOAD, 2, PUSH, 1, ADD, STORE, 2,
	/* 29 */ LOAD, 1, PUSH, 1, AND, JZ, 67,
	/* 36 */ LOAD, 1, PUSH, 3, MUL, PUSH, 1, ADD, JMP, 72,
	/* 46 */ LOAD, 3, LOAD, 2, LT, JZ, 61,
	/* 53 */ LOAD, 2, STORE, 3, LOAD, 0, STORE, 4,
	/* 61 */ JMP, 76, HALT, HALT, HALT,
	/* 66 */ HALT,
	/* 67 */ LOAD, 1, PUSH, 1, SHR,
	/* 72 */ STORE, 1, JMP, 15,
	/* 76 */ LOAD, 0, PUSH, 1, ADD, STORE, 0, JMP, 0,
};
/* clang-format on */

int main(void)
{
	u64 var[8] = {1}, sum;

	sum = run(program, var);
	sum = work_mix(sum, var[3]);
	return work_end("bytecode", work_mix(sum, var[4]));
}
