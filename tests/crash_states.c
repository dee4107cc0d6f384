#include "crash_states.h"

#include "testing.h"

#include "base/num.h"
#include "base/rng.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR     512
#define LATE_CALLS 24
#define BELOW_MAX  768
#define ROOT       0 /* its inode */

/* ---- the state before ---- */

static int64_t add_inode(struct crash *c, bool is_folder)
{
    c->inode = realloc(c->inode, (size_t)(c->inode_count + 1) * sizeof *c->inode);
    assert_non_null(c->inode);
    c->inode[c->inode_count] = (struct crash_inode){ .is_folder = is_folder };
    return c->inode_count++;
}

static void add_entry(struct crash_entry **list, int64_t *count, int64_t folder, const char *name,
                      int64_t inode)
{
    *list = realloc(*list, (size_t)(*count + 1) * sizeof **list);
    assert_non_null(*list);
    struct crash_entry *e = &(*list)[(*count)++];
    *e = (struct crash_entry){ .folder = folder, .inode = inode };
    assert_true(strlen(name) < sizeof e->name);
    strcpy(e->name, name);
}

static void read_whole(struct crash_inode *inode, const char *path)
{
    struct stat st;
    const int fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    inode->size = inode->size_max = st.st_size;
    inode->bytes = malloc((size_t)st.st_size + 1);
    assert_int_equal(read(fd, inode->bytes, (size_t)st.st_size), st.st_size);
    close(fd);
}

static void read_folder(struct crash *c, const char *path, int64_t folder)
{
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
        char below[BELOW_MAX];
        struct stat st;
        if (e->d_name[0] == '.') continue;
        snprintf(below, sizeof below, "%s/%s", path, e->d_name);
        assert_int_equal(stat(below, &st), 0);
        const int64_t inode = add_inode(c, S_ISDIR(st.st_mode));
        add_entry(&c->entry, &c->entry_count, folder, e->d_name, inode);
        if (S_ISDIR(st.st_mode))
            read_folder(c, below, inode);
        else
            read_whole(&c->inode[inode], below);
    }
    closedir(dir);
}

/* ---- the trace, with names resolved ---- */

/* Entries as they are while the trace runs. */
struct live {
    struct crash_entry *entry;
    int64_t count;
};

static struct crash_entry *find(const struct live *l, int64_t folder, const char *name, size_t size)
{
    for (int64_t i = 0; i < l->count; i++)
        if (l->entry[i].folder == folder && l->entry[i].inode >= 0 &&
            strlen(l->entry[i].name) == size && strncmp(l->entry[i].name, name, size) == 0)
            return &l->entry[i];
    return NULL;
}

/* The folder that `path` lies in; *name is what follows. */
static int64_t folder_of(const struct live *l, const char *path, const char **name)
{
    int64_t folder = ROOT;
    for (const char *slash; (slash = strchr(path, '/')) != NULL; path = slash + 1) {
        const struct crash_entry *e = find(l, folder, path, (size_t)(slash - path));
        assert_non_null(e);
        folder = e->inode;
    }
    *name = path;
    return folder;
}

static int64_t inode_of(const struct live *l, const char *path)
{
    const char *name;
    if (path[0] == '\0') return ROOT;
    const int64_t folder = folder_of(l, path, &name);
    const struct crash_entry *e = find(l, folder, name, strlen(name));
    return e == NULL ? -1 : e->inode;
}

static void set_entry(struct live *l, int64_t folder, const char *name, int64_t inode)
{
    struct crash_entry *e = find(l, folder, name, strlen(name));
    if (e != NULL)
        e->inode = inode;
    else if (inode >= 0)
        add_entry(&l->entry, &l->count, folder, name, inode);
}

/* The change makes `path` lead to `inode`, now and in states where it happened. */
static void change_entry(struct live *l, struct crash_change *change, const char *path,
                         int64_t inode)
{
    const char *name;
    const int64_t i = change->entry_count++;
    change->folder[i] = folder_of(l, path, &name);
    change->to_inode[i] = inode;
    snprintf(change->name[i], sizeof change->name[i], "%s", name);
    set_entry(l, change->folder[i], name, inode);
}

