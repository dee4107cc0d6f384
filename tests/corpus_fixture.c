#include "corpus_fixture.h"

#include "testing.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

const struct corpus_sample corpus_samples[] = {
    { "soulchat array", "[\n    " SOULCHAT_RECORD ",\n    " SOULCHAT_RECORD "\n]", CORPUS_SOULCHAT,
      "JSON array", "0/成长: C=你好 K=您好; 0/成长: C=你好 K=您好; " },
    { "soulchat lines", SOULCHAT_RECORD "\n" SOULCHAT_RECORD "\n", CORPUS_SOULCHAT, "JSON lines",
      "0/成长: C=你好 K=您好; 0/成长: C=你好 K=您好; " },
    { "smile lines", SMILE_RECORD "\r\n" SMILE_RECORD, CORPUS_SMILE, "JSON lines",
      "line 1/: C=a K=b; line 2/: C=a K=b; " },
    { "smile objects", "{\n\"id\": 7,\n\"dialogue\": []\n}\n{\n\"dialogue\": []\n}\n", CORPUS_SMILE,
      "JSON objects", "7/:; record 2/:; " },
    { "openai",
      "{\"messages\":[{\"role\":\"developer\",\"content\":\"s\"},{\"role\":\"user\",\"content\":"
      "[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]},"
      "{\"role\":\"assistant\",\"content\":\"c\"}],\"normalizedTag\":\"家庭\"}\n",
      CORPUS_OPENAI, "JSON lines", "line 1/家庭: S=s C=a C=b K=c; " },
    { "sharegpt",
      "[{\"id\":\"x\",\"system\":\"s\",\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},"
      "{\"from\":\"gpt\",\"value\":\"a\"},{\"from\":\"system\",\"value\":\"t\"}]}]",
      CORPUS_SHAREGPT, "JSON array", "x/: S=s C=q K=a S=t; " },
    { "emollm",
      "[{\"conversation\":[{\"system\":\"s\",\"input\":\"问\",\"output\":\"答\"},"
      "{\"input\":\"q\",\"output\":\"\\u597d\"}]}]",
      CORPUS_EMOLLM, "JSON array", "record 1/: S=s C=问 K=答 C=q K=好; " },
    { "alpaca",
      "{\"instruction\":\"i\",\"input\":\"n\",\"output\":\"o\",\"history\":[[\"q\",\"a\"]]}\n"
      "{\"instruction\":\"i\",\"output\":\"o\",\"input\":\"\",\"history\":null,\"system\":\"s\"}\n",
      CORPUS_ALPACA, "JSON lines", "line 1/: C=q K=a C=i C=n K=o; line 2/: S=s C=i K=o; " },
    { "psyqa",
      "[{\"question\":\"问\",\"description\":\"述\",\"keywords\":\"恋爱,经营\",\"answers\":["
      "{\"answer_text\":\"一\",\"has_label\":true,\"labels_sequence\":[{\"start\":0,\"end\":1,"
      "\"type\":\"Others\"}]},{\"answer_text\":\"二\",\"labels_sequence\":null}],"
      "\"questionID\":43},{\"question\":\"q\",\"answers\":[{\"answer_text\":\"z\"}]},"
      "{\"question\":\"w\",\"description\":\"\",\"answers\":[]}]",
      CORPUS_PSYQA, "JSON array",
      "43/1/恋爱: C=问 C=述 K=一; 43/2/恋爱: C=问 C=述 K=二; record 2/: C=q K=z; record 3/: "
      "C=w; " },
    { "bianque csv",
      "\"input\",\"target\",\"answer_choice\",\"type\"\n"
      "\"病人：头疼\\n医生：多久了？\\n病人：两天\n了\\n医生：\",\"说\"\"多\"\"喝水\",\"[]\",qa\r\n"
      "病人：无\\n医生：,好,[],qa\r\n",
      CORPUS_BIANQUE, "CSV",
      "line 2/: C=头疼 K=多久了？ C=两天\n了 K=说\"多\"喝水; line 4/: C=无 K=好; " },
    { "bianque lines", "{\"id\":\"u\",\"input\":\"病人：a\\n医生：\",\"target\":\"b\"}\n",
      CORPUS_BIANQUE, "JSON lines", "u/: C=a K=b; " },
    { "cpsycoun",
      "来访者：我很自私。\r\n\r\n心理咨询师：说说看？\r\n比如什么时候？\r\n\r\n"
      "==> data/case_1.txt <==\n\n来访者: a\n支持者：b\n\n c\n---\n用户：d\n助手：e",
      CORPUS_CPSYCOUN, "text",
      "line 1/: C=我很自私。 K=说说看？\n比如什么时候？; case_1/: C= a K=b\n\n c; "
      "line 13/: C=d K=e; " },
};
const int64_t corpus_sample_count = COUNT_OF(corpus_samples);

static err_t render_all(struct corpus_rendered *out, struct corpus *c)
{
    for (;;) {
        struct dialogue_text d;
        bool found;
        TRY(corpus_next(c, &d, &found));
        if (!found) return ERR_OK;
        out->dialogues++;
        TRY(buf_printf(&out->text, "%s/%s:", d.id, d.topic));
        for (int64_t i = 0; i < d.turn_count; i++) {
            assert_int_equal(d.turns[i].text[d.turns[i].size], 0);
            TRY(buf_printf(&out->text, " %c=", "CKS"[d.turns[i].role]));
            TRY(buf_append(&out->text, d.turns[i].text, (size_t)d.turns[i].size));
        }
        TRY(buf_puts(&out->text, "; "));
    }
}

err_t corpus_render(struct corpus_rendered *out, const void *bytes, int64_t size,
                    enum corpus_form form, enum corpus_on_bad_record on_bad)
{
    struct corpus *c = NULL;
    buf_reset(&out->text);
    assert_ok(buf_puts(&out->text, ""));
    out->dialogues = out->skipped = 0;
    err_t rc = corpus_open_memory(&c, "corpus.json", bytes, size, form, on_bad);
    if (rc == ERR_OK) {
        rc = render_all(out, c);
        out->skipped = corpus_skipped(c);
        out->form = corpus_form(c);
    }
    corpus_close(c);
    return rc;
}

void pack_gzip(struct buf *out, const void *bytes, int64_t size)
{
    z_stream z = { 0 };
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    const size_t bound = deflateBound(&z, (uLong)size);
    assert_ok(buf_reserve(out, bound));
    z.next_in = (Bytef *)(uintptr_t)bytes;
    z.avail_in = (uInt)size;
    z.next_out = (Bytef *)out->data + out->size;
    z.avail_out = (uInt)bound;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    out->size += bound - z.avail_out;
    deflateEnd(&z);
}

void pack_zstd(struct buf *out, const void *bytes, int64_t size)
{
    const size_t bound = ZSTD_compressBound((size_t)size);
    ZSTD_CCtx *z = ZSTD_createCCtx();
    assert_non_null(z);
    assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1)));
    assert_ok(buf_reserve(out, bound));
    const size_t made = ZSTD_compress2(z, out->data + out->size, bound, bytes, (size_t)size);
    assert_false(ZSTD_isError(made));
    out->size += made;
    ZSTD_freeCCtx(z);
}
