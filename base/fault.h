/*
 * fault.h - make the n-th fallible step fail, on purpose. Every write, sync, rename and large
 * allocation passes a fault point; in builds without SOULCHAT_FAULTS it compiles to ERR_OK.
 * Tests arm it (fault_arm), people set SOULCHAT_FAULT=site:n, which main hands to fault_init.
 *
 *     for (int n = 1;; n++) {
 *         fault_arm("file.", n);
 *         rc = file_replace(path, "new", 3);
 *         fault_arm("", 0);
 *         if (rc == ERR_OK) break;              // n is past the last step
 *         ... whatever is promised after a failure holds ...
 *     }
 *
 * A point may also be where the process dies, or is stopped: SOULCHAT_FAULT=comm.end:7:kill, or
 * :stop. Then moments count, too: places where there is nothing to fail, such as the phases of a
 * step.
 *
 * The plan is one per process (it is process state, see base/err.h): arm it in one thread while
 * no other passes fault points; passing them is safe from any thread.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Arm from SOULCHAT_FAULT ("ckpt.write:3", "save:1:kill"); NULL does nothing. ERR_USAGE when it
 * does not read so, with n >= 1; ERR_UNSUPPORTED in builds without fault points. */
MUST_USE err_t fault_init(const char *spec);

#ifdef SOULCHAT_FAULTS
#define FAULT_SITE_MAX 64 /* bytes with the NUL */

/* Fail the n-th point from now whose site begins with `site` ("" = any); n = 0 disarms. */
void fault_arm(const char *site, int n);
/* There the process gets this signal instead; 0: as fault_arm. */
void fault_arm_signal(const char *site, int n, int signal_number);
/* Matching points passed since arming. */
int fault_hits(void);
/* ERR_OK, or ERR_IO "injected fault at <site>". `site` reads module.step: "ckpt.write". */
MUST_USE err_t fault_point(const char *site);
/* A place that cannot fail: for signals alone. */
void fault_moment(const char *site);
#else
static inline void fault_arm(const char *site, int n) { (void)site; (void)n; }
static inline void fault_arm_signal(const char *site, int n, int signal_number)
{
    (void)site;
    (void)n;
    (void)signal_number;
}
static inline int fault_hits(void) { return 0; }
static inline MUST_USE err_t fault_point(const char *site) { (void)site; return ERR_OK; }
static inline void fault_moment(const char *site) { (void)site; }
#endif

#ifdef __cplusplus
}
#endif
#endif
