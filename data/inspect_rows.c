/* The rows of a micro-batch, one a line, or as JSON arrays. */
#include "base/check.h"
#include "data/inspect.h"
#include "data/inspect_json.h"
#include "data/width.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_COLUMNS 18
#define NO_LABEL      (-100) /* in JSON, as the reference marks rows that are not trained */

/* What a row is for; the colour of its line. */
enum row_kind { ROW_CONTEXT, ROW_TARGET, ROW_PADDING };
static const char *const row_colours[] = {
    [ROW_CONTEXT] = "\033[36m", /* cyan */
    [ROW_TARGET] = "\033[32m",  /* green */
    [ROW_PADDING] = "\033[2m",  /* faint */
};
#define COLOUR_OFF "\033[0m"

/* The micro-batch by row: -1 where a row has no segment or no target. */
struct row_index {
    int32_t *segment, *target;
};

static err_t index_rows(struct row_index *out, const struct micro_batch *m)
{
    out->segment = malloc((size_t)(2 * m->rows + 1) * sizeof *out->segment);
    if (!out->segment) RAISE(NOMEM, "no memory to index %lld rows", (long long)m->rows);
    out->target = out->segment + m->rows;
    for (int64_t i = 0; i < 2 * m->rows; i++) out->segment[i] = -1;
    for (int64_t k = 0; k < m->segment_count; k++) {
        const int32_t *s = m->segments + 3 * k;
        for (int32_t r = s[0]; r < s[0] + s[2]; r++) out->segment[r] = (int32_t)k;
    }
    for (int64_t t = 0; t < m->target_count; t++) out->target[m->target_rows[t]] = (int32_t)t;
    return ERR_OK;
}

static err_t put_piece(struct buf *out, struct buf *scratch, const struct tok *tok, int32_t id)
{
    buf_reset(scratch);
    TRY(tok_piece(tok, scratch, id));
    TRY(text_pad(out, scratch->data, scratch->size, PIECE_COLUMNS));
    return ERR_OK;
}

static err_t write_sample_line(struct buf *out, const struct inspect_rows *rows, int64_t segment)
{
    const struct sample *s = sample_set_at(rows->set, rows->micro->samples[segment]);
    const struct shards *shards = sample_set_shards(rows->set);
    TRY(buf_printf(out, "%4lld  sample %lld: dialogue %lld, turn %d, prompt from turn %d; ",
                   (long long)segment, (long long)rows->micro->samples[segment],
                   (long long)s->dialogue, s->turn, s->turn_first));
    if (s->question_skip > 0) TRY(buf_printf(out, "%d tokens cut; ", s->question_skip));
    TRY(buf_printf(out, "%d + %d tokens%s; %s", s->prompt_len, s->reply_len,
                   s->with_end ? "" : " without end", shards_source(shards, s->dialogue)));
    const char *topic = shards_topic(shards, s->dialogue);
    if (topic[0] != '\0') TRY(buf_printf(out, ", %s", topic));
    TRY(buf_puts(out, "\n"));
    return ERR_OK;
}

static err_t write_row(struct buf *out, struct buf *scratch, const struct inspect_rows *rows,
                       const struct row_index *index, int64_t r)
{
    const struct micro_batch *m = rows->micro;
    if (index->segment[r] >= 0)
        TRY(buf_printf(out, "%6lld %4d ", (long long)r, index->segment[r]));
    else
        TRY(buf_printf(out, "%6lld    - ", (long long)r));
    TRY(buf_printf(out, "%6d %6d %7d  ", m->pos[r], m->block[r], m->ids[r]));
    if (rows->tok != NULL) TRY(put_piece(out, scratch, rows->tok, m->ids[r]));

    const int32_t t = index->target[r];
    if (t >= 0) {
        TRY(buf_printf(out, " %7d  ", m->labels[t]));
        if (rows->tok != NULL) TRY(put_piece(out, scratch, rows->tok, m->labels[t]));
        TRY(buf_printf(out, " %.6g", (double)m->weights[t]));
    }
    while (out->size > 0 && out->data[out->size - 1] == ' ') out->size--;
    return ERR_OK;
}

