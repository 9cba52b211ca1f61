/* SPDX-License-Identifier: Apache-2.0 */
/* Private to src/kvm: the vCPU's part of struct engine_ops (cpu/engine.h). */
#pragma once

#include "kvm/kvm_int.h"

/* The kick signal's handler, for the whole process. Idempotent. */
int kvm_kick_init(struct err *err);

int kvm_vcpu_create(struct engine_vm *vm, u32 id, struct vcpu **out_vcpu,
		    struct err *err);
void kvm_vcpu_destroy(struct vcpu *v);
void kvm_vcpu_reset(struct vcpu *v);
void kvm_vcpu_attach(struct vcpu *v);
enum vcpu_exit kvm_vcpu_run(struct vcpu *v, struct err *err);
void kvm_vcpu_kick(struct vcpu *v);
