#include "data/sample_mix.h"

#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t find_source(const struct sample_mix *mix, const char *name)
{
    for (int64_t i = 0; i < mix->source_count; i++)
        if (strcmp(mix->source[i].name, name) == 0) return i;
    return -1;
}

/* One "name=weight" of `size` bytes; names may contain '='. */
static err_t parse_source(struct sample_mix *mix, const char *text, int64_t size)
{
    char item[SHARD_TEXT_MAX + 32], *end;
    if (size >= (int64_t)sizeof item || mix->source_count == SAMPLE_MIX_SOURCES_MAX)
        RAISE(USAGE, "batch.source_weights: too long at %.60s", text);
    memcpy(item, text, (size_t)size);
    item[size] = '\0';
    char *equals = strrchr(item, '=');
    if (equals == NULL || equals == item || equals - item >= SHARD_TEXT_MAX)
        RAISE(USAGE, "batch.source_weights: %s; expected name=weight", item);
    *equals = '\0';
    const double weight = strtod(equals + 1, &end);
    if (end == equals + 1 || *end != '\0' || !(weight >= 0 && weight <= SAMPLE_MIX_WEIGHT_MAX))
        RAISE(USAGE, "batch.source_weights: %s has weight %s; expected 0 to %g", item, equals + 1,
              SAMPLE_MIX_WEIGHT_MAX);
    if (find_source(mix, item) >= 0) RAISE(USAGE, "batch.source_weights names %s twice", item);
    memcpy(mix->source[mix->source_count].name, item, (size_t)(equals - item) + 1);
    mix->source[mix->source_count++].weight = weight;
    return ERR_OK;
}

static err_t check_names(const struct sample_mix *mix, const struct shards *shards)
{
    for (int64_t i = 0; i < mix->source_count; i++) {
        bool found = false;
        for (int64_t d = 0; !found && d < shards_dialogue_count(shards); d++)
            found = strcmp(shards_source(shards, d), mix->source[i].name) == 0;
        if (!found)
            RAISE(USAGE, "batch.source_weights: no dialogue is from %s; the first is from %s",
                  mix->source[i].name, shards_source(shards, 0));
    }
    return ERR_OK;
}

/* Weights that leave nothing are a slip of the pen, and not a matter of limits. */
static err_t check_some_left(const struct sample_mix *mix, const struct shards *shards)
{
    if (mix->source_count == 0) return ERR_OK;
    for (int64_t d = 0; d < shards_dialogue_count(shards); d++) {
        const int64_t source = find_source(mix, shards_source(shards, d));
        if (source < 0 || mix->source[source].weight > 0) return ERR_OK;
    }
    RAISE(USAGE, "batch.source_weights: every source has weight 0");
}

err_t sample_mix_parse(struct sample_mix *out, const char *text, const struct shards *shards)
{
    out->source_count = 0;
    while (*text != '\0') {
        text += strspn(text, ", ");
        int64_t size = (int64_t)strcspn(text, ",");
        const int64_t whole = size;
        while (size > 0 && text[size - 1] == ' ') size--;
        if (size > 0) TRY(parse_source(out, text, size));
        text += whole;
    }
    TRY(check_names(out, shards));
    return check_some_left(out, shards);
}

int64_t sample_mix_times(const struct sample_mix *mix, const struct shards *shards,
                         int64_t dialogue, int64_t turn)
{
    const int64_t source =
        mix->source_count > 0 ? find_source(mix, shards_source(shards, dialogue)) : -1;
    if (source < 0) return 1;
    const double weight = mix->source[source].weight;
    const int64_t whole = (int64_t)weight;
    uint64_t hash;
    memcpy(&hash, shards_dialogue(shards, dialogue)->hash, sizeof hash);
    return whole + (rng_uniform(hash, RNG_SHUFFLE, (uint64_t)turn) < weight - (double)whole);
}
