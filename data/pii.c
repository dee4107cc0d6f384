#include "data/pii.h"

#include "base/check.h"
#include "base/num.h"

#include <stdbool.h>
#include <string.h>

/* The text and a place in it. */
struct scan {
    const char *text;
    int64_t size;
};

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_alnum(char c) { return is_digit(c) || is_letter(c); }
static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

static char byte_at(const struct scan *s, int64_t at)
{
    return at >= 0 && at < s->size ? s->text[at] : '\0';
}

static int64_t digits_at(const struct scan *s, int64_t at)
{
    int64_t count = 0;
    while (is_digit(byte_at(s, at + count))) count++;
    return count;
}

/* Whether the text before `at` ends with `word`, whatever the case of Latin letters. */
static bool ends_with(const struct scan *s, int64_t at, const char *word)
{
    const int64_t size = (int64_t)strlen(word);
    if (at < size) return false;
    for (int64_t i = 0; i < size; i++)
        if (lower(s->text[at - size + i]) != word[i]) return false;
    return true;
}

static bool begins_with(const struct scan *s, int64_t at, const char *word)
{
    const int64_t size = (int64_t)strlen(word);
    return at >= 0 && s->size - at >= size && memcmp(s->text + at, word, (size_t)size) == 0;
}

/* Bytes of whichever word of a NULL-terminated list ends before, or begins at, `at`; 0 for none. */
static int64_t any_before(const struct scan *s, int64_t at, const char *const *words)
{
    for (; *words != NULL; words++)
        if (ends_with(s, at, *words)) return (int64_t)strlen(*words);
    return 0;
}

static int64_t any_at(const struct scan *s, int64_t at, const char *const *words)
{
    for (; *words != NULL; words++)
        if (begins_with(s, at, *words)) return (int64_t)strlen(*words);
    return 0;
}

/* Whether one of `names` stands before `at`, with at most six of the usual words between. Names of
 * Latin letters are no part of a longer word. */
static bool is_named(const struct scan *s, int64_t at, const char *const *names)
{
    static const char *const between[] = { "号码", "账号", "帐号", "号", "是", "为", "加", "群",
                                           "我",   "的",   "：",   ":",  " ",  "=",  "（", "(",
                                           "，",   ",",    "“",    "\"", "@",  NULL };
    for (int i = 0; i <= 6; i++) {
        const int64_t name = any_before(s, at, names);
        if (name > 0 && !(is_letter(s->text[at - 1]) && is_alnum(byte_at(s, at - name - 1))))
            return true;
        const int64_t step = any_before(s, at, between);
        if (step == 0) return false;
        at -= step;
    }
    return false;
}

static const char *const qq_names[] = { "qq", "扣扣", NULL };
/* Longer ones first. "v信" and the rest are how people write it to pass filters. */
static const char *const wechat_names[] = { "微信",   "薇信", "v信", "weixin",
                                            "wechat", "vx",   "wx",  NULL };

/* ---- numbers ---- */

