#include "data/settings.h"

#include "base/check.h"
#include "data/corpus.h"
#include "data/prepare.h"
#include "data/shard.h"

static const struct cfg_row rows[] = {
    { "data.source", CFG_STRING, "", 0, 0, NULL,
      "files of dialogues, separated by commas: JSON, CSV or text, also packed with gzip or "
      "zstd" },
    { "data.form", CFG_ENUM, "auto", 0, 0, CORPUS_FORM_CHOICES,
      "form of the records; auto tells it from the first one" },
    { "data.tokenizer", CFG_STRING, "", 0, 0, NULL,
      "folder of the model whose tokenizer is used (path)" },
    { "data.dir", CFG_STRING, "", 0, 0, NULL, "folder of the prepared corpus (path)" },
    { "data.replace", CFG_BOOL, "false", 0, 0, NULL,
      "prepare may replace a prepared corpus in data.dir" },
    { "data.client_name", CFG_STRING, "用户", 0, 0, NULL,
      "what begins a client's line in the prompt" },
    { "data.counsellor_name", CFG_STRING, "心理咨询师", 0, 0, NULL,
      "what begins a counsellor's line in the prompt" },
    { "data.separator", CFG_STRING, "：", 0, 0, NULL, "what stands between a name and its text" },
    { "data.rules", CFG_STRING, "", 0, 0, NULL,
      "changes to the cleaning rules, as rule=action separated by commas: crisis=drop,url=keep; "
      "`soulchat prepare --list-rules` lists them" },
    { "data.long_turn", CFG_INT, "2000", 1, 1000000000, NULL,
      "a turn is over-long beyond this (characters)" },
    { "data.duplicates", CFG_ENUM, "drop_near", 0, 0, "drop_near|drop_exact|keep",
      "which duplicates are dropped; those that stay share a split" },
    { "data.near_threshold", CFG_FLOAT, "0.8", 0.5, 1, NULL,
      "share of 5-character shingles that makes two dialogues near duplicates" },
    { "data.split", CFG_ENUM, "stratified", 0, 0, "stratified|hash",
      "stratified = each source and topic has its share of every split; hash = each dialogue's "
      "text decides alone" },
    { "data.openings", CFG_ENUM, "together", 0, 0, "together|apart",
      "whether dialogues whose first client turn begins with the same 16 characters, as those made "
      "from one question do, share a split" },
    { "data.split_seed", CFG_INT, "42", 0, 9e15, NULL,
      "with a dialogue's text, decides its split" },
    { "data.validation_permyriad", CFG_INT, "100", 0, 10000, NULL,
      "share of dialogues for validation (1/10,000)" },
    { "data.test_permyriad", CFG_INT, "100", 0, 10000, NULL,
      "share of dialogues for testing (1/10,000)" },
    { "data.max_dialogues", CFG_INT, "0", 0, 9e15, NULL,
      "read at most this many dialogues; 0 = all (count)" },
    { "data.resume", CFG_BOOL, "true", 0, 0, NULL,
      "continue where the same preparation was interrupted" },
    { "data.on_bad_record", CFG_ENUM, "fail", 0, 0, "fail|skip",
      "what to do with a record that does not have its form: fail, or count it and skip it" },
    { "data.licence", CFG_STRING, "", 0, 0, NULL, "licence of the sources, stored in the shards" },
    { "data.attribution", CFG_STRING, "", 0, 0, NULL,
      "whom to credit for the sources, stored in the shards" },
    { "data.tokens_per_shard", CFG_INT, "16777216", 1, SHARD_TOKENS_MAX, NULL,
      "beyond this, a new shard begins (tokens)" },
    { "data.zstd_level", CFG_INT, "3", 1, 19, NULL, "compression level of the shards" },
    { "data.threads", CFG_INT, "0", 0, PREPARE_THREADS_MAX, NULL,
      "threads that clean and tokenize, with the same result; 0 = one per processor (threads)" },
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
