/*
 * fault.h - make the n-th fallible step fail, on purpose. Every write, sync, rename and large
 * allocation passes a fault point; in builds without SOULCHAT_FAULTS it compiles to ERR_OK.
 * Tests arm it (fault_arm), people set SOULCHAT_FAULT=site:n. Counters are per process and
 * meant for the thread that armed them.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef SOULCHAT_FAULTS
/* Fail the n-th point from now whose site begins with `site` ("" = any); n = 0 disarms. */
void fault_arm(const char *site, int n);
/* Matching points passed since arming. */
int fault_hits(void);
/* ERR_OK, or ERR_IO "injected fault at <site>". `site` reads module.step: "ckpt.write". */
MUST_USE err_t fault_point(const char *site);
#else
static inline void fault_arm(const char *site, int n) { (void)site; (void)n; }
static inline int fault_hits(void) { return 0; }
static inline MUST_USE err_t fault_point(const char *site) { (void)site; return ERR_OK; }
#endif

#ifdef __cplusplus
}
#endif
#endif
