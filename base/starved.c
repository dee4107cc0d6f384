#include "base/starved.h"

#include "base/num.h"

#include <stdlib.h>

/* Of a text of many empty objects jansson makes some ninety times its bytes. */
#define ASIDE_PER_BYTE 128
#define ASIDE_LEAST    ((int64_t)64 << 10)
#define ASIDE_MOST     ((int64_t)64 << 20)

static _Thread_local bool noted;
static _Thread_local void *aside;

static void give_back(void)
{
    free(aside);
    aside = NULL;
}

void *starved_malloc(size_t size)
{
    void *data = malloc(size);
    if (data != NULL) return data;
    noted = true;
    if (aside == NULL) return NULL;
    give_back();
    return malloc(size);
}

bool starved_begin(int64_t text_bytes)
{
    give_back();
    aside = malloc((size_t)min_i64(ASIDE_LEAST + text_bytes * ASIDE_PER_BYTE, ASIDE_MOST));
    noted = aside == NULL;
    return !noted;
}

bool starved_end(void)
{
    give_back();
    return noted;
}

bool starved(void) { return noted; }
