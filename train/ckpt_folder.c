/* Which checkpoints there are, which one to resume from, which is the best, which ones to remove.
 */
#include "train/ckpt_impl.h"

#include "base/log.h"
#include "base/stop.h"
#include "model/json_in.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP_NAME_MAX  32
#define BEST_BYTES_MAX 4096

static void step_name(char name[STEP_NAME_MAX], int64_t step)
{
    snprintf(name, STEP_NAME_MAX, "step-%08lld", (long long)step);
}

err_t ckpt_path(char dir[FILE_PATH_MAX], const char *root, int64_t step)
{
    char name[STEP_NAME_MAX];
    step_name(name, step);
    return path_join(dir, root, name);
}

/* The step of "step-00001200"; -1 for any name that ckpt_path would not give. */
static int64_t step_of_name(const char *name)
{
    char again[STEP_NAME_MAX];
    if (strncmp(name, "step-", 5) != 0) return -1;
    const long long step = strtoll(name + 5, NULL, 10);
    if (step < 0) return -1;
    step_name(again, step);
    return strcmp(name, again) == 0 ? step : -1;
}

static bool is_leftover(const char *name)
{
    const size_t size = strlen(name);
    return strncmp(name, "step-", 5) == 0 && strcmp(name + size - 4, ".tmp") == 0;
}

/* A file of such a name is not ours. What cannot be looked at may be: taking it for absent would
 * have a run begin afresh. */
static err_t is_folder(bool *out, const char *root, const char *name)
{
    char path[FILE_PATH_MAX];
    struct stat st;
    TRY(path_join(path, root, name));
    const bool there = stat(path, &st) == 0;
    if (!there && errno != ENOENT) RAISE(IO, "stat %s: %s", path, strerror(errno));
    *out = there && S_ISDIR(st.st_mode);
    return ERR_OK;
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
    for (;;) {
        bool folder = false;
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL && errno != 0)
            RAISE_DONE(IO, "read folder %s: %s", root, strerror(errno));
        if (entry == NULL) break;
        const int64_t step = step_of_name(entry->d_name);
        if (step >= 0) TRY_DONE(is_folder(&folder, root, entry->d_name));
        if (!folder) continue;
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

bool ckpt_is_damage(err_t verdict)
{
    return verdict == ERR_FORMAT || verdict == ERR_CHECKSUM || verdict == ERR_NOTFOUND;
}

static err_t find_newest(int64_t *step, const char *root)
{
    err_t rc = ERR_OK;
    char dir[FILE_PATH_MAX];
    int64_t *steps, count;
    *step = -1;
    TRY(ckpt_list(&steps, &count, root));
    for (int64_t i = 0; i < count && *step < 0; i++) {
        TRY_DONE(ckpt_path(dir, root, steps[i]));
        const err_t verdict = ckpt_verify(dir);
        if (ckpt_is_damage(verdict)) {
            LOG_W("ckpt", "passing over %s: %s", dir, err_last()->text);
            continue;
        }
        if (verdict == ERR_IO)
            RAISE_DONE(IO, "%s cannot be checked (%s); to resume from an older one, move it away",
                       dir, err_last()->text);
        TRY_DONE(verdict);
        *step = steps[i];
    }
    if (count > 0 && *step < 0)
        RAISE_DONE(FORMAT,
                   "%s: none of its %lld checkpoints is whole (%s); to start from the "
                   "beginning, move this folder away",
                   root, (long long)count, err_last()->text);
done:
    free(steps);
    return rc;
}

static err_t check_stop(void)
{
    if (stop_requested()) RAISE(INTERRUPTED, "stopped before a checkpoint was loaded");
    return ERR_OK;
}

err_t ckpt_newest(int64_t *step, const char *root, const struct ckpt_ranks *ranks)
{
    err_t rc = ERR_OK;
    int64_t found = -1;
    if (ckpt_rank(ranks) == 0)
        rc = find_newest(&found, root);
    else
        rc = check_stop();
    found++; /* 0: none; the other ranks add 0 */
    TRY(ckpt_agree(ranks, rc, &found));
    *step = found - 1;
    return ERR_OK;
}

err_t ckpt_remove_leftovers(const char *root)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX];
    bool folder;
    DIR *dir = opendir(root);
    if (dir == NULL) RAISE(IO, "open folder %s: %s", root, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (!is_leftover(entry->d_name)) continue;
        TRY_DONE(is_folder(&folder, root, entry->d_name));
        if (!folder) continue;
        TRY_DONE(path_join(path, root, entry->d_name));
        TRY_DONE(dir_remove(path));
    }
