#include "base/nearest.h"

#include <string.h>

static int min3(int a, int b, int c)
{
    const int ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* One row of the dynamic programme at a time: row[j] = edits from the first i letters of a to the
 * first j of b. */
static int edit_distance(const char *a, const char *b)
{
    int row[NEAREST_WORD_MAX + 1];
    const int a_size = (int)strnlen(a, NEAREST_WORD_MAX);
    const int b_size = (int)strnlen(b, NEAREST_WORD_MAX);
    for (int j = 0; j <= b_size; j++) row[j] = j;
    for (int i = 1; i <= a_size; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= b_size; j++) {
            const int above = row[j];
            row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[b_size];
}

void nearest_offer(struct nearest *n, const char *candidate)
{
    const int distance = edit_distance(n->word, candidate);
    if (n->best != NULL && distance >= n->distance) return;
    n->best = candidate;
    n->distance = distance;
}
