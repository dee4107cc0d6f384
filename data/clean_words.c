#include "data/clean_words.h"

#include "base/check.h"
#include "base/num.h"
#include "data/clean_text.h"

#include <string.h>

/*
 * The words, and what must not follow for a hit. Precision first: each was read in some thirty
 * places of real dialogues; words that people use of other things (吊, 了结, 解脱) are not here.
 */
static const struct {
    const char *text;
    enum word_kind kind;
    const char *unless; /* what follows where it means something else; NULL = nothing does */
    const char *after;  /* what stands before where it is no word at all; NULL = nothing does */
} words[] = {
    { "自杀", WORD_CRISIS, "式", NULL },
    { "自尽", WORD_CRISIS, NULL, NULL },
    { "自残", WORD_CRISIS, NULL, NULL },
    { "自伤", WORD_CRISIS, NULL, NULL },
    { "割腕", WORD_CRISIS, NULL, NULL },
    { "割脉", WORD_CRISIS, NULL, NULL },
    { "跳楼", WORD_CRISIS, "价", NULL },
    { "跳河", WORD_CRISIS, NULL, NULL },
    { "上吊", WORD_CRISIS, NULL, NULL },
    { "轻生", WORD_CRISIS, "活", "减" }, /* 减轻生活压力 */
    { "寻死", WORD_CRISIS, NULL, NULL },
    { "寻短见", WORD_CRISIS, NULL, NULL },
    { "想死", WORD_CRISIS, "你", NULL }, /* 想死你了: how much somebody is missed */
    { "想去死", WORD_CRISIS, NULL, NULL },
    { "一死了之", WORD_CRISIS, NULL, NULL },
    { "一了百了", WORD_CRISIS, NULL, NULL },
    { "死了算了", WORD_CRISIS, NULL, NULL },
    { "不想活", WORD_CRISIS, "成", NULL }, /* 不想活成那样: how somebody wants to live */
    { "不想再活", WORD_CRISIS, NULL, NULL },
    { "活不下去", WORD_CRISIS, NULL, NULL },
    { "活着没意思", WORD_CRISIS, NULL, NULL },
    { "结束生命", WORD_CRISIS, NULL, NULL },
    { "结束自己的生命", WORD_CRISIS, NULL, NULL },
    { "结束我的生命", WORD_CRISIS, NULL, NULL },
    { "了结自己", WORD_CRISIS, NULL, NULL },
    { "了断生命", WORD_CRISIS, NULL, NULL },
    { "伤害自己的身体", WORD_CRISIS, NULL, NULL },
    /* Only looked at in a counsellor's turn. */
    { "作为AI", WORD_AI, NULL, NULL },
    { "作为一个AI", WORD_AI, NULL, NULL },
    { "作为一名AI", WORD_AI, NULL, NULL },
    { "作为人工智能", WORD_AI, NULL, NULL },
    { "作为一个人工智能", WORD_AI, NULL, NULL },
    { "作为一名人工智能", WORD_AI, NULL, NULL },
    { "作为机器人", WORD_AI, NULL, NULL },
    { "作为一个机器人", WORD_AI, NULL, NULL },
    { "我是AI", WORD_AI, NULL, NULL },
    { "我是一个AI", WORD_AI, NULL, NULL },
    { "我是一名AI", WORD_AI, NULL, NULL },
    { "我是人工智能", WORD_AI, NULL, NULL },
    { "我是一个人工智能", WORD_AI, NULL, NULL },
    { "我是一名人工智能", WORD_AI, NULL, NULL },
    { "我只是AI", WORD_AI, NULL, NULL },
    { "我只是一个AI", WORD_AI, NULL, NULL },
    { "我只是人工智能", WORD_AI, NULL, NULL },
    { "我只是一个人工智能", WORD_AI, NULL, NULL },
    { "我只是一个机器人", WORD_AI, NULL, NULL },
    { "我只是一个程序", WORD_AI, NULL, NULL },
    { "我是一个机器人", WORD_AI, NULL, NULL },
    { "大语言模型", WORD_AI, NULL, NULL },
    { "AI语言模型", WORD_AI, NULL, NULL },
    { "ChatGPT", WORD_AI, NULL, NULL },
    { "OpenAI", WORD_AI, NULL, NULL },
    { "我是", WORD_I_AM, NULL, NULL },
};
STATIC_ASSERT(COUNT_OF(words) <= 127, "indices + 1 are bytes, and fit word_set.next");