done:
    closedir(dir);
    return rc;
}

/* Take its name first: what is half removed must not look like a checkpoint. */
static err_t unpublish(const char *root, int64_t step)
{
    char dir[FILE_PATH_MAX], tmp[FILE_PATH_MAX];
    TRY(ckpt_path(dir, root, step));
    if (snprintf(tmp, sizeof tmp, "%s.tmp", dir) >= (int)sizeof tmp)
        RAISE(ARG, "path too long: %s", dir);
    TRY(dir_remove(tmp));
    if (rename(dir, tmp) != 0) RAISE(IO, "rename %s to %s: %s", dir, tmp, strerror(errno));
    return ERR_OK;
}

err_t ckpt_prune(const char *root, int64_t step, int64_t keep_last, int64_t best)
{
    err_t rc = ERR_OK;
    int64_t *steps, count, kept = 0;
    TRY(ckpt_list(&steps, &count, root));
    for (int64_t i = 0; i < count; i++)
        if (steps[i] <= step && ++kept > keep_last && steps[i] != best)
            TRY_DONE(unpublish(root, steps[i]));
    TRY_DONE(ckpt_remove_leftovers(root));
done:
    free(steps);
    return rc;
}

/* ---- the best one ---- */

/* {"step": 1200, "validation_loss": 2.1}; *step = -1 where there is none, or none of use: it says
 * which one to keep, and nothing depends on it. */
static err_t read_best(int64_t *step, double *loss, const char *path)
{
    struct buf text = { 0 };
    json_int_t found = -1;
    json_error_t error;
    *step = -1;
    *loss = INFINITY;
    if (!file_exists(path)) return ERR_OK;
    err_t rc = file_read_all(&text, path, BEST_BYTES_MAX);
    json_t *root = rc == ERR_OK ? json_in_load(&error, text.data, (int64_t)text.size) : NULL;
    if (rc == ERR_OK && root == NULL) rc = json_in_failure(&error, path);
    if (root != NULL &&
        json_unpack_ex(root, &error, 0, "{s:I, s:F}", "step", &found, "validation_loss", loss) != 0)
        rc = json_in_failure(&error, path);
    if (rc == ERR_OK) *step = found;
    json_decref(root);
    buf_clear(&text);
    if (rc == ERR_FORMAT) LOG_W("ckpt", "no mark of the best one: %s", err_last()->text);
    return rc == ERR_FORMAT ? ERR_OK : rc;
}

static err_t write_best(const char *path, int64_t step, double loss)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    TRY_DONE(
        buf_printf(&text, "{\"step\": %lld, \"validation_loss\": %.17g}\n", (long long)step, loss));
    TRY_DONE(file_replace(path, text.data, (int64_t)text.size));
done:
    buf_clear(&text);
    return rc;
}

err_t ckpt_best(int64_t *step, double *loss, const char *root)
{
    char path[FILE_PATH_MAX], dir[FILE_PATH_MAX];
    TRY(path_join(path, root, CKPT_BEST));
    TRY(read_best(step, loss, path));
    if (*step >= 0) TRY(ckpt_path(dir, root, *step));
    if (*step >= 0 && !dir_exists(dir)) *step = -1;
    if (*step < 0) *loss = INFINITY;
    return ERR_OK;
}

err_t ckpt_best_note(int64_t *best, const char *root, const struct ckpt_keep *keep, int64_t step)
{
    char path[FILE_PATH_MAX];
    double loss;
    *best = -1;
    if (!keep->best) return ERR_OK;
    TRY(path_join(path, root, CKPT_BEST));
    TRY(ckpt_best(best, &loss, root));
    /* One that a resume has gone back behind is no longer of this run. */
    if (*best >= step) loss = INFINITY;
    if (keep->validation_loss < loss) {
        TRY(write_best(path, step, keep->validation_loss));
        *best = step;
    } else if (*best == step) { /* its folder was replaced, and nobody knows this one's loss */
        *best = -1;
        if (unlink(path) != 0) RAISE(IO, "remove %s: %s", path, strerror(errno));
    }
    return ERR_OK;
}
