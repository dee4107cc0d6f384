/* Token shards of a build without HDF5: every way in says so. Nothing can be opened, so nothing
 * that takes an opened corpus is ever reached. */
#include "data/shard.h"

#include "base/check.h"

#define WITHOUT "this build has no HDF5: configure with -DSOULCHAT_WITH_HDF5=ON"

err_t shard_writer_open(struct shard_writer **out, const char *dir, const struct shard_info *info,
                        const struct shard_writer_spec *spec)
{
    (void)info;
    (void)spec;
    *out = NULL;
    RAISE(UNSUPPORTED, "%s: token shards cannot be written; " WITHOUT, dir);
}

err_t shards_open(struct shards **out, const char *dir, bool verify)
{
    (void)verify;
    *out = NULL;
    RAISE(UNSUPPORTED, "%s: token shards cannot be read; " WITHOUT, dir);
}

void shard_writer_close(struct shard_writer *w) { ASSERT(w == NULL); }
void shards_close(struct shards *s) { ASSERT(s == NULL); }

err_t shard_writer_source(struct shard_writer *w, const char *source, const char *licence,
                          const char *attribution)
{
    (void)w;
    (void)source;
    (void)licence;
    (void)attribution;
    RAISE(UNSUPPORTED, WITHOUT);
}

err_t shard_writer_add(struct shard_writer *w, const struct turn_runs *turns, int64_t turn_count,
                       enum split split, const char *source, const char *topic,
                       const uint8_t hash[8])
{
    (void)w;
    (void)turns;
    (void)turn_count;
    (void)split;
    (void)source;
    (void)topic;
    (void)hash;
    RAISE(UNSUPPORTED, WITHOUT);
}

const struct shard_done *shard_writer_done(const struct shard_writer *w, int64_t *count)
{
    (void)w;
    *count = 0;
    return NULL;
}

err_t shard_writer_commit(struct shard_writer *w, const char *report_json)
{
    (void)w;
    (void)report_json;
    RAISE(UNSUPPORTED, WITHOUT);
}

const struct shard_info *shards_info(const struct shards *s)
{
    (void)s;
    return NULL;
}

int64_t shards_dialogue_count(const struct shards *s)
{
    (void)s;
    return 0;
}

const struct shard_dialogue *shards_dialogue(const struct shards *s, int64_t dialogue)
{
    (void)s;
    (void)dialogue;
    return NULL;
}

const struct shard_turn *shards_turn(const struct shards *s, int64_t dialogue, int64_t turn)
{
    (void)s;
    (void)dialogue;
    (void)turn;
    return NULL;
}

const char *shards_source(const struct shards *s, int64_t dialogue)
{
    (void)s;
    (void)dialogue;
    return "";
}

const char *shards_topic(const struct shards *s, int64_t dialogue)
{
    (void)s;
    (void)dialogue;
    return "";
}

const char *shards_sha256(const struct shards *s)
{
    (void)s;
    return "";
}

err_t shards_tokens(struct shards *s, int32_t *out, int64_t dialogue, int64_t offset, int64_t count)
{
    (void)s;
    (void)out;
    (void)dialogue;
    (void)offset;
    (void)count;
    RAISE(UNSUPPORTED, WITHOUT);
}