static void resolve(struct crash *c, struct live *l, struct crash_change *change)
{
    const struct shim_call *call = change->call;
    const int64_t here = inode_of(l, call->path);
    change->inode = here;
    switch (call->kind) {
    case SHIM_CREATE:
    case SHIM_MKDIR:
        if (here < 0) change->inode = add_inode(c, call->kind == SHIM_MKDIR);
        if (here < 0) change_entry(l, change, call->path, change->inode);
        break;
    case SHIM_REMOVE:
        change_entry(l, change, call->path, -1);
        break;
    case SHIM_RENAME:
    case SHIM_EXCHANGE: {
        const int64_t there = inode_of(l, call->to);
        change_entry(l, change, call->path, call->kind == SHIM_EXCHANGE ? there : -1);
        change_entry(l, change, call->to, here);
        assert_int_equal(change->folder[0], change->folder[1]);
        break;
    }
    case SHIM_WRITE:
        c->inode[here].size_max = max_i64(c->inode[here].size_max, call->offset + call->size);
        break;
    case SHIM_TRUNCATE:
        c->inode[here].size_max = max_i64(c->inode[here].size_max, call->size);
        break;
    case SHIM_SYNC:
        break;
    }
    assert_true(change->inode >= 0);
}

/* An emptied file is a change of its data, not of entries. */
static bool needs_sync_of(const struct crash_change *change, int64_t inode)
{
    if (change->entry_count > 0) return change->folder[0] == inode;
    return change->kind != SHIM_SYNC && change->inode == inode;
}

static void find_syncs(struct crash *c, enum crash_carelessness care)
{
    for (int64_t i = 0; i < c->change_count; i++) c->change[i].sync_index = INT64_MAX;
    for (int64_t s = 0; s < c->change_count; s++) {
        const struct crash_change *sync = &c->change[s];
        if (sync->kind != SHIM_SYNC) continue;
        if (care == (c->inode[sync->inode].is_folder ? CRASH_NO_FOLDER_SYNC : CRASH_NO_FILE_SYNC))
            continue;
        for (int64_t i = 0; i < s; i++)
            if (needs_sync_of(&c->change[i], sync->inode))
                c->change[i].sync_index = min_i64(c->change[i].sync_index, s);
    }
}

void crash_open(struct crash *c, const char *before, const struct shim_trace *trace,
                enum crash_carelessness care)
{
    struct live l = { .count = 0 };
    memset(c, 0, sizeof *c);
    add_inode(c, true);
    read_folder(c, before, ROOT);
    for (int64_t i = 0; i < c->entry_count; i++)
        add_entry(&l.entry, &l.count, c->entry[i].folder, c->entry[i].name, c->entry[i].inode);
    c->change_count = trace->count;
    c->change = calloc((size_t)trace->count, sizeof *c->change);
    assert_non_null(c->change);
    for (int64_t i = 0; i < trace->count; i++) {
        c->change[i].kind = trace->call[i].kind;
        c->change[i].call = &trace->call[i];
        resolve(c, &l, &c->change[i]);
    }
    find_syncs(c, care);
    free(l.entry);
}

void crash_close(struct crash *c)
{
    for (int64_t i = 0; i < c->inode_count; i++) free(c->inode[i].bytes);
    free(c->inode);
    free(c->entry);
    free(c->change);
}

int64_t crash_durable_from(const struct crash *c, const char *path)
{
    int64_t from = INT64_MAX;
    for (int64_t i = 0; i < c->change_count; i++) {
        const struct crash_change *change = &c->change[i];
        const bool renames = change->kind == SHIM_RENAME || change->kind == SHIM_EXCHANGE;
        if (renames && strcmp(change->call->to, path) == 0 && change->sync_index != INT64_MAX)
            from = change->sync_index + 1;
    }
    return from;
}

/* ---- one state ---- */

struct file_now {
    char *bytes; /* NULL: as before */
    int64_t size;
};

struct now {
    const struct crash *crash;
    struct live live;
    struct file_now *file; /* [inode_count] */
    uint64_t seed, drawn;
    double chance; /* that a change which is not durable is there */
};

static double draw(struct now *n) { return rng_uniform(n->seed, RNG_TEST, n->drawn++); }

