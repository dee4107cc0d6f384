#include "base/fault.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* "site:n"; the site may itself hold no colon. */
static bool parse_spec(size_t *site_size, int *n, const char *spec)
{
    const char *colon = strchr(spec, ':');
    if (colon == NULL || colon[1] < '1' || colon[1] > '9') return false;
    char *end;
    const long value = strtol(colon + 1, &end, 10);
    if (*end != '\0' || value > INT_MAX) return false;
    *site_size = (size_t)(colon - spec);
    *n = (int)value;
    return true;
}

#ifdef SOULCHAT_FAULTS

#include "base/check.h"

static struct {
    char site[FAULT_SITE_MAX];
    int n;    /* which point fails; 0 = none */
    int hits; /* updated atomically */
} plan;

void fault_arm(const char *site, int n)
{
    ASSERT(n >= 0);
    ASSERT(strlen(site) < sizeof plan.site);
    memcpy(plan.site, site, strlen(site) + 1);
    plan.n = n;
    plan.hits = 0;
}

int fault_hits(void) { return __atomic_load_n(&plan.hits, __ATOMIC_RELAXED); }

err_t fault_point(const char *site)
{
    if (plan.n == 0 || strncmp(site, plan.site, strlen(plan.site)) != 0) return ERR_OK;
    if (__atomic_add_fetch(&plan.hits, 1, __ATOMIC_RELAXED) != plan.n) return ERR_OK;
    RAISE(IO, "injected fault at %s", site);
}

err_t fault_init(const char *spec)
{
    if (spec == NULL) return ERR_OK;
    char site[FAULT_SITE_MAX] = "";
    size_t site_size;
    int n;
    if (!parse_spec(&site_size, &n, spec) || site_size >= sizeof site)
        RAISE(USAGE, "SOULCHAT_FAULT=%s; expected site:n, as in file.write:3", spec);
    memcpy(site, spec, site_size);
    fault_arm(site, n);
    return ERR_OK;
}

#else

err_t fault_init(const char *spec)
{
    size_t site_size;
    int n;
    if (spec == NULL) return ERR_OK;
    if (!parse_spec(&site_size, &n, spec))
        RAISE(USAGE, "SOULCHAT_FAULT=%s; expected site:n, as in file.write:3", spec);
    RAISE(UNSUPPORTED, "SOULCHAT_FAULT=%s: this build has no fault points; configure with "
          "-DBUILD_TESTING=ON", spec);
}

#endif
