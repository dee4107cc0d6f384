/* Which checkpoints there are, which one to resume from, which ones to remove. */
#include "train/ckpt.h"

#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

err_t ckpt_path(char dir[FILE_PATH_MAX], const char *root, int64_t step)
{
    char name[32];
    snprintf(name, sizeof name, "step-%08lld", (long long)step);
    return path_join(dir, root, name);
}

/* The step of "step-00001200"; -1 for any other name, "step-00001200.tmp" included. */
static int64_t step_of_name(const char *name)
{
    if (strncmp(name, "step-", 5) != 0 || strlen(name) < 13) return -1;
    for (const char *c = name + 5; *c != '\0'; c++)
        if (*c < '0' || *c > '9') return -1;
    return strtoll(name + 5, NULL, 10);
}

static bool is_leftover(const char *name)
{
    const size_t size = strlen(name);
    return strncmp(name, "step-", 5) == 0 && size > 4 && strcmp(name + size - 4, ".tmp") == 0;
}

static int newest_first(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

err_t ckpt_list(int64_t **steps, int64_t *count, const char *root)
{
    err_t rc = ERR_OK;
    int64_t capacity = 0, *list = NULL;
    *steps = NULL;
    *count = 0;

    DIR *dir = opendir(root);
    if (dir == NULL && errno == ENOENT) return ERR_OK;
    if (dir == NULL) RAISE(IO, "open folder %s: %s", root, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        const int64_t step = step_of_name(entry->d_name);
        if (step < 0) continue;
        if (*count == capacity) {
            capacity = 2 * capacity + 16;
            int64_t *larger = realloc(list, (size_t)capacity * sizeof *list);
            if (larger == NULL) RAISE_DONE(NOMEM, "list of checkpoints in %s", root);
            list = larger;
        }
        list[(*count)++] = step;
    }
    if (list != NULL) qsort(list, (size_t)*count, sizeof *list, newest_first);
    *steps = list;
    list = NULL;
done:
    free(list);
    closedir(dir);
    return rc;
}

err_t ckpt_newest(char dir[FILE_PATH_MAX], bool *found, const char *root)
{
    err_t rc = ERR_OK;
    int64_t *steps, count;
    *found = false;
    TRY(ckpt_list(&steps, &count, root));
    for (int64_t i = 0; i < count && !*found; i++) {
        TRY_DONE(ckpt_path(dir, root, steps[i]));
        const err_t verdict = ckpt_verify(dir);
        if (verdict == ERR_NOMEM || verdict == ERR_INTERRUPTED) TRY_DONE(verdict);
        *found = verdict == ERR_OK;
        if (!*found) LOG_W("ckpt", "passing over %s: %s", dir, err_last()->text);
    }
done:
    free(steps);
    return rc;
}

static err_t remove_leftovers(const char *root)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX];
    DIR *dir = opendir(root);
    if (dir == NULL) RAISE(IO, "open folder %s: %s", root, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (!is_leftover(entry->d_name)) continue;
        TRY_DONE(path_join(path, root, entry->d_name));
        TRY_DONE(dir_remove(path));
    }
done:
    closedir(dir);
    return rc;
}

err_t ckpt_prune(const char *root, int64_t keep_last)
{
    err_t rc = ERR_OK;
    int64_t *steps, count;
    char path[FILE_PATH_MAX];
    TRY(ckpt_list(&steps, &count, root));
    for (int64_t i = keep_last; i < count; i++) {
        TRY_DONE(ckpt_path(path, root, steps[i]));
        TRY_DONE(dir_remove(path));
    }
    TRY_DONE(remove_leftovers(root));
done:
    free(steps);
    return rc;
}
