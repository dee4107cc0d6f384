#include "data/settings.h"

#include "base/check.h"
#include "data/corpus.h"
#include "data/prepare.h"
#include "data/shard.h"

static const struct cfg_row rows[] = {
    { "data.source", CFG_STRING, "", 0, 0, NULL,
      "files of dialogues (JSON, CSV or text, also packed with gzip or zstd), separated by "
      "commas" },
    { "data.form", CFG_ENUM, "auto", 0, 0, CORPUS_FORM_CHOICES,
      "form of the records; auto looks at the first one" },
    { "data.tokenizer", CFG_STRING, "", 0, 0, NULL, "folder of the model whose tokenizer is used" },
    { "data.dir", CFG_STRING, "", 0, 0, NULL, "directory of the prepared corpus" },
    { "data.replace", CFG_BOOL, "false", 0, 0, NULL, "replace a prepared corpus in data.dir" },
    { "data.client_name", CFG_STRING, "用户", 0, 0, NULL, "what a client's line begins with" },
    { "data.counsellor_name", CFG_STRING, "心理咨询师", 0, 0, NULL,
      "what a counsellor's line begins with" },
    { "data.separator", CFG_STRING, "：", 0, 0, NULL, "between name and text" },
    { "data.rules", CFG_STRING, "", 0, 0, NULL,
      "what cleaning rules do, as rule=action separated by commas: crisis=drop,url=keep; "
      "`soulchat prepare --list-rules` names them" },
    { "data.long_turn", CFG_INT, "2000", 1, 1000000000, NULL,
      "turns beyond that are over-long (characters)" },
    { "data.duplicates", CFG_ENUM, "drop_near", 0, 0, "drop_near|drop_exact|keep",
      "which duplicates go; those that stay share a split" },
    { "data.near_threshold", CFG_FLOAT, "0.8", 0.5, 1, NULL,
      "share of 5-character shingles that near duplicates have in common" },
    { "data.split", CFG_ENUM, "stratified", 0, 0, "stratified|hash",
      "shares of each source and topic, or by each dialogue's own number alone" },
    { "data.openings", CFG_ENUM, "together", 0, 0, "together|apart",
      "whether dialogues that begin with the same 16 characters of the client's, as those made "
      "from one question do, share a split" },
    { "data.split_seed", CFG_INT, "42", 0, 9e15, NULL,
      "with a dialogue's text it decides the dialogue's split" },
    { "data.validation_permyriad", CFG_INT, "100", 0, 10000, NULL,
      "share of dialogues for validation (1/10,000)" },
    { "data.test_permyriad", CFG_INT, "100", 0, 10000, NULL,
      "share of dialogues for testing (1/10,000)" },
    { "data.max_dialogues", CFG_INT, "0", 0, 9e15, NULL,
      "read no more than so many dialogues; 0 = all" },
    { "data.resume", CFG_BOOL, "true", 0, 0, NULL,
      "go on where the same preparation was interrupted" },
    { "data.on_bad_record", CFG_ENUM, "fail", 0, 0, "fail|skip",
      "a record that is not as its form says: stop there, or count it and go on" },
    { "data.licence", CFG_STRING, "", 0, 0, NULL, "licence of the sources, kept in the shards" },
    { "data.attribution", CFG_STRING, "", 0, 0, NULL,
      "whom the sources are from, kept in the shards" },
    { "data.tokens_per_shard", CFG_INT, "16777216", 1, SHARD_TOKENS_MAX, NULL,
      "a new file begins beyond that (tokens)" },
    { "data.zstd_level", CFG_INT, "3", 1, 19, NULL, "compression of the shards" },
    { "data.threads", CFG_INT, "0", 0, PREPARE_THREADS_MAX, NULL,
      "threads that tokenize; 0 = one for each processor; the result is the same" },
};

const struct cfg_table data_settings = { rows, COUNT_OF(rows) };

STATIC_ASSERT(CORPUS_AUTO == 0 && CORPUS_SOULCHAT == 1 && CORPUS_SMILE == 2 &&
                  CORPUS_SHAREGPT == 3 && CORPUS_ALPACA == 4 && CORPUS_OPENAI == 5 &&
                  CORPUS_EMOLLM == 6 && CORPUS_PSYQA == 7 && CORPUS_BIANQUE == 8 &&
                  CORPUS_CPSYCOUN == 9,
              "as in the choices of data.form");
STATIC_ASSERT(DUPLICATES_DROP_NEAR == 0 && DUPLICATES_DROP_EXACT == 1 && DUPLICATES_KEEP == 2,
              "as in the choices of data.duplicates");
STATIC_ASSERT(OPENINGS_TOGETHER == 0 && OPENINGS_APART == 1, "as in the choices of data.openings");
STATIC_ASSERT(SPLIT_STRATIFIED == 0 && SPLIT_HASH == 1, "as in the choices of data.split");
STATIC_ASSERT(CORPUS_FAIL == 0 && CORPUS_SKIP == 1, "as in the choices of data.on_bad_record");
