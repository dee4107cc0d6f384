#include "data/shard_format.h"

const struct shard_column_row shard_columns[COLUMN_COUNT] = {
    [COLUMN_TOKENS] = { "tokens", 4, 65536 },
    [COLUMN_TURN] = { "turn", sizeof(struct shard_turn), 8192 },
    [COLUMN_DIALOGUE] = { "dialogue", sizeof(struct shard_dialogue), 8192 },
    [COLUMN_SOURCE] = { "source_name", SHARD_TEXT_MAX, 1024 },
    [COLUMN_TOPIC] = { "topic_name", SHARD_TEXT_MAX, 1024 },
    [COLUMN_LICENCE] = { "source_licence", SHARD_TEXT_MAX, 1024 },
    [COLUMN_ATTRIBUTION] = { "source_attribution", SHARD_TEXT_MAX, 1024 },
};

#define FIELD(type, field) #field, offsetof(struct type, field)

static hid_t turn_type(void)
{
    const hid_t type = H5Tcreate(H5T_COMPOUND, sizeof(struct shard_turn));
    if (type < 0) return type;
    H5Tinsert(type, FIELD(shard_turn, ctx_off), H5T_STD_I64LE);
    H5Tinsert(type, FIELD(shard_turn, first_off), H5T_STD_I64LE);
    H5Tinsert(type, FIELD(shard_turn, target_off), H5T_STD_I64LE);
    H5Tinsert(type, FIELD(shard_turn, ctx_len), H5T_STD_I32LE);
    H5Tinsert(type, FIELD(shard_turn, first_len), H5T_STD_I32LE);
    H5Tinsert(type, FIELD(shard_turn, target_len), H5T_STD_I32LE);
    H5Tinsert(type, FIELD(shard_turn, role), H5T_STD_U8LE);
    H5Tinsert(type, FIELD(shard_turn, flags), H5T_STD_U8LE);
    return type;
}

static hid_t dialogue_type(void)
{
    const hsize_t hash_bytes[1] = { 8 };
    const hid_t type = H5Tcreate(H5T_COMPOUND, sizeof(struct shard_dialogue));
    const hid_t hash = H5Tarray_create2(H5T_STD_U8LE, 1, hash_bytes);
    if (type >= 0 && hash >= 0) {
        H5Tinsert(type, FIELD(shard_dialogue, turn_off), H5T_STD_I64LE);
        H5Tinsert(type, FIELD(shard_dialogue, turn_count), H5T_STD_I32LE);
        H5Tinsert(type, FIELD(shard_dialogue, source), H5T_STD_U16LE);
        H5Tinsert(type, FIELD(shard_dialogue, topic), H5T_STD_U16LE);
        H5Tinsert(type, FIELD(shard_dialogue, split), H5T_STD_U8LE);
        H5Tinsert(type, FIELD(shard_dialogue, flags), H5T_STD_U8LE);
        H5Tinsert(type, FIELD(shard_dialogue, hash), hash);
    }
    if (hash >= 0) H5Tclose(hash);
    return type;
}

static hid_t text_type(void)
{
    const hid_t type = H5Tcopy(H5T_C_S1);
    if (type < 0) return type;
    H5Tset_size(type, SHARD_TEXT_MAX);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

hid_t shard_column_type(enum shard_column column)
{
    switch (column) {
    case COLUMN_TOKENS:
        return H5Tcopy(H5T_STD_I32LE);
    case COLUMN_TURN:
        return turn_type();
    case COLUMN_DIALOGUE:
        return dialogue_type();
    default:
        return text_type();
    }
}
