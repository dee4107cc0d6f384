/* MANIFEST.json: what a checkpoint consists of, to the byte. */
#include "train/ckpt.h"

#include "base/num.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MANIFEST_NAME      "MANIFEST.json"
#define MANIFEST_BYTES_MAX (64 << 20)
#define CRC_BLOCK_BYTES    (16 << 20)

/* Digest one file; `crcs` (may be NULL) receives the crc32c of each 16 MiB block. */
static err_t digest_file(char hex[SHA256_HEX_SIZE], int64_t *bytes, json_t *crcs, const char *path)
{
    err_t rc = ERR_OK;
    struct file_reader reader;
    struct sha256 sha;
    uint8_t digest[SHA256_BYTES];
    char *block = malloc(CRC_BLOCK_BYTES);
    if (block == NULL) RAISE(NOMEM, "%s: no memory for a block of %d bytes", path, CRC_BLOCK_BYTES);

    rc = file_reader_open(&reader, path);
    if (rc != ERR_OK) {
        free(block);
        return err_pass(rc, __FILE__, __LINE__, "file_reader_open");
    }
    sha256_init(&sha);
    for (int64_t at = 0; at < reader.size; at += CRC_BLOCK_BYTES) {
        const int64_t size = min_i64(CRC_BLOCK_BYTES, reader.size - at);
        TRY_DONE(file_reader_pread(&reader, block, size, at));
        sha256_update(&sha, block, (size_t)size);
        if (crcs != NULL)
            json_array_append_new(crcs, json_integer(crc32c(0, block, (size_t)size)));
    }
    sha256_final(&sha, digest);
    sha256_hex(hex, digest);
    *bytes = reader.size;
done:
    file_reader_close(&reader);
    free(block);
    return rc;
}

static err_t add_file(json_t *files, const char *dir, const char *name)
{
    char path[FILE_PATH_MAX], hex[SHA256_HEX_SIZE];
    int64_t bytes;
    TRY(path_join(path, dir, name));
    json_t *crcs = json_array();
    const err_t rc = digest_file(hex, &bytes, crcs, path);
    if (rc != ERR_OK) {
        json_decref(crcs);
        return err_pass(rc, __FILE__, __LINE__, "digest_file");
    }
    json_object_set_new(files, name,
                        json_pack("{s:I, s:s, s:o}", "bytes", (json_int_t)bytes, "sha256", hex,
                                  "crc32c", crcs));
    return ERR_OK;
}

err_t ckpt_manifest_write(const char *dir, int64_t step)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX];
    char *text = NULL;
    json_t *files = json_object(), *root = NULL;
    DIR *folder = opendir(dir);
    if (folder == NULL) RAISE_DONE(IO, "open folder %s: %s", dir, strerror(errno));

    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, MANIFEST_NAME) != 0)
            TRY_DONE(add_file(files, dir, entry->d_name));
    root = json_pack("{s:i, s:I, s:O}", "version", CKPT_VERSION, "step", (json_int_t)step, "files",
                     files);
    text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(1) | JSON_SORT_KEYS);
    if (text == NULL) RAISE_DONE(NOMEM, "%s: no memory for the manifest", dir);
    TRY_DONE(path_join(path, dir, MANIFEST_NAME));
    TRY_DONE(file_replace(path, text, (int64_t)strlen(text)));
done:
    if (folder != NULL) closedir(folder);
    free(text);
    json_decref(files);
    json_decref(root);
    return rc;
}

static err_t check_file(const char *dir, const char *name, const json_t *entry)
{
    char path[FILE_PATH_MAX], hex[SHA256_HEX_SIZE];
    int64_t bytes;
    const json_t *want_bytes = json_object_get(entry, "bytes");
    const char *want_hex = json_string_value(json_object_get(entry, "sha256"));
    if (!json_is_integer(want_bytes) || want_hex == NULL || strchr(name, '/') != NULL)
        RAISE(FORMAT, "%s/%s: entry of %s is not {bytes, sha256, crc32c}", dir, MANIFEST_NAME, name);
    TRY(path_join(path, dir, name));
    TRY(digest_file(hex, &bytes, NULL, path));
    if (bytes != (int64_t)json_integer_value(want_bytes))
        RAISE(FORMAT, "%s: %lld bytes; the manifest says %lld", path, (long long)bytes,
              (long long)json_integer_value(want_bytes));
    if (strcmp(hex, want_hex) != 0)
        RAISE(CHECKSUM, "%s: sha256 is %.16s...; the manifest says %.16s...", path, hex, want_hex);
    return ERR_OK;
}

static err_t check_manifest(const char *dir, json_t *root, const char *path)
{
    const json_t *version = json_object_get(root, "version");
    json_t *files = json_object_get(root, "files");
    if (!json_is_integer(version) || !json_is_object(files))
        RAISE(FORMAT, "%s: not a manifest: \"version\" or \"files\" is missing", path);
    if (json_integer_value(version) != CKPT_VERSION)
        RAISE(FORMAT, "%s: version %lld; this program reads version %d", path,
              (long long)json_integer_value(version), CKPT_VERSION);
    if (json_object_get(files, "state.json") == NULL)
        RAISE(FORMAT, "%s: lists no state.json", path);

    const char *name;
    json_t *entry;
    json_object_foreach(files, name, entry) TRY(check_file(dir, name, entry));
    return ERR_OK;
}

err_t ckpt_verify(const char *dir)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX];
    struct buf text = { 0 };
    json_error_t error;
    json_t *root = NULL;

    TRY(path_join(path, dir, MANIFEST_NAME));
    TRY_DONE(file_read_all(&text, path, MANIFEST_BYTES_MAX));
    root = json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) RAISE_DONE(FORMAT, "%s: line %d: %s", path, error.line, error.text);
    TRY_DONE(check_manifest(dir, root, path));
done:
    json_decref(root);
    buf_clear(&text);
    return rc;
}
