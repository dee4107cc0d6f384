/* file.h: every promise, at every step that can fail. */
#include "testing.h"

#include "base/buf.h"
#include "base/fault.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void in_dir(char *out, const char *name) { assert_ok(path_join(out, testing_dir(), name)); }

static void assert_content(const char *path, const char *expected)
{
    struct buf b = { 0 };
    assert_ok(file_read_all(&b, path, 1 << 20));
    assert_string_equal(b.data, expected);
    buf_clear(&b);
}

static int entry_count(const char *path)
{
    int count = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while (readdir(dir) != NULL) count++;
    closedir(dir);
    return count - 2; /* . and .. */
}

/* The n-th step fails, for every n there is: the old file survives and nothing else is left. */
static void test_replace_faults(void **state)
{
    (void)state;
    char dir[FILE_PATH_MAX], path[FILE_PATH_MAX];
    in_dir(dir, "replace");
    assert_ok(dir_create(dir));
    assert_ok(path_join(path, dir, "file"));
    assert_ok(file_replace(path, "old", 3));

    const char *const sites[] = { "file.open", "file.write", "file.sync", "file.rename" };
    for (int n = 1; n <= 4; n++) {
        fault_arm("", n);
        assert_err(file_replace(path, "new", 3), IO, sites[n - 1]);
        assert_int_equal(fault_hits(), n);
        fault_arm("", 0);
        assert_content(path, "old");
        assert_int_equal(entry_count(dir), 1);
    }
    /* The fifth, the directory's sync, comes after the rename: new and whole, but reported. */
    fault_arm("", 5);
    assert_err(file_replace(path, "new", 3), IO, "file.dirsync");
    fault_arm("", 0);
    assert_content(path, "new");
    assert_int_equal(entry_count(dir), 1);

    fault_arm("", 6);
    assert_ok(file_replace(path, "newer", 5));
    assert_int_equal(fault_hits(), 5);
    fault_arm("", 0);
    assert_content(path, "newer");
}

static void test_writer(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX];
    in_dir(path, "writer");
    struct file_writer w;
    assert_ok(file_writer_open(&w, path));
    assert_ok(file_writer_append(&w, "abc", 3));
    assert_ok(file_writer_pwrite(&w, "xyz", 3, 8));
    assert_ok(file_writer_append(&w, "def", 3));
    assert_true(w.offset == 6);
    assert_false(file_exists(path)); /* not before the commit */
    assert_ok(file_writer_commit(&w));
    file_writer_close(&w);

    struct buf b = { 0 };
    assert_ok(file_read_all(&b, path, 11));
    assert_int_equal(b.size, 11);
    assert_memory_equal(b.data, "abcdef\0\0xyz", 11);

    assert_ok(file_writer_open(&w, path));
    assert_ok(file_writer_append(&w, "discarded", 9));
    file_writer_close(&w);
    file_writer_close(&w);
    buf_reset(&b);
    assert_ok(file_read_all(&b, path, 11));
    assert_int_equal(b.size, 11);
    buf_clear(&b);

    /* A zeroed writer holds no descriptor: closing it must leave fd 0 alone. */
    const int before = fcntl(0, F_GETFD);
    struct file_writer zero = { 0 };
    file_writer_close(&zero);
    struct file_reader zero_reader = { 0 };
    file_reader_close(&zero_reader);
    assert_int_equal(fcntl(0, F_GETFD), before);
}

static void test_writer_errors(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX];
    struct file_writer w;
    struct stat st;
    in_dir(path, "absent/file");
    assert_err(file_writer_open(&w, path), IO, "No such file or directory");
    file_writer_close(&w);
    assert_err(file_writer_open(&w, ""), ARG, "empty name");

    char name[FILE_PATH_MAX + 8];
    memset(name, 'n', sizeof name);
    name[FILE_PATH_MAX - 4] = '\0'; /* with ".tmp" one byte too many */
    assert_err(file_writer_open(&w, name), ARG, "path of 1020 bytes, at most 1019");
    file_writer_close(&w);

    in_dir(path, "a-directory");
    assert_ok(dir_create(path));
    assert_err(file_replace(path, "x", 1), IO, "a directory, where a file is to be written");
    assert_true(dir_exists(path));
    in_dir(path, "a-pipe"); /* as /dev/null is, for who may rename there */
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_err(file_replace(path, "x", 1), IO, "a pipe or a device, where a file");
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    assert_err(file_replace("/dev/full/x", "x", 1), IO, "/dev/full/x.tmp");
}

