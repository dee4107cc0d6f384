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
    const char *unless; /* what follows where it means something else, parted by |; NULL = none */
    const char *after;  /* what stands before where it is no word at all; NULL = nothing does */
} words[] = {
    { "自杀", WORD_CRISIS, "式", NULL },
    { "自殺", WORD_CRISIS, "式", NULL },
    { "自尽", WORD_CRISIS, NULL, NULL },
    { "自残", WORD_CRISIS, NULL, NULL },
    { "自殘", WORD_CRISIS, NULL, NULL },
    { "自伤", WORD_CRISIS, NULL, NULL },
    { "割腕", WORD_CRISIS, NULL, NULL },
    { "割脉", WORD_CRISIS, NULL, NULL },
    { "割手腕", WORD_CRISIS, NULL, NULL },
    { "割自己", WORD_CRISIS, NULL, NULL },
    { "跳楼", WORD_CRISIS, "价", NULL },
    { "楼上跳下", WORD_CRISIS, NULL, NULL },
    { "跳河", WORD_CRISIS, NULL, NULL },
    { "上吊", WORD_CRISIS, NULL, NULL },
    { "烧炭", WORD_CRISIS, "工", NULL },
    { "遗书", WORD_CRISIS, NULL, NULL },
    { "轻生", WORD_CRISIS, "活", "减" }, /* 减轻生活压力 */
    { "寻死", WORD_CRISIS, NULL, NULL },
    { "寻短见", WORD_CRISIS, NULL, NULL },
    { "想死", WORD_CRISIS, "你", NULL }, /* 想死你了: how much somebody is missed */
    { "想去死", WORD_CRISIS, NULL, NULL },
    { "早点去死", WORD_CRISIS, NULL, NULL },
    { "不如死了", WORD_CRISIS, NULL, NULL },
    { "一死了之", WORD_CRISIS, NULL, NULL },
    { "一了百了", WORD_CRISIS, NULL, NULL },
    { "死了算了", WORD_CRISIS, NULL, NULL },
    { "不想活", WORD_CRISIS, "成|得|在", NULL }, /* 不想活成那样: how somebody wants to live */
    { "不想活在世", WORD_CRISIS, NULL, NULL },
    { "不想活在人世", WORD_CRISIS, NULL, NULL },
    { "不想活在这个世", WORD_CRISIS, NULL, NULL },
    { "不想再活", WORD_CRISIS, NULL, NULL },
    { "活不下去", WORD_CRISIS, NULL, NULL },
    { "活着没意", WORD_CRISIS, NULL, NULL },
    { "活着没什么意", WORD_CRISIS, NULL, NULL },
    { "活着没有意", WORD_CRISIS, NULL, NULL },
    { "活着没有任何意", WORD_CRISIS, NULL, NULL },
    { "想离开这个世界", WORD_CRISIS, NULL, NULL },
    { "要离开这个世界", WORD_CRISIS, NULL, NULL },
    { "结束生命", WORD_CRISIS, NULL, NULL },
    { "结束自己的生命", WORD_CRISIS, NULL, NULL },
    { "结束我的生命", WORD_CRISIS, NULL, NULL },
    { "了结自己", WORD_CRISIS, NULL, NULL },
    { "了断生命", WORD_CRISIS, NULL, NULL },
    { "自我了断", WORD_CRISIS, NULL, NULL },
    { "想伤害自己", WORD_CRISIS, NULL, NULL },
    { "伤害自己的身体", WORD_CRISIS, NULL, NULL },
    /* Only looked at in a counsellor's turn: names of machines, and how somebody says who is
     * speaking. */
    { "大语言模型", WORD_AI, NULL, NULL },
    { "AI语言模型", WORD_AI, NULL, NULL },
    { "ChatGPT", WORD_AI, NULL, NULL },
    { "OpenAI", WORD_AI, NULL, NULL },
    { "ChatGLM", WORD_AI, NULL, NULL },
    { "EmoLLM", WORD_AI, NULL, NULL },
    { "SoulChat", WORD_AI, NULL, NULL },
    { "MeChat", WORD_AI, NULL, NULL },
    { "MindChat", WORD_AI, NULL, NULL },
    { "文心一言", WORD_AI, NULL, NULL },
    { "通义千问", WORD_AI, NULL, NULL },
    { "我是", WORD_I_AM, NULL, NULL },
    { "我只是", WORD_AS, NULL, NULL },
    { "我由", WORD_AS, "衷|此", NULL },
    { "作为", WORD_AS, NULL, NULL },
    { "身为", WORD_AS, NULL, NULL },
};
STATIC_ASSERT(COUNT_OF(words) <= 127, "indices + 1 are bytes, and fit word_set.next");