static unsigned head_of(const char *text)
{
    const uint8_t *b = (const uint8_t *)text;
    return ((unsigned)b[0] << 16 | (unsigned)b[1] << 8 | b[2]) * 2654435761u >> 20;
}

void word_set_init(struct word_set *set)
{
    memset(set, 0, sizeof *set);
    for (int64_t i = COUNT_OF(words) - 1; i >= 0; i--) {
        uint8_t *head = &set->head[head_of(words[i].text)];
        set->next[i] = *head;
        set->size[i] = (uint8_t)strlen(words[i].text);
        *head = (uint8_t)(i + 1);
    }
}

static bool begins_with(const char *text, int64_t size, const char *word)
{
    const size_t word_size = strlen(word);
    return size >= (int64_t)word_size && memcmp(text, word, word_size) == 0;
}

static bool ends_with(const char *text, int64_t size, const char *word)
{
    const int64_t word_size = (int64_t)strlen(word);
    return size >= word_size && memcmp(text + size - word_size, word, (size_t)word_size) == 0;
}

bool word_find(struct word_hit *out, const struct word_set *set, const char *text, int64_t size,
               int64_t *at)
{
    int64_t i = *at;
    for (; size - i >= 3; i += text_step((unsigned char)text[i]))
        for (int w = set->head[head_of(text + i)]; w > 0; w = set->next[w - 1]) {
            const int64_t word_size = set->size[w - 1], after = i + word_size;
            if (after > size || memcmp(text + i, words[w - 1].text, (size_t)word_size) != 0)
                continue;
            if (words[w - 1].unless != NULL &&
                begins_with(text + after, size - after, words[w - 1].unless))
                continue;
            if (words[w - 1].after != NULL && ends_with(text, i, words[w - 1].after)) continue;
            *out = (struct word_hit){ words[w - 1].kind, i, after };
            *at = i + text_step((unsigned char)text[i]);
            return true;
        }
    *at = size;
    return false;
}

/* ---- a counsellor's introduction ---- */

/* What ends a clause; 0 for another character. */
static int64_t clause_end(const char *text, int64_t size)
{
    static const char *const ends[] = { "，", "。", "！", "？", "；", "：", "、", "～", "…",
                                        ",",  ".",  "!",  "?",  ";",  ":",  "~",  "\n", " " };
    for (int64_t i = 0; i < COUNT_OF(ends); i++)
        if (begins_with(text, size, ends[i])) return (int64_t)strlen(ends[i]);
    return 0;
}

static bool after_clause_end(const char *text, int64_t at)
{
    for (int64_t back = 1; back <= 3 && back <= at; back++)
        if (clause_end(text + at - back, back) == back) return true;
    return at == 0 || ends_with(text, at, "你好");
}

/* Whether a quotation was opened shortly before and not closed: what somebody else might say. */
static bool is_quoted(const char *text, int64_t at)
{
    for (int64_t back = 3; back <= 36 && back <= at; back++) {
        if (begins_with(text + at - back, back, "”")) return false;
        if (begins_with(text + at - back, back, "“")) return true;
    }
    return false;
}

