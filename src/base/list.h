/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive doubly-linked list. A struct list is both head and link; an
 * initialised head points at itself. */
#pragma once

#include "base/types.h"

struct list {
	struct list *next;
	struct list *prev;
};

#define LIST_INIT(name)                                                        \
	{                                                                      \
		&(name), &(name)                                               \
	}

static inline void list_init(struct list *head)
{
	head->next = head;
	head->prev = head;
}
static inline bool list_is_empty(const struct list *head)
{
	return head->next == head;
}
static inline void list_add_tail(struct list *head, struct list *link)
{
	link->prev = head->prev;
	link->next = head;
	head->prev->next = link;
	head->prev = link;
}
/* Unlinks; the link becomes an empty list, so a second call is harmless. */
static inline void list_del(struct list *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}

#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_for_each(it, head)                                                \
	for (struct list *it = (head)->next; it != (head); it = it->next)
/* The current element may be removed. */
#define list_for_each_safe(it, head)                                           \
	for (struct list *it = (head)->next, *it##_next = it->next;            \
	     it != (head); it = it##_next, it##_next = it->next)