static err_t write_text(struct buf *out, const struct inspect_rows *rows,
                        const struct row_index *index, bool colour)
{
    err_t rc = ERR_OK;
    const struct micro_batch *m = rows->micro;
    struct buf scratch = { 0 };
    TRY_DONE(buf_printf(out, "%s: %lld rows, %lld segments, %lld trained\n", rows->title,
                        (long long)m->rows, (long long)m->segment_count,
                        (long long)m->target_count));
    for (int64_t k = 0; k < m->segment_count; k++) TRY_DONE(write_sample_line(out, rows, k));

    const int piece = rows->tok != NULL ? PIECE_COLUMNS : 0;
    TRY_DONE(buf_printf(out, "\n%6s %4s %6s %6s %7s  %-*s %7s  %-*s %s\n", "row", "seg", "pos",
                        "block", "id", piece, "", "label", piece, "", "weight"));
    for (int64_t r = 0; r < m->rows; r++) {
        const enum row_kind kind = index->segment[r] < 0  ? ROW_PADDING
                                   : index->target[r] < 0 ? ROW_CONTEXT
                                                          : ROW_TARGET;
        if (colour) TRY_DONE(buf_puts(out, row_colours[kind]));
        TRY_DONE(write_row(out, &scratch, rows, index, r));
        if (colour) TRY_DONE(buf_puts(out, COLOUR_OFF));
        TRY_DONE(buf_puts(out, "\n"));
    }

done:
    buf_clear(&scratch);
    return rc;
}

static err_t write_pieces_json(struct buf *out, const struct inspect_rows *rows)
{
    err_t rc = ERR_OK;
    struct buf scratch = { 0 };
    TRY_DONE(buf_puts(out, ",\"pieces\":["));
    for (int64_t r = 0; r < rows->micro->rows; r++) {
        buf_reset(&scratch);
        TRY_DONE(tok_piece(rows->tok, &scratch, rows->micro->ids[r]));
        if (r > 0) TRY_DONE(buf_puts(out, ","));
        TRY_DONE(json_put_string(out, scratch.data, scratch.size));
    }
    TRY_DONE(buf_puts(out, "]"));

done:
    buf_clear(&scratch);
    return rc;
}

static err_t write_json(struct buf *out, const struct inspect_rows *rows,
                        const struct row_index *index)
{
    const struct micro_batch *m = rows->micro;
    const struct {
        const char *name;
        const int32_t *values;
    } columns[] = {
        { "ids", m->ids }, { "pos", m->pos }, { "block", m->block }, { "segment", index->segment }
    };
    TRY(buf_puts(out, "{"));
    TRY(json_put_member(out, "title", rows->title));
    TRY(buf_printf(out, ",\"rows\":%lld,", (long long)m->rows));
    for (int64_t c = 0; c < COUNT_OF(columns); c++) {
        TRY(json_put_i32s(out, columns[c].name, columns[c].values, m->rows));
        TRY(buf_puts(out, ","));
    }
    TRY(buf_puts(out, "\"labels\":["));
    for (int64_t r = 0; r < m->rows; r++) {
        const int32_t t = index->target[r];
        TRY(buf_printf(out, r > 0 ? ",%d" : "%d", t < 0 ? NO_LABEL : m->labels[t]));
    }
    TRY(buf_puts(out, "],\"weights\":["));
    for (int64_t r = 0; r < m->rows; r++) {
        const int32_t t = index->target[r];
        TRY(buf_printf(out, r > 0 ? ",%.9g" : "%.9g", t < 0 ? 0.0 : (double)m->weights[t]));
    }
    TRY(buf_puts(out, "],"));
    TRY(json_put_i32s(out, "segments", m->segments, 3 * m->segment_count));
    TRY(buf_puts(out, ","));
    TRY(json_put_i64s(out, "samples", m->samples, m->segment_count));
    if (rows->tok != NULL) TRY(write_pieces_json(out, rows));
    TRY(buf_puts(out, "}\n"));
    return ERR_OK;
}

err_t inspect_write_rows(struct buf *out, const struct inspect_rows *rows, enum inspect_form form)
{
    err_t rc = ERR_OK;
    struct row_index index = { 0 };
    TRY_DONE(index_rows(&index, rows->micro));
    if (form == INSPECT_JSON)
        TRY_DONE(write_json(out, rows, &index));
    else
        TRY_DONE(write_text(out, rows, &index, form == INSPECT_COLOUR));

done:
    free(index.segment);
    return rc;
}