/* A pipe that nobody writes to is refused, instead of waited for. */
static void test_reader_of_a_pipe(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX];
    struct file_reader r;
    in_dir(path, "pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_err(file_reader_open(&r, path), IO, "a pipe or a device, expected a regular file");
    file_reader_close(&r);
}

static void test_reader(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX], bytes[8] = "";
    in_dir(path, "reader");
    assert_ok(file_replace(path, "0123456789", 10));
    struct file_reader r;
    assert_ok(file_reader_open(&r, path));
    assert_true(r.size == 10);
    assert_ok(file_reader_pread(&r, bytes, 4, 6));
    assert_string_equal(bytes, "6789");
    assert_ok(file_reader_pread(&r, bytes, 0, 10));
    assert_err(file_reader_pread(&r, bytes, 5, 6), FORMAT, "5 bytes wanted at 6, the file has 10");
    assert_err(file_reader_pread(&r, bytes, 1, INT64_MAX), FORMAT, "wanted at");
    assert_err(file_reader_pread(&r, bytes, 1, -1), FORMAT, "wanted at -1");
    fault_arm("file.read", 1);
    assert_err(file_reader_pread(&r, bytes, 1, 0), IO, "injected");
    fault_arm("", 0);

    assert_int_equal(truncate(path, 7), 0); /* behind the reader's back */
    assert_err(file_reader_pread(&r, bytes, 4, 6), FORMAT, "ends at 7 while being read");
    file_reader_close(&r);

    assert_err(file_reader_open(&r, testing_dir()), IO, "a directory");
    in_dir(path, "nothing");
    assert_err(file_reader_open(&r, path), NOTFOUND, "no such file");
    assert_err(file_reader_open(&r, "/dev/null"), IO, "expected a regular file");
    file_reader_close(&r);
}

static void test_read_all(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX];
    struct buf b = { 0 };
    in_dir(path, "all");
    assert_ok(file_replace(path, "0123456789", 10));
    assert_ok(buf_puts(&b, "before:"));
    assert_err(file_read_all(&b, path, 9), FORMAT, "10 bytes, at most 9");
    assert_string_equal(b.data, "before:");
    for (int n = 1; n <= 3; n++) {
        fault_arm("file.", n);
        assert_err(file_read_all(&b, path, 10), IO, "injected");
        assert_string_equal(b.data, "before:");
    }
    fault_arm("", 0);
    assert_ok(file_read_all(&b, path, 10));
    assert_string_equal(b.data, "before:0123456789");

    /* /dev/zero says it has size 0; the limit must hold all the same. */
    assert_err(file_read_all(&b, "/dev/zero", 100000), FORMAT, "more than 100000 bytes");
    assert_string_equal(b.data, "before:0123456789");
    buf_clear(&b);
    assert_ok(file_read_all(&b, "/dev/null", 0));
    assert_string_equal(b.data, "");
    buf_clear(&b);
}

static bool is_called_a(const char *name) { return strcmp(name, "a") == 0; }

static void test_directory_of_ours(void **state)
{
    (void)state;
    char top[FILE_PATH_MAX], path[FILE_PATH_MAX];
    in_dir(top, "ours");
    assert_ok(dir_check_ours(top, "nest", is_called_a)); /* absent */
    in_dir(path, "ours/a");
    assert_ok(dir_create(path));
    assert_ok(dir_check_ours(top, "nest", is_called_a));
    in_dir(path, "ours/.b");
    assert_ok(file_replace(path, "x", 1));
    assert_err(dir_check_ours(top, "nest", is_called_a), ARG, "holds .b, so it is no nest");
    assert_err(dir_check_ours(path, "nest", is_called_a), IO, "open directory");
}