static struct file_now *file_of(struct now *n, int64_t inode)
{
    struct file_now *f = &n->file[inode];
    const struct crash_inode *old = &n->crash->inode[inode];
    if (f->bytes != NULL) return f;
    f->bytes = calloc((size_t)old->size_max + 1, 1);
    assert_non_null(f->bytes);
    f->size = old->size;
    if (old->bytes != NULL) memcpy(f->bytes, old->bytes, (size_t)old->size);
    return f;
}

static void set_size(struct file_now *f, int64_t size)
{
    if (size < f->size) memset(f->bytes + size, 0, (size_t)(f->size - size));
    f->size = size;
}

static void put(struct file_now *f, const struct shim_call *w, int64_t from, int64_t end)
{
    if (from >= end) return;
    memcpy(f->bytes + from, w->bytes + (from - w->offset), (size_t)(end - from));
    f->size = max_i64(f->size, end);
}

/* Whole, up to a sector, or any sectors; and perhaps the whole size. */
static void write_some(struct now *n, struct file_now *f, const struct shim_call *w, bool durable)
{
    const int64_t end = w->offset + w->size, sectors = div_ceil(end, SECTOR);
    const int64_t first = w->offset / SECTOR;
    const double how = durable ? 0.0 : draw(n);
    if (how < 0.4) {
        put(f, w, w->offset, end);
        return;
    }
    const int64_t cut = first + (int64_t)(draw(n) * (double)(sectors - first + 1));
    for (int64_t s = first; s < sectors; s++)
        if (how < 0.7 ? s < cut : draw(n) < 0.5)
            put(f, w, max_i64(w->offset, s * SECTOR), min_i64(end, (s + 1) * SECTOR));
    if (draw(n) < 0.5) f->size = max_i64(f->size, end);
}

static void apply(struct now *n, const struct crash_change *change, bool durable)
{
    const struct shim_call *call = change->call;
    for (int64_t i = 0; i < change->entry_count; i++)
        set_entry(&n->live, change->folder[i], change->name[i], change->to_inode[i]);
    if (change->entry_count > 0) return;
    if (change->kind == SHIM_CREATE) set_size(file_of(n, change->inode), 0);
    if (change->kind == SHIM_TRUNCATE) set_size(file_of(n, change->inode), call->size);
    if (change->kind == SHIM_WRITE) write_some(n, file_of(n, change->inode), call, durable);
}

static void write_whole(const char *path, const struct file_now *f)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, f->bytes, (size_t)f->size), f->size);
    close(fd);
}

static void write_folder(struct now *n, const char *path, int64_t folder, int depth)
{
    assert_true(depth < 8);
    assert_int_equal(mkdir(path, 0777), 0);
    for (int64_t i = 0; i < n->live.count; i++) {
        const struct crash_entry *e = &n->live.entry[i];
        char below[BELOW_MAX];
        if (e->folder != folder || e->inode < 0) continue;
        snprintf(below, sizeof below, "%s/%s", path, e->name);
        if (n->crash->inode[e->inode].is_folder)
            write_folder(n, below, e->inode, depth + 1);
        else
            write_whole(below, file_of(n, e->inode));
    }
}

int64_t crash_state(const struct crash *c, const char *root, uint64_t seed)
{
    struct now n = { .crash = c, .seed = seed };
    n.file = calloc((size_t)c->inode_count, sizeof *n.file);
    assert_non_null(n.file);
    for (int64_t i = 0; i < c->entry_count; i++)
        add_entry(&n.live.entry, &n.live.count, c->entry[i].folder, c->entry[i].name,
                  c->entry[i].inode);
    /* Half of all among the last calls, where names change and old things go. */
    const int64_t all = c->change_count, late = min_i64(all, LATE_CALLS);
    const int64_t done = draw(&n) < 0.5 ? (int64_t)(draw(&n) * (double)(all + 1))
                                        : all - (int64_t)(draw(&n) * (double)(late + 1));
    n.chance = floor(draw(&n) * 5.0) / 4.0; /* none, some, all */
    for (int64_t i = 0; i < done; i++) {
        const bool durable = c->change[i].sync_index < done;
        if (durable || draw(&n) < n.chance) apply(&n, &c->change[i], durable);
    }
    write_folder(&n, root, ROOT, 0);
    for (int64_t i = 0; i < c->inode_count; i++) free(n.file[i].bytes);
    free(n.file);
    free(n.live.entry);
    return done;
}
