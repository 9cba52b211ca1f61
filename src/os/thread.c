/* SPDX-License-Identifier: Apache-2.0 */
#include "os/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

int os_thread_start(pthread_t *out_thread, const char *name,
		    void *(*fn)(void *opaque), void *opaque, struct err *err)
{
	char short_name[16];
	sigset_t all, old;
	pthread_t thread;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&thread, NULL, fn, opaque);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc)
		return err_sys(err, -rc, "start thread '%s'", name);
	snprintf(short_name, sizeof(short_name), "%s", name);
	pthread_setname_np(thread, short_name);
	*out_thread = thread;
	return 0;
}
