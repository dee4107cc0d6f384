#include "base/fault.h"

#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPECTED "expected site:n, as in file.write:3, or site:n:kill or site:n:stop"

struct spec {
    size_t site_size;
    int n, signal_number;
};

/* The site may itself hold no colon. */
static bool parse(struct spec *out, const char *text)
{
    const char *colon = strchr(text, ':');
    if (colon == NULL || colon[1] < '1' || colon[1] > '9') return false;
    char *end;
    const long value = strtol(colon + 1, &end, 10);
    const bool kills = strcmp(end, ":kill") == 0, stops = strcmp(end, ":stop") == 0;
    if ((*end != '\0' && !kills && !stops) || value > INT_MAX) return false;
    *out = (struct spec){ .site_size = (size_t)(colon - text),
                          .n = (int)value,
                          .signal_number = kills ? SIGKILL : stops ? SIGSTOP : 0 };
    return true;
}

#ifdef SOULCHAT_FAULTS

#include "base/check.h"

static struct {
    char site[FAULT_SITE_MAX];
    int n;             /* which point it is; 0 = none */
    int signal_number; /* 0: it fails */
    int hits;          /* updated atomically */
} plan;

void fault_arm_signal(const char *site, int n, int signal_number)
{
    ASSERT(n >= 0);
    ASSERT(strlen(site) < sizeof plan.site);
    memcpy(plan.site, site, strlen(site) + 1);
    plan.n = n;
    plan.signal_number = signal_number;
    plan.hits = 0;
}

void fault_arm(const char *site, int n) { fault_arm_signal(site, n, 0); }

int fault_hits(void) { return __atomic_load_n(&plan.hits, __ATOMIC_RELAXED); }

/* Counts; whether it is the one. */
static bool is_due(const char *site)
{
    if (plan.n == 0 || strncmp(site, plan.site, strlen(plan.site)) != 0) return false;
    return __atomic_add_fetch(&plan.hits, 1, __ATOMIC_RELAXED) == plan.n;
}

err_t fault_point(const char *site)
{
    if (!is_due(site)) return ERR_OK;
    if (plan.signal_number == 0) RAISE(IO, "injected fault at %s", site);
    kill(getpid(), plan.signal_number);
    return ERR_OK;
}

void fault_moment(const char *site)
{
    if (plan.signal_number != 0 && is_due(site)) kill(getpid(), plan.signal_number);
}

err_t fault_init(const char *text)
{
    if (text == NULL) return ERR_OK;
    char site[FAULT_SITE_MAX] = "";
    struct spec spec;
    if (!parse(&spec, text) || spec.site_size >= sizeof site)
        RAISE(USAGE, "SOULCHAT_FAULT=%s; " EXPECTED, text);
    memcpy(site, text, spec.site_size);
    fault_arm_signal(site, spec.n, spec.signal_number);
    return ERR_OK;
}

#else

err_t fault_init(const char *text)
{
    struct spec spec;
    if (text == NULL) return ERR_OK;
    if (!parse(&spec, text)) RAISE(USAGE, "SOULCHAT_FAULT=%s; " EXPECTED, text);
    RAISE(UNSUPPORTED, "SOULCHAT_FAULT=%s: this build has no fault points; configure with "
          "-DBUILD_TESTING=ON", text);
}

#endif
