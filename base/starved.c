#include "base/starved.h"

#include <stdlib.h>

static _Thread_local bool noted;

void *starved_malloc(size_t size)
{
    void *data = malloc(size);
    if (data == NULL) noted = true;
    return data;
}

void starved_reset(void) { noted = false; }

bool starved(void) { return noted; }