static void test_directories(void **state)
{
    (void)state;
    char top[FILE_PATH_MAX], path[FILE_PATH_MAX], outside[FILE_PATH_MAX];
    in_dir(top, "top");
    in_dir(path, "top/a/b//c/");
    in_dir(outside, "outside");
    assert_ok(dir_create(path));
    assert_ok(dir_create(path));
    assert_true(dir_exists(path));
    assert_false(file_exists(path));
    assert_ok(dir_sync(path));
    assert_err(dir_sync("/no/such/place"), IO, "/no/such/place");

    in_dir(path, "top/a/file");
    assert_ok(file_replace(path, "x", 1));
    in_dir(path, "top/a/file/d");
    assert_err(dir_create(path), IO, "top/a/file: there is a file of this name");
    in_dir(path, "top/a/file");
    assert_err(dir_remove(path), IO, "not a directory");

    /* A link inside the tree is removed; what it points to is not. */
    assert_ok(dir_create(outside));
    in_dir(path, "top/link");
    assert_int_equal(symlink(outside, path), 0);
    fault_arm("file.remove", 3);
    assert_err(dir_remove(top), IO, "injected");
    fault_arm("", 0);
    assert_ok(dir_remove(top));
    assert_false(dir_exists(top));
    assert_true(dir_exists(outside));
    assert_ok(dir_remove(top));
}

static void test_paths(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX], dir[FILE_PATH_MAX + 1];
    assert_ok(path_join(path, "a", "b"));
    assert_string_equal(path, "a/b");
    assert_ok(path_join(path, "a/", "b"));
    assert_string_equal(path, "a/b");
    assert_ok(path_join(path, "", "b"));
    assert_string_equal(path, "b");
    memset(dir, 'd', sizeof dir);
    dir[FILE_PATH_MAX - 3] = '\0';
    assert_ok(path_join(path, dir, "n"));
    dir[FILE_PATH_MAX - 3] = 'd';
    dir[FILE_PATH_MAX - 2] = '\0';
    assert_err(path_join(path, dir, "n"), ARG, "at most 1023");

    int64_t bytes = -1, parent_bytes = -1;
    assert_ok(file_free_space(&bytes, "no/such/folder"));
    assert_ok(file_free_space(&parent_bytes, "/no-such-folder/x"));
    assert_true(bytes >= 0);
    assert_true(parent_bytes >= 0);
}

/* Whoever opens it anew is another holder, in this process too. */
static void test_lock(void **state)
{
    (void)state;
    int first, second;
    char path[FILE_PATH_MAX], absent[FILE_PATH_MAX];
    in_dir(path, "lock");
    in_dir(absent, "absent/lock");
    assert_ok(file_lock(&first, path, false));
    assert_true(first >= 0);
    assert_ok(file_lock(&second, path, false));
    assert_int_equal(second, -1);
    close(first);
    assert_ok(file_lock(&second, path, true));
    assert_true(second >= 0);
    close(second);
    assert_err(file_lock(&first, absent, true), IO, "absent/lock");
    assert_int_equal(first, -1);
    fault_arm("file.lock", 1);
    assert_err(file_lock(&first, path, true), IO, "file.lock");
    fault_arm("", 0);
    assert_int_equal(first, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replace_faults), cmocka_unit_test(test_writer),
        cmocka_unit_test(test_writer_errors),  cmocka_unit_test(test_reader),
        cmocka_unit_test(test_reader_of_a_pipe),
        cmocka_unit_test(test_read_all),       cmocka_unit_test(test_directories),
        cmocka_unit_test(test_directory_of_ours),
        cmocka_unit_test(test_paths),          cmocka_unit_test(test_lock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
