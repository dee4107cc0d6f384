#include "data/turn_list.h"

#include "base/buf.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

/* What corpora call the two people, and where: in a member, or before a colon in a text. */
enum { IN_MEMBER = 1, IN_TEXT = 2, ANYWHERE = 3 };

static const struct {
    const char *name;
    enum role role;
    int where;
} names[] = {
    { "user", ROLE_CLIENT, IN_MEMBER },
    { "assistant", ROLE_COUNSELLOR, IN_MEMBER },
    { "client", ROLE_CLIENT, IN_MEMBER },
    { "counselor", ROLE_COUNSELLOR, IN_MEMBER },
    { "counsellor", ROLE_COUNSELLOR, IN_MEMBER },
    { "human", ROLE_CLIENT, IN_MEMBER },
    { "gpt", ROLE_COUNSELLOR, IN_MEMBER },
    { "system", ROLE_SYSTEM, IN_MEMBER },
    { "developer", ROLE_SYSTEM, IN_MEMBER },
    { "来访者", ROLE_CLIENT, ANYWHERE },
    { "心理咨询师", ROLE_COUNSELLOR, ANYWHERE },
    { "咨询师", ROLE_COUNSELLOR, ANYWHERE },
    { "求助者", ROLE_CLIENT, ANYWHERE },
    { "支持者", ROLE_COUNSELLOR, ANYWHERE },
    { "病人", ROLE_CLIENT, ANYWHERE },
    { "医生", ROLE_COUNSELLOR, ANYWHERE },
    { "患者", ROLE_CLIENT, ANYWHERE },
    { "用户", ROLE_CLIENT, ANYWHERE },
    { "助手", ROLE_COUNSELLOR, ANYWHERE },
    { "倾听者", ROLE_COUNSELLOR, ANYWHERE },
    { "治疗师", ROLE_COUNSELLOR, ANYWHERE },
    { "User", ROLE_CLIENT, ANYWHERE },
    { "Assistant", ROLE_COUNSELLOR, ANYWHERE },
    { "Client", ROLE_CLIENT, ANYWHERE },
    { "Counselor", ROLE_COUNSELLOR, ANYWHERE },
    { "Counsellor", ROLE_COUNSELLOR, ANYWHERE },
    { "Therapist", ROLE_COUNSELLOR, ANYWHERE },
};

bool role_parse(enum role *role, const char *name, int64_t size)
{
    for (int64_t i = 0; i < COUNT_OF(names); i++)
        if ((names[i].where & IN_MEMBER) && strlen(names[i].name) == (size_t)size &&
            memcmp(names[i].name, name, (size_t)size) == 0) {
            *role = names[i].role;
            return true;
        }
    return false;
}

int64_t role_label(enum role *role, const char *text, int64_t size)
{
    static const char *const colons[] = { "：", ":" };
    for (int64_t i = 0; i < COUNT_OF(names); i++) {
        const int64_t n = (int64_t)strlen(names[i].name);
        if (!(names[i].where & IN_TEXT) || n >= size || memcmp(text, names[i].name, (size_t)n) != 0)
            continue;
        for (int64_t k = 0; k < COUNT_OF(colons); k++) {
            const int64_t colon = (int64_t)strlen(colons[k]);
            if (size - n < colon || memcmp(text + n, colons[k], (size_t)colon) != 0) continue;
            *role = names[i].role;
            return n + colon;
        }
    }
    return 0;
}

err_t turn_list_append(struct turn_list *list, enum role role, const char *text, int64_t size)
{
    if (list->count == CORPUS_TURNS_MAX)
        RAISE(FORMAT, "more than %d turns in one dialogue", CORPUS_TURNS_MAX);
    ARRAY_GROW(list->turns, list->capacity, list->count + 1);
    list->turns[list->count++] = (struct turn_text){ role, text, size };
    return ERR_OK;
}

void turn_list_clear(struct turn_list *list)
{
    free(list->turns);
    *list = (struct turn_list){ 0 };
}

/* The bytes of what separates turns at `text`: a newline, or a backslash and an n. */
static int64_t separator(const char *text, int64_t size)
{
    if (size >= 1 && text[0] == '\n') return 1;
    if (size >= 2 && text[0] == '\\' && text[1] == 'n') return 2;
    return 0;
}

/* Where the turn ends whose text begins at `begin`: at a separator with a label behind it. */
static int64_t turn_end(const char *text, int64_t begin, int64_t size, int64_t *next_label)
{
    for (int64_t at = begin; at < size; at++) {
        enum role role;
        const int64_t n = separator(text + at, size - at);
        if (n == 0 || role_label(&role, text + at + n, size - at - n) == 0) continue;
        *next_label = at + n;
        return at;
    }
    *next_label = size;
    return size;
}

err_t turn_list_split(struct turn_list *list, char *text, int64_t size)
{
    for (int64_t at = 0, next; at < size; at = next) {
        enum role role = ROLE_CLIENT;
        const int64_t begin = at + role_label(&role, text + at, size - at);
        const int64_t end = turn_end(text, begin, size, &next);
        if (end == begin && next == size && list->count > 0) break;
        text[end] = '\0';
        TRY(turn_list_append(list, role, text + begin, end - begin));
    }
    return ERR_OK;
}
