/*
 * corpus_fixture.h - a corpus as one line of text, so that what is expected fits on a line; and
 * packed files made on the spot.
 */
#ifndef TESTS_CORPUS_FIXTURE_H
#define TESTS_CORPUS_FIXTURE_H

#include "base/buf.h"
#include "base/err.h"
#include "data/corpus.h"

#include <stdint.h>

#define SOULCHAT_RECORD                                                                            \
    "{\"id\":0,\"topic\":\"成长\",\"messages\":[{\"role\":\"user\",\"content\":\"你好\"},"     \
    "{\"role\":\"assistant\",\"content\":\"您好\"}]}"
#define SMILE_RECORD                                                                               \
    "{\"dialogue\":[{\"role\":\"client\",\"content\":\"a\"},"                                      \
    "{\"role\":\"counselor\",\"content\":\"b\"}]}"

/* Small files of every form, whole and right. */
struct corpus_sample {
    const char *name, *text;
    enum corpus_form form;
    const char *layout;   /* as corpus_layout_name says */
    const char *rendered; /* as corpus_render shows it */
};
extern const struct corpus_sample corpus_samples[];
extern const int64_t corpus_sample_count;

/* "id/topic: C=.. K=.. S=..; " for each dialogue that was read before the end or the error. */
struct corpus_rendered {
    struct buf text;
    int64_t dialogues, skipped;
    enum corpus_form form;
};

/* From memory; messages call it "corpus.json". Clear out->text. */
err_t corpus_render(struct corpus_rendered *out, const void *bytes, int64_t size,
                    enum corpus_form form, enum corpus_on_bad_record on_bad);

/* Appended to *out: one gzip member, one zstd frame. */
void pack_gzip(struct buf *out, const void *bytes, int64_t size);
void pack_zstd(struct buf *out, const void *bytes, int64_t size);

#endif