static bool is_birth_date(const char *d)
{
    const int year = (d[0] - '0') * 1000 + (d[1] - '0') * 100 + (d[2] - '0') * 10 + (d[3] - '0');
    const int month = (d[4] - '0') * 10 + (d[5] - '0'), day = (d[6] - '0') * 10 + (d[7] - '0');
    return year >= 1900 && year < 2100 && month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

/* GB 11643: six digits of place, date of birth, three of order, check digit (ISO 7064, MOD 11-2).
 */
static int64_t id_card(const struct scan *s, int64_t at)
{
    static const uint8_t weight[17] = { 7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2 };
    int sum = 0;
    if (digits_at(s, at) < 17 || is_alnum(byte_at(s, at + 18))) return 0;
    if (s->text[at] == '0' || !is_birth_date(s->text + at + 6)) return 0;
    for (int i = 0; i < 17; i++) sum += weight[i] * (s->text[at + i] - '0');
    const char check = "10X98765432"[sum % 11], found = byte_at(s, at + 17);
    return found == check || (check == 'X' && found == 'x') ? 18 : 0;
}

/* Digits in groups of these sizes, with at most one blank or hyphen between groups; bytes taken. */
static int64_t grouped(const struct scan *s, int64_t at, const int *groups, int count)
{
    const int64_t begin = at;
    for (int g = 0; g < count; g++) {
        if (g > 0 && (byte_at(s, at) == '-' || byte_at(s, at) == ' ')) at++;
        for (int i = 0; i < groups[g]; i++)
            if (!is_digit(byte_at(s, at++))) return 0;
    }
    return is_alnum(byte_at(s, at)) ? 0 : at - begin;
}

static int64_t mobile(const struct scan *s, int64_t at)
{
    static const int groups[] = { 3, 4, 4 };
    const int64_t begin = at;
    if (begins_with(s, at, "86") && digits_at(s, at) != 11) {
        at += 2;
        if (byte_at(s, at) == '-' || byte_at(s, at) == ' ') at++;
    }
    if (byte_at(s, at) != '1' || byte_at(s, at + 1) < '3') return 0;
    const int64_t bytes = grouped(s, at, groups, 3);
    return bytes > 0 ? at - begin + bytes : 0;
}

/* 010 and 02x have seven or eight more digits, as have the areas of four digits. */
static int64_t land_line(const struct scan *s, int64_t at)
{
    static const int forms[][2] = { { 3, 8 }, { 3, 7 }, { 4, 8 }, { 4, 7 } };
    if (byte_at(s, at) != '0' || byte_at(s, at + 1) == '0') return 0;
    const bool short_area = byte_at(s, at + 1) == '1' || byte_at(s, at + 1) == '2';
    for (int f = short_area ? 0 : 2; f < (short_area ? 2 : 4); f++) {
        const int64_t bytes = grouped(s, at, forms[f], 2);
        if (bytes > 0) return bytes;
    }
    return 0;
}

/* 热线 within some words before: a help line that is to be known. */
static bool is_public_line(const struct scan *s, int64_t at)
{
    static const char name[] = "热线";
    const int64_t from = max_i64(0, at - 48);
    return memmem(s->text + from, (size_t)(at - from), name, sizeof name - 1) != NULL;
}

static int64_t phone(const struct scan *s, int64_t at)
{
    int64_t bytes = mobile(s, at);
    if (bytes == 0) bytes = land_line(s, at);
    return bytes > 0 && !is_public_line(s, at) ? bytes : 0;
}

/* ---- addresses ---- */

static const char *const road_ends[] = { "路", "街", "巷", "大道", "胡同", "小区", "花园", NULL };
static const char *const house_ends[] = { "号楼", "号院", "号", "弄", "栋", "幢",
                                          "座",   "单元", "室", "层", NULL };

/* Where the names before a road begin: at most 20 characters back, not over what is no name. */
static int64_t address_begin(const struct scan *s, int64_t at)
{
    static const char *const stops[] = { "在", "住", "是", "到", "去", "来", "于", "从",
                                         "我", "你", "他", "她", "的", "了", "有", "和",
                                         "就", "这", "那", "条", "一", NULL };
    for (int i = 0; i < 20 && at >= 3; i++) {
        const uint8_t *c = (const uint8_t *)s->text + at - 3;
        const bool is_cjk = c[0] >= 0xe4 && c[0] <= 0xe9 && c[1] >= 0x80 && c[2] >= 0x80;
        if (!is_cjk || any_before(s, at, stops) > 0) break;
        at -= 3;
    }
    return at;
}

/* A house number of some digits at `at`: "27号院3号楼502室"; the bytes. */
static int64_t house_number(const struct scan *s, int64_t at)
{
    const int64_t begin = at;
    for (;;) {
        const int64_t digits = digits_at(s, at);
        const int64_t end = digits >= 1 && digits <= 5 ? any_at(s, at + digits, house_ends) : 0;
        if (end == 0) return at - begin;
        at += digits + end;
    }
}

static bool address(struct pii_span *out, const struct scan *s, int64_t at, int64_t from)
{
    if (any_before(s, at, road_ends) == 0) return false;
    const int64_t bytes = house_number(s, at);
    const int64_t begin = max_i64(from, address_begin(s, at));
    /* A road has a name: "这条路1号" and the like have not. */
    if (bytes == 0 || at - begin < 9) return false;
    *out = (struct pii_span){ PII_ADDRESS, begin, at + bytes };
    return true;
}

/* ---- words ---- */

static bool is_host_char(char c) { return is_alnum(c) || c == '-' || c == '.'; }

/* name@host.tld, where `at` is the '@'; the bytes from the '@' on. */
static int64_t mail_host(const struct scan *s, int64_t at)
{
    int64_t end = at + 1, dot = -1;
    while (is_host_char(byte_at(s, end))) {
        if (s->text[end] == '.' && is_letter(byte_at(s, end + 1))) dot = end;
        end++;
    }
    while (end > at + 1 && !is_alnum(s->text[end - 1])) end--;
    return dot > at + 1 && end - dot >= 3 ? end - at : 0;
}

static bool is_url_char(char c) { return c > ' ' && c < 0x7f && strchr("\"'<>()", c) == NULL; }

static int64_t url_tail(const struct scan *s, int64_t at)
{
    const int64_t begin = at;
    while (is_url_char(byte_at(s, at))) at++;
    while (at > begin && strchr(".,;:!?", s->text[at - 1]) != NULL) at--;
    return at - begin;
}

/* A URL that begins here; `token` bytes of [A-Za-z0-9._+-] are known to. */
static int64_t url(const struct scan *s, int64_t at, int64_t token)
{
    static const char *const domains[] = { ".com", ".cn", ".net", ".org", NULL };
    const struct scan host = { s->text, at + token };
    if (ends_with(&host, at + token, "http") || ends_with(&host, at + token, "https"))
        return begins_with(s, at + token, "://") ? token + url_tail(s, at + token) : 0;
    const bool named = any_before(&host, at + token, domains) > 0;
    if (!named && !(token > 6 && lower(s->text[at]) == 'w' && begins_with(s, at + 1, "ww.")))
        return 0;
    return byte_at(s, at + token) == '/' || byte_at(s, at + token) == ':'
               ? token + url_tail(s, at + token)
               : token;
}

static bool is_token_char(char c)
{
    return is_alnum(c) || c == '.' || c == '_' || c == '+' || c == '-';
}

/* 6 to 20 of letters, digits, _ and -, or 6 to 11 digits; not a name of the service itself. */
static bool is_wechat_account(const struct scan *s, int64_t at, int64_t size)
{
    const bool number = digits_at(s, at) == size;
    for (int64_t i = 0; i < size; i++)
        if (s->text[at + i] == '.' || s->text[at + i] == '+') return false;
    return size >= 6 && size <= (number ? 11 : 20) &&
           any_before(&(struct scan){ s->text + at, size }, size, wechat_names) == 0;
}

/* The token of `size` bytes at `at`, with nothing of its kind before it. */
static bool classify(struct pii_span *out, const struct scan *s, int64_t at, int64_t size,
                     int64_t from)
{
    int64_t bytes;
    *out = (struct pii_span){ .begin = at };
    if (byte_at(s, at + size) == '@' && (bytes = mail_host(s, at + size)) > 0) {
        *out = (struct pii_span){ PII_EMAIL, at, at + size + bytes };
        return true;
    }
    if (is_digit(s->text[at])) {
        out->kind = PII_ID_CARD;
        if ((bytes = id_card(s, at)) == 0) {
            out->kind = PII_PHONE;
            bytes = phone(s, at);
        }
        const int64_t digits = digits_at(s, at);
        if (bytes == 0 && digits == size && digits >= 5 && digits <= 11 &&
            is_named(s, at, qq_names)) {
            out->kind = PII_QQ;
            bytes = digits;
        }
        if (bytes == 0 && address(out, s, at, from)) return true;
    } else {
        out->kind = PII_URL;
        bytes = url(s, at, size);
    }
    while (bytes == 0 && size > 0 && !is_alnum(s->text[at + size - 1])) size--;
    if (bytes == 0 && is_wechat_account(s, at, size) && is_named(s, at, wechat_names)) {
        out->kind = PII_WECHAT;
        bytes = size;
    }
    out->end = at + bytes;
    return bytes > 0;
}

int64_t pii_find(struct pii_span *out, int64_t max, int64_t *at, const char *text, int64_t size)
{
    const struct scan s = { text, size };
    int64_t count = 0, i = *at, from = *at;
    while (i < size && count < max) {
        if (!is_alnum(text[i])) {
            i++;
            continue;
        }
        int64_t token = 0;
        while (is_token_char(byte_at(&s, i + token))) token++;
        if (classify(&out[count], &s, i, token, from)) {
            i = from = out[count].end;
            count++;
        } else {
            i += token;
        }
    }
    *at = i;
    return count;
}

const char *pii_mask(enum pii_kind kind, int64_t bytes)
{
    static const char *const masks[PII_KIND_COUNT] = {
        [PII_ID_CARD] = "[证件号]", [PII_PHONE] = "[电话]", [PII_EMAIL] = "[邮箱]",
        [PII_URL] = "[网址]",       [PII_QQ] = "[QQ]",      [PII_WECHAT] = "[微信]",
        [PII_ADDRESS] = "[地址]",
    };
    return (int64_t)strlen(masks[kind]) <= bytes ? masks[kind] : "***";
}
