#include "data/prepare_spool.h"

#include <string.h>

#define TEXT_FILE "dialogues.text"
#define ROWS_FILE "dialogues.rows"

/* Before each text of a record; a topic has role and flags 0. */
struct head {
    int32_t size;
    uint8_t role, flags, zero[2];
};
STATIC_ASSERT(sizeof(struct head) == 8, "heads have no padding");

static err_t put(struct buf *out, int role, int flags, const char *text, int64_t size)
{
    const struct head head = { (int32_t)size, (uint8_t)role, (uint8_t)flags, { 0, 0 } };
    TRY(buf_append(out, &head, sizeof head));
    return buf_append(out, text, (size_t)size);
}

err_t spool_encode(struct buf *out, const struct clean_dialogue *d, const char *topic)
{
    TRY(put(out, 0, 0, topic, (int64_t)strlen(topic)));
    for (int64_t i = 0; i < d->turn_count; i++)
        TRY(put(out, d->turns[i].role, d->turns[i].flags, d->turns[i].text, d->turns[i].size));
    return ERR_OK;
}

/* The next text of a record; *at moves behind it. */
static err_t take(struct head *head, const char **text, const char *record, int64_t size,
                  int64_t *at)
{
    if (size - *at < (int64_t)sizeof *head) RAISE(FORMAT, "a spooled dialogue is cut short");
    memcpy(head, record + *at, sizeof *head);
    *at += (int64_t)sizeof *head;
    if (head->size < 0 || head->size > size - *at || head->role > ROLE_SYSTEM)
        RAISE(FORMAT, "a spooled dialogue is damaged");
    *text = record + *at;
    *at += head->size;
    return ERR_OK;
}

err_t spool_decode(struct turn_text *turns, uint8_t *flags, const char **topic,
                   int64_t *topic_size, const char *record, int64_t size, int64_t turn_count)
{
    struct head head;
    int64_t at = 0;
    TRY(take(&head, topic, record, size, &at));
    *topic_size = head.size;
    for (int64_t i = 0; i < turn_count; i++) {
        const char *text;
        TRY(take(&head, &text, record, size, &at));
        turns[i] = (struct turn_text){ (enum role)head.role, text, head.size };
        if (flags != NULL) flags[i] = head.flags;
    }
    if (at != size)
        RAISE(FORMAT, "a spooled dialogue has %lld bytes too many", (long long)(size - at));
    return ERR_OK;
}

err_t spool_writer_open(struct spool_writer *w, const char *dir)
{
    char path[FILE_PATH_MAX];
    *w = (struct spool_writer){ 0 };
    TRY(path_join(path, dir, TEXT_FILE));
    TRY(file_writer_open(&w->text, path));
    TRY(path_join(path, dir, ROWS_FILE));
    return file_writer_open(&w->rows, path);
}

err_t spool_writer_append(struct spool_writer *w, struct spool_row *rows, int64_t count,
                          const struct buf *text)
{
    for (int64_t i = 0; i < count; i++) rows[i].text_off += w->text.offset;
    if (text->size > 0) TRY(file_writer_append(&w->text, text->data, (int64_t)text->size));
    w->count += count;
    return count > 0 ? file_writer_append(&w->rows, rows, count * (int64_t)sizeof *rows) : ERR_OK;
}

err_t spool_writer_commit(struct spool_writer *w)
{
    TRY(file_writer_commit(&w->text));
    return file_writer_commit(&w->rows);
}

void spool_writer_close(struct spool_writer *w)
{
    file_writer_close(&w->text);
    file_writer_close(&w->rows);
}

err_t spool_open(struct spool *s, const char *dir)
{
    char path[FILE_PATH_MAX];
    *s = (struct spool){ 0 };
    TRY(path_join(path, dir, TEXT_FILE));
    TRY(file_reader_open(&s->text, path));
    TRY(path_join(path, dir, ROWS_FILE));
    TRY(file_reader_open(&s->rows, path));
    if (s->rows.size % (int64_t)sizeof(struct spool_row) != 0)
        RAISE(FORMAT, "%s: %lld bytes are no whole number of rows", path, (long long)s->rows.size);
    s->count = s->rows.size / (int64_t)sizeof(struct spool_row);
    return ERR_OK;
}

err_t spool_rows(const struct spool *s, struct spool_row *out, int64_t first, int64_t count)
{
    struct file_reader rows = s->rows;
    return file_reader_pread(&rows, out, count * (int64_t)sizeof *out,
                             first * (int64_t)sizeof *out);
}

err_t spool_text(const struct spool *s, struct buf *out, const struct spool_row *rows,
                 int64_t count)
{
    struct file_reader text = s->text;
    const int64_t begin = rows[0].text_off;
    const int64_t size = rows[count - 1].text_off + rows[count - 1].text_size - begin;
    if (size < 0) RAISE(FORMAT, "%s: rows out of order", s->rows.path);
    buf_reset(out);
    TRY(buf_reserve(out, (size_t)size + 1));
    TRY(file_reader_pread(&text, out->data, size, begin));
    out->size = (size_t)size;
    return ERR_OK;
}

void spool_close(struct spool *s)
{
    file_reader_close(&s->text);
    file_reader_close(&s->rows);
}
