#include "base/log.h"

#include "base/check.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct log_rule {
    char subsystem[LOG_SUBSYSTEM_MAX];
    enum log_level level;
};

static struct {
    pthread_mutex_t lock;
    enum log_level level;
    struct log_rule rules[LOG_RULES_MAX];
    int rule_count;
    char name[LOG_NAME_MAX];
    char status[LOG_LINE_MAX]; /* what progress shows now; empty when nothing */
} sink = { .lock = PTHREAD_MUTEX_INITIALIZER, .level = LOG_INFO };

static const char *const level_names[] = { "debug", "info", "warn", "error", "off" };
STATIC_ASSERT(COUNT_OF(level_names) == LOG_OFF + 1, "one name for each level");

static bool find_level(enum log_level *out, const char *name, size_t size)
{
    for (int i = 0; i <= LOG_OFF; i++) {
        if (strlen(level_names[i]) != size || memcmp(level_names[i], name, size) != 0) continue;
        *out = (enum log_level)i;
        return true;
    }
    return false;
}

err_t log_init(const char *spec)
{
    enum log_level level = LOG_INFO;
    struct log_rule rules[LOG_RULES_MAX];
    int rule_count = 0;

    for (const char *part = spec; part != NULL;) {
        const size_t size = strcspn(part, ",");
        const char *colon = memchr(part, ':', size);
        const char *name = colon ? colon + 1 : part;
        enum log_level found;
        if (!find_level(&found, name, size - (size_t)(name - part)))
            RAISE(USAGE, "SOULCHAT_LOG: \"%.*s\" has no level; expected debug, info, warn, error "
                  "or off, alone or as subsystem:level", (int)size, part);
        if (colon == NULL) {
            level = found;
        } else {
            const size_t name_size = (size_t)(colon - part);
            if (name_size == 0 || name_size >= LOG_SUBSYSTEM_MAX || rule_count == LOG_RULES_MAX)
                RAISE(USAGE, "SOULCHAT_LOG: \"%.*s\": a subsystem has 1 to %d letters, and at most "
                      "%d are named", (int)size, part, LOG_SUBSYSTEM_MAX - 1, LOG_RULES_MAX);
            memcpy(rules[rule_count].subsystem, part, name_size);
            rules[rule_count].subsystem[name_size] = '\0';
            rules[rule_count++].level = found;
        }
        part = part[size] == ',' ? part + size + 1 : NULL;
    }
    pthread_mutex_lock(&sink.lock);
    sink.level = level;
    sink.rule_count = rule_count;
    if (rule_count > 0) memcpy(sink.rules, rules, (size_t)rule_count * sizeof rules[0]);
    pthread_mutex_unlock(&sink.lock);
    return ERR_OK;
}

bool log_enabled(enum log_level level, const char *subsystem)
{
    pthread_mutex_lock(&sink.lock);
    enum log_level least = sink.level;
    for (int i = 0; i < sink.rule_count; i++)
        if (strcmp(sink.rules[i].subsystem, subsystem) == 0) least = sink.rules[i].level;
    pthread_mutex_unlock(&sink.lock);
    return level >= least && level < LOG_OFF;
}

void log_set_name(const char *name) { snprintf(sink.name, sizeof sink.name, "%s", name); }

/* Back to the first column, and erase to the end of the line. */
#define CLEAR_LINE "\r\033[K"

void log_line(enum log_level level, const char *subsystem, const char *fmt, ...)
{
    if (!log_enabled(level, subsystem)) return;
    char line[LOG_LINE_MAX];
    const time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    const int size = snprintf(line, sizeof line, "%02d:%02d:%02d %-5s %-6.*s %s%s", tm.tm_hour,
                              tm.tm_min, tm.tm_sec, level_names[level], LOG_SUBSYSTEM_MAX - 1,
                              subsystem, sink.name, sink.name[0] != '\0' ? ": " : "");
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line + size, sizeof line - (size_t)size, fmt, ap);
    va_end(ap);
    for (char *c = line; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = ' ';

    pthread_mutex_lock(&sink.lock);
    const char *clear = sink.status[0] != '\0' ? CLEAR_LINE : "";
    fprintf(stderr, "%s%s\n%s", clear, line, sink.status);
    fflush(stderr);
    pthread_mutex_unlock(&sink.lock);
}

void log_status(const char *line)
{
    pthread_mutex_lock(&sink.lock);
    if (line != NULL || sink.status[0] != '\0') {
        snprintf(sink.status, sizeof sink.status, "%s", line ? line : "");
        fprintf(stderr, CLEAR_LINE "%s", sink.status);
        fflush(stderr);
    }
    pthread_mutex_unlock(&sink.lock);
}
