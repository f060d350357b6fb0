/*
 * What commands ask about logins: codes of second factors, and sources that failed too often. For
 * struct control_host; arg is the broker.
 */
#ifndef BROKER_HOST_LOGIN_H
#define BROKER_HOST_LOGIN_H

#include <stdint.h>

#include "control/control.h"

int host_check_code(void *arg, const char *user, const char *code);
void host_sources(void *arg, control_source_fn fn, void *fn_arg);
int host_source_unblock(void *arg, const char *address, uint32_t *count);

#endif
