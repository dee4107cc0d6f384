/*
 * Runs a fuzz target without libFuzzer: over each file of a corpus folder, and over each beginning
 * of the files that are small. A folder that is missing or empty is a failure, so that a corpus
 * cannot vanish unnoticed.
 */
#include "fuzz/fuzz.h"

#include "base/buf.h"
#include "base/file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX     ((int64_t)1 << 24)
#define TRUNCATE_BYTES_MAX 4096

/* A copy of exactly this size, so that a sanitizer sees a read past the end. */
static void run_one(const char *bytes, size_t size)
{
    uint8_t *exact = malloc(size);
    if (exact == NULL && size > 0) abort();
    if (size > 0) memcpy(exact, bytes, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static err_t replay_file(int64_t *run_count, const char *path)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    TRY_DONE(file_read_all(&text, path, FILE_BYTES_MAX));
    run_one(text.data, text.size);
    (*run_count)++;
    if (text.size > TRUNCATE_BYTES_MAX) goto done;
    for (size_t size = 0; size < text.size; size++) run_one(text.data, size);
    *run_count += (int64_t)text.size;
done:
    buf_clear(&text);
    return rc;
}

static err_t replay_folder(const char *folder)
{
    err_t rc = ERR_OK;
    int64_t file_count = 0, run_count = 0;
    DIR *dir = opendir(folder);
    if (dir == NULL) RAISE_DONE(NOTFOUND, "%s: no such folder", folder);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[FILE_PATH_MAX];
        TRY_DONE(path_join(path, folder, entry->d_name));
        if (entry->d_name[0] == '.' || !file_exists(path)) continue;
        fprintf(stderr, "%s\n", path); /* the last one named is the one that crashed */
        TRY_DONE(replay_file(&run_count, path));
        file_count++;
    }
    if (file_count == 0) RAISE_DONE(NOTFOUND, "%s: holds no files", folder);
    printf("%s: %lld files, %lld runs\n", folder, (long long)file_count, (long long)run_count);
done:
    if (dir != NULL) closedir(dir);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    if (replay_folder(argv[1]) == ERR_OK) return 0;
    fprintf(stderr, "%s\n", err_last()->text);
    return 1;
}
