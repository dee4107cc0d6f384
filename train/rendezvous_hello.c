/* What a rank says of itself, and whether two ranks of one job fit together. */
#include "train/rendezvous_impl.h"

#include "base/check.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROTOCOL  2
#define NAMED_MAX 3 /* things that differ, by name; of the others their number */

STATIC_ASSERT(sizeof(struct hello) == 144 + 160 * 72, "the hello as rendezvous.h draws it");

void hello_fill(struct hello *h, const struct rendezvous_args *args)
{
    memset(h, 0, sizeof *h);
    h->protocol = PROTOCOL;
    h->rank = (uint32_t)args->rank;
    h->size = (uint32_t)args->size;
    h->part_count = (uint32_t)args->part_count;
    h->local_rank = (uint32_t)args->local_rank;
    sha256_of(h->job, args->job, strlen(args->job));
    snprintf(h->version, sizeof h->version, "%s", args->version);
    if (gethostname(h->host, sizeof h->host - 1) != 0) snprintf(h->host, sizeof h->host, "?");
    for (int64_t i = 0; i < args->part_count; i++) h->parts[i] = args->parts[i];
}

void hello_clean_text(char *text, int64_t size)
{
    text[size - 1] = '\0';
    for (char *c = text; *c != '\0'; c++)
        if (*c < ' ' || *c > '~') *c = '?';
}

void hello_clean(struct hello *its)
{
    hello_clean_text(its->version, sizeof its->version);
    hello_clean_text(its->host, sizeof its->host);
    for (int64_t i = 0; i < RENDEZVOUS_PARTS_MAX; i++)
        hello_clean_text(its->parts[i].name, sizeof its->parts[i].name);
}

static err_t compare_parts(const struct hello *mine, const struct hello *its)
{
    char names[NAMED_MAX * (RENDEZVOUS_NAME_MAX + 2) + 32] = "";
    int64_t count = 0;
    if (its->part_count != mine->part_count)
        RAISE(COMM, "rank %u on %s compares %u things, rank 0 on %s %u", its->rank, its->host,
              its->part_count, mine->host, mine->part_count);
    for (uint32_t i = 0; i < mine->part_count; i++) {
        const struct rendezvous_part *a = &mine->parts[i], *b = &its->parts[i];
        const size_t length = strlen(names);
        if (memcmp(a, b, sizeof *a) == 0 || count++ >= NAMED_MAX) continue;
        snprintf(names + length, sizeof names - length, "%s%s", length > 0 ? ", " : "", a->name);
    }
    if (count > NAMED_MAX)
        snprintf(names + strlen(names), 32, " and %lld more", (long long)(count - NAMED_MAX));
    if (count > 0)
        RAISE(COMM, "rank %u on %s differs from rank 0 on %s in: %s", its->rank, its->host,
              mine->host, names);
    return ERR_OK;
}

err_t hello_compare(const struct hello *mine, const struct hello *its)
{
    if (its->protocol != mine->protocol || strcmp(its->version, mine->version) != 0)
        RAISE(COMM, "rank %u on %s runs version %s (protocol %u), rank 0 on %s runs %s (%u)",
              its->rank, its->host, its->version, its->protocol, mine->host, mine->version,
              mine->protocol);
    if (its->size != mine->size)
        RAISE(COMM, "rank %u on %s expects %u ranks, rank 0 on %s expects %u", its->rank, its->host,
              its->size, mine->host, mine->size);
    return compare_parts(mine, its);
}