#define HEAD_BYTES 6 /* two Chinese characters: no word is shorter, and few places begin like one  \
                      */

static unsigned head_of(const char *text)
{
    uint32_t low;
    uint16_t high;
    memcpy(&low, text, sizeof low);
    memcpy(&high, text + sizeof low, sizeof high);
    return (unsigned)(((uint64_t)high << 32 | low) * 0x9e3779b97f4a7c15u >> 52);
}

void word_set_init(struct word_set *set)
{
    memset(set, 0, sizeof *set);
    for (int64_t i = COUNT_OF(words) - 1; i >= 0; i--) {
        ASSERT(strlen(words[i].text) >= HEAD_BYTES);
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

/* Whether the text begins with one of `list`, parted by |; NULL has none. */
static bool begins_with_any(const char *text, int64_t size, const char *list)
{
    while (list != NULL) {
        const size_t word_size = strcspn(list, "|");
        if (size >= (int64_t)word_size && memcmp(text, list, word_size) == 0) return true;
        list = list[word_size] == '|' ? list + word_size + 1 : NULL;
    }
    return false;
}

bool word_find(struct word_hit *out, const struct word_set *set, const char *text, int64_t size,
               int64_t *at)
{
    int64_t i = *at;
    for (; size - i >= HEAD_BYTES; i += text_step((unsigned char)text[i]))
        for (int w = set->head[head_of(text + i)]; w > 0; w = set->next[w - 1]) {
            const int64_t word_size = set->size[w - 1], after = i + word_size;
            if (after > size || memcmp(text + i, words[w - 1].text, (size_t)word_size) != 0)
                continue;
            if (begins_with_any(text + after, size - after, words[w - 1].unless)) continue;
            if (words[w - 1].after != NULL && ends_with(text, i, words[w - 1].after)) continue;
            *out = (struct word_hit){ words[w - 1].kind, i, after };
            *at = i + text_step((unsigned char)text[i]);
            return true;
        }
    *at = size;
    return false;
}

/* ---- who is speaking ---- */

#define CLAUSE_MAX 45 /* bytes */

/* What ends a clause; 0 for another character. */
static int64_t clause_end(const char *text, int64_t size)
{
    static const char *const ends[] = { "，", "。", "！", "？", "；", "：", "、",
                                        "～", "…",  "】", "（", ",",  ".",  "!",
                                        "?",  ";",  ":",  "~",  "(",  "\n", " " };
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

static bool contains(const char *text, int64_t size, const char *word)
{
    return memmem(text, (size_t)size, word, strlen(word)) != NULL;
}

/* Bytes from `at` to the end of the clause; more than CLAUSE_MAX: it is longer. */
static int64_t clause_size(const char *text, int64_t size, int64_t at)
{
    int64_t end = at;
    while (end < size && end - at <= CLAUSE_MAX && clause_end(text + end, size - end) == 0)
        end += text_step((unsigned char)text[end]);
    return min_i64(end, size) - at;
}

/* A Chinese name of two to four characters or a Latin one, behind a title (咨询师李华). */
static bool is_name(const char *text, int64_t size)
{
    static const char *const others[] = { "的", "了", "说", "是", "在", "和", "给", "推",
                                          "要", "会", "不", "们", "吗", "呢", "来", "去" };
    const bool latin = (text[0] >= 'A' && text[0] <= 'Z') || (text[0] >= 'a' && text[0] <= 'z');
    if (latin) return size >= 2 && size <= 12 && (unsigned char)text[size - 1] < 0x80;
    for (int64_t i = 0; i < COUNT_OF(others); i++)
        if (contains(text, size, others[i])) return false;
    return size >= 6 && size <= 12 && (unsigned char)text[0] >= 0xe4;
}

/* 刘老师, 会明心理孙老师: a surname before 老师. */
static bool is_named_teacher(const char *clause, int64_t size)
{
    static const char *const no_surname[] = { "个", "名", "位", "男", "女", "新", "好", "的" };
    if (!ends_with(clause, size, "老师")) return false;
    const int64_t before = size - 6;
    for (int64_t i = 0; i < COUNT_OF(no_surname); i++)
        if (ends_with(clause, before, no_surname[i])) return false;
    return before == 3 || (before > 3 && ends_with(clause, before - 3, "心理"));
}

/* Ends with a title, alone or with a name. */
static bool is_title(const char *clause, int64_t size)
{
    static const char *const titles[] = { "咨询师",     "心理师",     "治疗师",  "心理医生",
                                          "老师的助理", "咨询师助理", "师的助理" };
    for (int64_t i = 0; i < COUNT_OF(titles); i++) {
        const int64_t title = (int64_t)strlen(titles[i]);
        if (ends_with(clause, size, titles[i])) return true;
        for (int64_t name = 2; name <= 12 && name + title <= size; name++)
            if (ends_with(clause, size - name, titles[i]) && is_name(clause + size - name, name))
                return true;
    }
    return is_named_teacher(clause, size);
}

bool word_names_counsellor(const char *text, int64_t size, const struct word_hit *hit)
{
    static const char *const others[] = { "不", "找", "求助", "学", "问", "作为", "喜欢" };
    if (!after_clause_end(text, hit->begin) || is_quoted(text, hit->begin)) return false;
    const char *clause = text + hit->end;
    const int64_t clause_bytes = clause_size(text, size, hit->end);
    if (clause_bytes > CLAUSE_MAX) return false;
    for (int64_t i = 0; i < COUNT_OF(others); i++)
        if (contains(clause, clause_bytes, others[i])) return false;
    return is_title(clause, clause_bytes);
}

/* 我是由某团队开发的: who made the speaker. */
static bool is_made(const char *clause, int64_t size)
{
    static const char *const made[] = { "开发", "研发", "打造", "训练",
                                        "创建", "创造", "发明", "设计的" };
    for (int64_t i = 0; i < COUNT_OF(made); i++)
        if (contains(clause, size, made[i])) return true;
    return false;
}

bool word_names_machine(const char *text, int64_t size, const struct word_hit *hit)
{
    static const char *const fillers[] = { "一", "个",   "名",   "位",   "款",
                                           "台", "种",   "只是", "你的", "您的",
                                           "由", "基于", "中文", "心理", " " };
    static const char *const machines[] = { "AI",       "ＡＩ",     "人工智能",   "机器人",
                                            "语言模型", "聊天程序", "计算机程序", "电脑程序",
                                            "程序",     "虚拟助手", "虚拟AI",     "虚拟咨询",
                                            "智能助手", "智能AI",   "智能咨询",   "智能机器人",
                                            "智能对话", "聊天机器" };
    static const char *const people = "专业|行业|领域|工程师|公司|研究|从业|产品|方向|相关|员|设计";
    static const char *const supposed[] = { "如果", "假如", "假设", "要是", "你觉得" };
    for (int64_t i = 0; i < COUNT_OF(supposed); i++)
        if (ends_with(text, hit->begin, supposed[i])) return false;
    if (is_quoted(text, hit->begin)) return false;
    const bool by =
        ends_with(text, hit->end, "由") || begins_with(text + hit->end, size - hit->end, "由");
    if (by && is_made(text + hit->end, min_i64(clause_size(text, size, hit->end), size - hit->end)))
        return true;
    int64_t at = hit->end;
    for (int64_t i = 0; i < COUNT_OF(fillers); i++)
        if (begins_with(text + at, size - at, fillers[i])) {
            at += (int64_t)strlen(fillers[i]);
            i = -1; /* any of them again */
        }
    for (int64_t i = 0; i < COUNT_OF(machines); i++) {
        const int64_t end = at + (int64_t)strlen(machines[i]);
        if (begins_with(text + at, size - at, machines[i]))
            return !begins_with_any(text + end, size - end, people);
    }
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
