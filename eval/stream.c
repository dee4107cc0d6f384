#include "eval/stream.h"

#include "base/stop.h"
#include "eval/console.h"

err_t stream_reply(struct gen *gen, const struct question *question, uint64_t index)
{
    const struct buf *text = &gen_reply(gen, 0)->text;
    size_t printed = 0;
    TRY(gen_begin(gen, 0, question->turns, question->turn_count, index));
    while (gen_is_busy(gen, 0)) {
        TRY(stop_requested() ? gen_stop(gen, 0) : gen_step(gen));
        if (text->size == printed) continue;
        TRY(console_write(text->data + printed, (int64_t)(text->size - printed)));
        printed = text->size;
    }
    return console_puts("\n");
}