bool word_names_counsellor(int64_t *end, const char *text, int64_t size, const struct word_hit *hit)
{
    static const char *const titles[] = { "咨询师", "心理师", "治疗师", "心理医生" };
    static const char *const others[] = { "不", "找", "求助", "学", "问", "作为", "喜欢" };
    int64_t at = hit->end;
    if (!after_clause_end(text, hit->begin) || is_quoted(text, hit->begin)) return false;
    while (at < size && at - hit->end <= 45 && clause_end(text + at, size - at) == 0)
        at += text_step((unsigned char)text[at]);
    const int64_t clause = min_i64(at, size) - hit->end;
    const char *from = text + hit->end;
    if (clause > 45) return false;
    for (int64_t i = 0; i < COUNT_OF(others); i++)
        if (memmem(from, (size_t)clause, others[i], strlen(others[i])) != NULL) return false;
    *end = hit->end + clause;
    for (int64_t i = 0; i < COUNT_OF(titles); i++)
        if (ends_with(from, clause, titles[i])) return true;
    return false;
}

/* ---- speakers ---- */

/* Names that begin a speaker's line in the sources people have. A name that ends another comes
 * after it. `noun`: also met in ordinary talk ("医生：你要多休息"). */
static const struct {
    const char *text;
    enum role role;
    bool noun;
} speakers[] = {
    { "求助者", ROLE_CLIENT, false },     { "来访者", ROLE_CLIENT, false },
    { "倾诉者", ROLE_CLIENT, false },     { "用户", ROLE_CLIENT, true },
    { "患者", ROLE_CLIENT, true },        { "病人", ROLE_CLIENT, true },
    { "支持者", ROLE_COUNSELLOR, false }, { "心理咨询师", ROLE_COUNSELLOR, false },
    { "咨询师", ROLE_COUNSELLOR, false }, { "心理医生", ROLE_COUNSELLOR, true },
    { "医生", ROLE_COUNSELLOR, true },    { "助手", ROLE_COUNSELLOR, true },
};

static bool begins_line(const char *text, int64_t at) { return at == 0 || text[at - 1] == '\n'; }

/* The start of a text, of a line, or what follows the end of a sentence or a blank. */
static bool begins_sentence(const char *text, int64_t at)
{
    static const char *const ends[] = { "\n", " ", "。", "！", "？", "!", "?", "…", "～", "　" };
    if (at == 0) return true;
    for (int64_t i = 0; i < COUNT_OF(ends); i++)
        if (ends_with(text, at, ends[i])) return true;
    return false;
}

static bool speaker_before(struct speaker *out, const char *text, int64_t colon, enum role speaker,
                           const char *const names[2])
{
    for (int role = ROLE_CLIENT; role <= ROLE_COUNSELLOR; role++)
        if (names[role] != NULL && names[role][0] != '\0' && ends_with(text, colon, names[role])) {
            const int64_t begin = colon - (int64_t)strlen(names[role]);
            *out = (struct speaker){ (enum role)role, begins_line(text, begin), begin, 0 };
            if (begins_sentence(text, begin)) return true;
        }
    for (int64_t i = 0; i < COUNT_OF(speakers); i++) {
        if (!ends_with(text, colon, speakers[i].text)) continue;
        const int64_t begin = colon - (int64_t)strlen(speakers[i].text);
        const bool label = speakers[i].noun || begins_line(text, begin);
        *out = (struct speaker){ speakers[i].role, label, begin, 0 };
        if (begins_sentence(text, begin)) return !speakers[i].noun || speakers[i].role == speaker;
    }
    return false;
}

bool speaker_find(struct speaker *out, const char *text, int64_t size, enum role speaker,
                  const char *const names[2], int64_t *at)
{
    for (int64_t i = *at; i < size; i += text_step((unsigned char)text[i])) {
        const int64_t colon = text[i] == ':' ? 1 : begins_with(text + i, size - i, "：") ? 3 : 0;
        if (colon == 0 || !speaker_before(out, text, i, speaker, names) || out->begin < *at)
            continue;
        out->end = i + colon;
        while (out->end < size && text[out->end] == ' ') out->end++;
        *at = out->end;
        return true;
    }
    *at = size;
    return false;
}
